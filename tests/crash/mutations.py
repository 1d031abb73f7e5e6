"""Removes each fsync, lock and flag from a copy of the code, one at a time, and sees which test notices.

Run as a program it does that for all (`--only TEXT` for some) and prints one JSON object; it exits with 1 if one
went unnoticed. `test_mutations.py` holds that no place in the code is missing here, and nothing here is out of date.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.sites import Site, mutated, sites

if TYPE_CHECKING:
    import ast

PROJECT = Path(__file__).resolve().parents[2]
_LOSS = "test_a_power_loss_at_any_point_leaves_the_state_before_or_after"
_AFTER = "test_a_power_loss_after_a_kill_and_a_recovery_takes_nothing_back"
_HELD = "test_a_writing_command_does_nothing_while_another_holds_the_lock"
_NOBODY = '__import__("contextlib").nullcontext()'


@dataclass(frozen=True)
class Mutation:
    """What to put in the place of a call or a flag, and the tests of which one must then fail."""

    replacement: str
    tests: tuple[str, ...]


def _loss(scenario: str) -> tuple[str, ...]:
    return (f"tests/crash/test_power_loss.py::{_LOSS}[{scenario}]",)


def _after(scenario: str) -> tuple[str, ...]:
    return (f"tests/crash/test_power_loss.py::{_AFTER}[{scenario}]",)


def _held(scenario: str) -> tuple[str, ...]:
    return (f"tests/crash/test_locks.py::{_HELD}[{scenario}]",)


_DISK = ("tests/storage/test_disk.py",)
_LOCK = ("tests/storage/test_lock.py",)
_COPYING = ("tests/storage/test_copying.py",)
_JOURNAL = ("tests/repository/test_journal.py",)
_LOCK_PLACES = ("tests/storage/test_lock_places.py",)
_TRUST = ("tests/repository/test_trust.py",)
_PRUNING = ("tests/repository/test_pruning.py",)
_ARCHIVES = ("tests/runs/test_archives.py",)
_BENEATH = ("tests/storage/test_beneath.py",)
_SWAPPED = ("tests/runs/test_hostile_archives.py", "-k", "swapped")
_EXPORT = ("tests/crash/test_export.py", "-k", "durable")
_TURNS = ("tests/verbs/test_smoke_turns.py",)
_OVERTAKEN = ("tests/crash/test_locks.py", "-k", "overtaken")


def _site(place: str, function: str, what: str, nth: int = 1) -> Site:
    return Site(f"{place}.py", function, what, nth)


MUTATIONS: dict[Site, Mutation] = {
    # what makes bytes and names durable
    _site("storage/disk", "sync_directory", "fsync"): Mutation("None", _loss("rollback")),
    _site("storage/disk", "sync_file", "fsync"): Mutation("None", _after("hold")),
    _site("storage/disk", "make_directory", "sync_directory"): Mutation(
        "None", _loss("promote, new model")
    ),
    _site("storage/disk", "_make_directory", "sync_directory"): Mutation("None", _loss("init")),
    _site("storage/disk", "replace_file", "fsync"): Mutation("None", _loss("rollback")),
    _site("storage/disk", "replace_file", "sync_directory"): Mutation("None", _loss("rollback")),
    _site("storage/disk", "append_lines", "fsync"): Mutation("None", _loss("rollback")),
    _site("storage/disk", "append_lines", "sync_directory"): Mutation(
        "None", _loss("promote, new model")
    ),
    _site("storage/disk", "publish_directory", "sync_directory"): Mutation(
        "None", _loss("promote, new model")
    ),
    _site("storage/disk", "remove_file", "sync_directory"): Mutation(
        "None", _loss("recover, died at staging")
    ),
    _site("storage/copying", "copy_file", "fsync"): Mutation("None", _loss("promote, new model")),
    _site("storage/copying", "copy_tree", "sync_directory"): Mutation(
        "None", _loss("promote, new model")
    ),
    _site("repository/journal", "declare", "fsync"): Mutation("None", _loss("rollback")),
    _site("repository/journal", "declare", "sync_directory"): Mutation(
        "None", _loss("promote, new model")
    ),
    _site("repository/repository", "locked", "make_durable"): Mutation(
        "None", _after("promote, new model")
    ),
    _site("repository/repository", "make_durable", "sync_directory"): Mutation(
        "None", _after("promote, new model")
    ),
    _site("repository/repository", "make_durable", "sync_file"): Mutation("None", _after("hold")),
    _site("repository/creation", "initialize", "was_left"): Mutation("False", _after("init")),
    # what keeps others from being overwritten, and links from being followed
    _site("storage/disk", "rename_without_replacing", "renameat2"): Mutation(
        "(os.rename(source, target), 0)[1]", _DISK
    ),
    _site("storage/disk", "rename_without_replacing", "_RENAME_NOREPLACE"): Mutation("0", _DISK),
    _site("storage/disk", "publish_directory", "rename_without_replacing"): Mutation(
        "os.rename(source, target)", _DISK
    ),
    _site("storage/disk", "_make_directory", "rename_without_replacing"): Mutation(
        "os.rename(temporary, path)", _DISK
    ),
    _site("storage/disk", "replace_file", "O_NOFOLLOW"): Mutation("0", _DISK),
    _site("storage/copying", "copy_file", "O_EXCL"): Mutation("0", _COPYING),
    _site("storage/copying", "_no_follow", "O_NOFOLLOW"): Mutation("0", _COPYING),
    _site("repository/journal", "declare", "O_EXCL"): Mutation("0", _JOURNAL),
    _site("storage/beneath", "the module", "O_NOFOLLOW"): Mutation("0", _BENEATH),
    _site("storage/beneath", "open_plain", "O_NOFOLLOW"): Mutation("0", _BENEATH),
    _site("storage/beneath", "_open_at_once", "_RESOLVE_NO_SYMLINKS"): Mutation("0", _BENEATH),
    _site("runs/unpacking", "the module", "O_NOFOLLOW"): Mutation("0", _SWAPPED),
    _site("runs/unpacking", "the module", "O_EXCL"): Mutation("0", _SWAPPED),
    _site("cli/settings_file", "the module", "O_NOFOLLOW"): Mutation(
        "0", ("tests/cli/test_settings_of_others.py",)
    ),
    _site("verbs/doctor_tree", "the module", "O_NOFOLLOW"): Mutation(
        "0", ("tests/verbs/test_doctor_hostile.py", "-k", "outside")
    ),
    # who is alone
    _site("storage/lock", "_try_to_hold", "try_flock"): Mutation("True", _LOCK),
    _site("storage/lock", "try_flock", "flock"): Mutation("None", _LOCK),
    _site("storage/lock", "try_flock", "LOCK_EX"): Mutation("fcntl.LOCK_SH", _LOCK),
    _site("storage/lock", "try_flock", "LOCK_SH"): Mutation("fcntl.LOCK_EX", _LOCK),
    _site("storage/lock", "try_flock", "LOCK_NB"): Mutation("0", (*_LOCK, "--timeout=20")),
    _site("storage/lock", "is_held", "try_flock"): Mutation("True", _LOCK),
    _site("storage/lock", "was_left", "is_held"): Mutation("False", _LOCK),
    _site("repository/repository", "locked", "hold_lock"): Mutation(_NOBODY, _LOCK_PLACES),
    _site("repository/proving", "alone_on_server", "hold_lock"): Mutation(_NOBODY, _TURNS),
    _site("repository/proving", "smoking", "alone_on_server"): Mutation(_NOBODY, _TURNS),
    _site("verbs/promote", "_prove", "alone_on_server"): Mutation(_NOBODY, _TURNS),
    _site("verbs/smoke", "smoke", "alone_on_server"): Mutation(_NOBODY, _TURNS),
    _site("verbs/diff", "_compare_answers", "alone_on_server"): Mutation(_NOBODY, _TURNS),
    _site("repository/journal", "declare", "flock"): Mutation("None", _JOURNAL),
    _site("repository/journal", "declare", "LOCK_EX"): Mutation("fcntl.LOCK_SH", _JOURNAL),
    _site("repository/journal", "read_all", "is_held"): Mutation("False", _JOURNAL),
    _site("repository/creation", "initialize", "locked"): Mutation(_NOBODY, _after("init")),
    _site("repository/creation", "initialize", "locked", 2): Mutation(_NOBODY, _held("init")),
    _site("storage/disk", "sync", "sync_file"): Mutation("None", _loss("adopt")),
    _site("storage/disk", "sync_folder", "sync_directory"): Mutation("None", _loss("adopt")),
    _site("storage/disk", "_write_file", "O_NOFOLLOW"): Mutation("0", _DISK),
    _site("verbs/adopt", "_commit", "writing"): Mutation(
        _NOBODY, ("tests/verbs/test_adoption.py", "-k", "waits_for_the_lock")
    ),
    _site("repository/transaction", "writing", "locked"): Mutation(_NOBODY, _held("hold")),
    _site("repository/transaction", "writing", "refuse_moved"): Mutation(
        "None", ("tests/verbs/test_adoption_paths.py", "-k", "next_writer")
    ),
    _site("repository/repository", "locked", "refuse_moved"): Mutation(
        "None", ("tests/repository/test_paths.py", "-k", "writer_stops")
    ),
    _site("repository/publication", "reserve", "writing"): Mutation(
        _NOBODY, _held("promote, second version")
    ),
    _site("repository/publication", "reserve", "locked"): Mutation(_NOBODY, _OVERTAKEN),
    _site("repository/proving", "smoking", "locked"): Mutation(
        _NOBODY, ("tests/repository/test_proving.py", "-k", "settles_nothing")
    ),
    _site("repository/proving", "smoking", "writing"): Mutation(
        _NOBODY, ("tests/repository/test_proving.py", "-k", "settles_nothing")
    ),
    _site("verbs/promote", "promote", "writing"): Mutation(_NOBODY, _OVERTAKEN),
    _site("verbs/promote", "_promote_known", "writing"): Mutation(
        _NOBODY, ("tests/crash/test_locks.py", "-k", "content_that_is_there")
    ),
    _site("verbs/reload", "reload", "writing"): Mutation(
        _NOBODY, ("tests/crash/test_locks.py", "-k", "a_reload")
    ),
    _site("verbs/restore", "recover", "locked"): Mutation(_NOBODY, _held("recover, died at C1")),
    _site("repository/journal", "set_aside_unreadable", "is_held"): Mutation("False", _TRUST),
    _site("repository/version_lock", "using", "try_flock"): Mutation("True", _PRUNING),
    _site("repository/version_lock", "alone", "try_flock"): Mutation("True", _PRUNING),
    _site("repository/version_lock", "used_versions", "try_flock"): Mutation("True", _PRUNING),
    _site("storage/scratch", "_make", "flock"): Mutation("None", _ARCHIVES),
    _site("storage/scratch", "the module", "LOCK_EX"): Mutation("fcntl.LOCK_SH", _ARCHIVES),
    _site("storage/scratch", "sweep", "flock"): Mutation("None", _ARCHIVES),
    _site("storage/scratch", "sweep", "LOCK_NB"): Mutation("0", (*_ARCHIVES, "--timeout=20")),
    _site("runs/export", "keep", "sync_file"): Mutation("None", _EXPORT),
    _site("runs/export", "keep", "sync_directory"): Mutation("None", _EXPORT),
    _site("storage/disk", "append_lines", "O_NOFOLLOW"): Mutation("0", (*_DISK, *_TRUST)),
    _site("storage/hashing", "hash_file", "O_NOFOLLOW"): Mutation(
        "0", ("tests/storage/test_hashing.py",)
    ),
    _site("storage/mapping", "hash_mapped", "O_NOFOLLOW"): Mutation(
        "0", ("tests/storage/test_mapping.py",)
    ),
    _site("storage/lock", "the module", "O_NOFOLLOW"): Mutation("0", (*_LOCK, *_LOCK_PLACES)),
    _site("storage/tree", "_opened", "O_NOFOLLOW"): Mutation(
        "0", ("tests/storage/test_tree.py", "tests/verbs/test_hostile_runs.py")
    ),
}

HELD = Mutation(_NOBODY, ("tests/crash/test_locks.py", "-k", "holds_the_lock"))
"""For each other `with writing(…)`: a command that writes has a scenario, and hence a test of its lock."""


def mutation_of(site: Site) -> Mutation | None:
    """Return what is done at a place; None: nobody has said."""
    return MUTATIONS.get(site) or (HELD if site.what == "writing" else None)


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation: the test that noticed it; empty if none did."""

    site: Site
    noticed_by: str
    said: str


def try_all(chosen: list[tuple[Site, ast.expr]], *, workers: int) -> list[Outcome]:
    """Try mutations, each in a copy of the code; the copies are used again."""
    with tempfile.TemporaryDirectory(prefix="servingrepo-mutations-") as name:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(workers):
            copies.put(_copy(Path(name) / str(number)))

        def one(choice: tuple[Site, ast.expr]) -> Outcome:
            copy = copies.get()
            try:
                outcome = _try(copy, *choice)
                noticed = outcome.noticed_by or f"NOTHING NOTICED IT\n{outcome.said}"
                print(f"{outcome.site}: {noticed}", file=sys.stderr, flush=True)
                return outcome
            finally:
                copies.put(copy)

        def unchanged(tests: tuple[str, ...]) -> str:
            copy = copies.get()
            try:
                done = run_tests(copy, tests)
            finally:
                copies.put(copy)
            said = f"these fail on the code as it is: {' '.join(tests)}\n{done.stdout[-2000:]}"
            return said if done.returncode else ""

        with ThreadPoolExecutor(workers) as pool:
            wanted = list({_tests_of(site) for site, _ in chosen})
            fail_anyway = dict(zip(wanted, pool.map(unchanged, wanted), strict=True))
            outcomes = list(pool.map(one, chosen))
        # A test that fails anyway notices nothing.
        return [
            Outcome(outcome.site, "", fail_anyway[tests]) if fail_anyway[tests] else outcome
            for outcome, tests in ((one, _tests_of(one.site)) for one in outcomes)
        ]


def _tests_of(site: Site) -> tuple[str, ...]:
    mutation = mutation_of(site)
    assert mutation is not None, site
    return mutation.tests


def _copy(target: Path) -> Path:
    for name in ("servingrepo", "tests"):
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, target / name)
    return target


def _try(copy: Path, site: Site, node: ast.expr) -> Outcome:
    mutation = mutation_of(site)
    assert mutation is not None, site
    path = copy / "servingrepo" / site.file
    source = path.read_text()
    path.write_text(mutated(source, node, mutation.replacement))
    try:
        done = run_tests(copy, mutation.tests)
    finally:
        path.write_text(source)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return Outcome(site, failed[1], "")
    timed_out = "Timeout" in done.stdout + done.stderr
    if timed_out:
        return Outcome(site, f"{mutation.tests[0]} (it never ended)", "")
    return Outcome(site, "", (done.stdout + done.stderr)[-2000:])


def run_tests(copy: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a few tests on a copy; its own modules come first."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly"),
            *("-p", "no:cacheprovider", "-m", "crash or not crash", *tests),
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "CI": "false"},
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> int:
    """Try them, say each on stderr, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only places that have this text in their name")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; tests send it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    found = sites()
    chosen = [(site, node) for site, node in found.items() if given.only in str(site)]
    missing = [str(site) for site, _ in chosen if mutation_of(site) is None]
    if missing:
        print("\n".join(["nobody says what must notice these:", *missing]), file=sys.stderr)
        return 1
    outcomes = try_all(chosen, workers=given.workers)
    survivors = [str(one.site) for one in outcomes if not one.noticed_by]
    result = {
        "lane": "mutations",
        "counts": {"removed": len(outcomes), "noticed": len(outcomes) - len(survivors)},
        "violations": len(survivors),
        "noticed_by": {str(one.site): one.noticed_by for one in outcomes},
        "found": [f"{one.site}: {one.said}" for one in outcomes if not one.noticed_by],
    }
    print(json.dumps(result, indent=1))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
