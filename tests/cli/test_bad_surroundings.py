"""No space, no permission, a lock, a port in use, servers that die or hang: a clear answer, nothing changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.repository.transaction import RESERVED_BYTES
from tests.cli.inside import refused
from tests.cli.processes import server_of, started, wait_until_gone
from tests.cli.trees import snapshot
from tests.support import Outcome, command, ending, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator

# space --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own: too small for space to be set aside."""
    with mounted(tmp_path / "disk", size="1m") as place:
        yield place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that has room for the space that servingrepo sets aside."""
    with mounted(tmp_path / "disk", size="80m") as place:
        yield place


@contextmanager
def mounted(place: Path, *, size: str) -> Iterator[Path]:
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def with_versions(place: Path, runs: Path) -> Path:
    repo, _ = servingrepo.init(place / "serving")
    for number in (1, 2):
        repo.promote(
            run_with(runs / f"r{number}", offset=float(number)), model="ranker", smoke=False
        )
    return repo.root


def test_a_version_that_does_not_fit_is_refused_before_it_is_copied(
    small_disk: Path, tmp_path: Path
) -> None:
    root = with_versions(small_disk, tmp_path)
    big = run_with(tmp_path / "big", offset=3.0, payload_bytes=8_000_000)
    before = snapshot(root, burnt="ranker")
    arguments = ["--root", str(root), "promote", str(big), "--model", "ranker", "--no-smoke"]
    refused(command(*arguments), 51, big, root / "models", "free some space")
    assert snapshot(root, burnt="ranker") == before
    refused(command(*arguments, "--dry-run"), 51, big)


def test_a_disk_that_fills_up_leaves_everything_as_it_was(
    small_disk: Path, tmp_path: Path, run: Path
) -> None:
    root = with_versions(small_disk, tmp_path)
    fill(small_disk)
    before = snapshot(root, burnt="ranker")
    done = command("--root", root, "promote", run, "--model", "ranker", "--no-smoke")
    refused(done, 51, root, "free some space")
    assert snapshot(root, burnt="ranker") == before
    for arguments in (["hold", "ranker"], ["rollback", "ranker"], ["mark-bad", "ranker@1"]):
        refused(command("--root", root, *arguments), 51, root)
    assert snapshot(root, burnt="ranker") == before
    assert command("--root", root, "list", "-q").out == "ranker\n"
    (small_disk / "filler").unlink()
    done = command("--root", root, "promote", run, "--model", "ranker", "--no-smoke")
    assert done.code == 0, done.err
    assert command("--root", root, "verify", "-q").out == "ok\n"


def test_a_full_disk_keeps_nobody_from_rolling_back(disk: Path, tmp_path: Path, run: Path) -> None:
    root = with_versions(disk, tmp_path)
    fill(disk)
    refused(
        command("--root", root, "promote", run, "--model", "ranker", "--no-smoke"), 51, root, "free"
    )
    done = command("--root", root, "rollback", "ranker", "-m", "full")
    assert done.code == 0, done.err
    assert done.out.startswith("ranker: 2 > 1\n")
    assert command("--root", root, "status", "-q").out == "ok\n"
    assert "rollback" in command("--root", root, "history").out
    assert "bad" in command("--root", root, "show", "ranker").out
    assert command("--root", root, "serve", "ranker@1").code == 0
    (disk / "filler").unlink()
    done = command("--root", root, "promote", run, "--model", "ranker", "--no-smoke")
    assert done.code == 0, done.err
    assert (root / ".servingrepo" / "spare").stat().st_size == RESERVED_BYTES


def test_a_full_disk_keeps_nobody_from_pruning_and_emptying_the_trash(
    disk: Path, tmp_path: Path, run: Path
) -> None:
    root = with_versions(disk, tmp_path)
    big = run_with(tmp_path / "big", offset=9.0, payload_bytes=8_000_000)
    promote = ["--root", str(root), "promote", "--model", "ranker", "--no-smoke"]
    for source in (big, tmp_path / "r1", run):
        assert command(*promote, "--serve", source).code == 0
    assert command("--root", root, "serve", "ranker@4").code == 0
    fill(disk)
    refused(command(*promote, run_with(tmp_path / "next", offset=11.0)), 51, root, "free")
    done = command("--root", root, "prune", "--keep-last", "1")
    assert done.code == 0, done.err
    assert "to the trash" in done.out
    assert "ranker@3" in done.out
    assert command("--root", root, "status", "-q").out == "ok\n"
    done = command("--root", root, "prune", "--empty-trash")
    assert done.code == 0, done.err
    assert "8." in done.out
    assert "MB freed" in done.out
    assert "empty-trash" in command("--root", root, "history").out
    done = command(*promote, tmp_path / "next")
    assert done.code == 0, done.err
    assert command("--root", root, "verify", "-q").out == "ok\n"


# permission ---------------------------------------------------------------------------------------

# The interpreter may lie where only root can read: everything is imported before the user changes.
AS_NOBODY = """
import json, os, sys
from tests.cli.inside import command
first, then = json.loads(sys.argv[1])
for arguments in first:
    done = command(*arguments)
    assert done.code == 0, done
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
done = [command(*arguments) for arguments in then]
print(json.dumps([[one.code, one.out, one.err] for one in done]))
"""


def as_nobody(folder: Path, *commands: list[str]) -> list[Outcome]:
    """Run commands as the user nobody."""
    warm, one, two = (folder / name for name in ("warm", "warm1", "warm2"))
    at = ["--root", str(warm)]
    promote = [*at, "promote", "--model", "m", "--no-smoke"]
    first = [
        [*at, "init"],
        [*promote, str(run_with(one, offset=1.0))],
        [*promote, str(run_with(two, offset=2.0))],
        *([*at, name] for name in ("verify", "status", "list")),
        [*at, "rollback", "m"],
    ]
    told = json.dumps([first, list(commands)])
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, told],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    for path in (warm, one, two):
        shutil.rmtree(path)
    assert done.returncode == 0, done.stderr
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def test_without_permission_to_write_the_repository_nothing_is_changed(
    open_folder: Path, run: Path
) -> None:
    root = with_versions(open_folder, open_folder)
    shutil.copytree(run, open_folder / "run")
    before = snapshot(root)
    writers = [
        ["promote", str(open_folder / "run"), "--model", "ranker", "--no-smoke"],
        ["rollback", "ranker"],
    ]
    readers = [
        *([name] for name in ("list", "status", "verify")),
        ["rollback", "ranker", "--dry-run"],
    ]
    commands = [["--root", str(root), *one] for one in (*writers, *readers)]
    done = as_nobody(open_folder, *commands)
    for one in done[: len(writers)]:
        refused(one, 52, root, os.strerror(errno.EACCES), "uid 65534")
    assert [one.code for one in done[len(writers) :]] == [0] * len(readers), done
    assert snapshot(root) == before


def test_without_permission_to_read_the_run_the_file_is_named(open_folder: Path) -> None:
    root = with_versions(open_folder, open_folder)
    for path in (root, *root.rglob("*")):
        os.chown(path, 65534, 65534)
    closed: list[tuple[Path, Path]] = []
    for name in (
        *("saved_model/assets/words.txt", "saved_model/assets", "saved_model/variables", "."),
        "saved_model/variables/variables.index",
    ):
        run = run_with(
            open_folder / f"run{len(closed)}",
            offset=5.0,
            assets={"words.txt": b"a\n"},
            variables=True,
        )
        closed.append((run, run / name))
        (run / name).chmod(0)
    before = snapshot(root, burnt="ranker")
    commands = [
        ["--root", str(root), "promote", str(run), "--model", "ranker", "--no-smoke"]
        for run, _ in closed
    ]
    for (_, path), done in zip(closed, as_nobody(open_folder, *commands), strict=True):
        refused(done, 52, path)
    assert snapshot(root, burnt="ranker") == before


def test_a_scan_names_what_it_may_not_read_beside_the_export(open_folder: Path) -> None:
    run = run_with(open_folder / "run", offset=5.0)
    (run / "logs").mkdir(mode=0)
    (done,) = as_nobody(open_folder, ["scan", str(run)])
    assert done.code == 0, done.err
    assert "also there    logs: a directory that cannot be read" in done.out


def test_a_repository_cannot_be_made_where_the_user_may_not_write(open_folder: Path) -> None:
    (done,) = as_nobody(open_folder, ["--root", str(open_folder / "new"), "init"])
    refused(done, 52, open_folder, "uid 65534")
    assert not (open_folder / "new").exists()


# the lock -----------------------------------------------------------------------------------------


def test_a_locked_repository_says_by_whom_and_readers_do_not_wait(
    root: Path, run: Path, tmp_path: Path
) -> None:
    promote = ["--root", str(root), "promote", str(run), "--model", "ranker", "--no-smoke"]
    holder = started(*promote, failpoint="c1.before-rename", folder=tmp_path)
    try:
        before = snapshot(root)
        start = time.monotonic()
        done = command("--root", root, "rollback", "ranker", "--lock-wait", "0.3")
        waited = time.monotonic() - start
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        refused(
            done,
            40,
            root,
            f"{user.stdout.strip()}@{socket.gethostname()}",
            f"pid {holder.pid}",
            f"--root {root}",
            "waited 0.3 s",
            "--lock-wait",
        )
        assert 0.3 <= waited < 5
        error = command(*promote, "--lock-wait", "0", "--json").json["error"]
        assert (error["slug"], error["retryable"]) == ("locked", True)
        for arguments in (["list"], ["show", "ranker"], ["status"], ["history"]):
            assert command("--root", root, *arguments, "--lock-wait", "0").code == 0
        assert snapshot(root) == before
    finally:
        holder.kill()
        holder.communicate()
    assert command("--root", root, "rollback", "ranker", "--lock-wait", "0").code == 0


# servers ------------------------------------------------------------------------------------------


@pytest.mark.tf
def test_run_server_on_a_port_in_use_says_so(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(
            "run-server", f"--port={port}", f"--model_config_file={root / 'models/models.config'}"
        )
    assert done.code != 0
    assert f"127.0.0.1:{port}" in done.out + done.err
    assert "already in use" in done.out + done.err


@contextmanager
def loading(root: Path, run: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a promotion and wait for its server's process; nothing of it is left afterwards."""
    arguments = ["promote", str(run), "--model", "ranker", "--engine", "embedded", *more]
    promoting = subprocess.Popen(
        [sys.executable, "-m", "servingrepo", "--root", str(root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ending(promoting) as process:
        server = server_of(process)
        yield process, server
        wait_until_gone(server)


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    return Outcome(process.returncode, out, err)


@pytest.mark.tf
def test_a_server_that_is_killed_while_loading_is_reported_with_the_signal(
    root: Path, run: Path
) -> None:
    before = snapshot(root, burnt="ranker")
    with loading(root, run) as (process, server):
        os.kill(server, signal.SIGKILL)
        refused(ended(process), 62, "ranker@3", "SIGKILL", "memory")
    assert snapshot(root, burnt="ranker") == before


@pytest.mark.tf
def test_a_server_that_hangs_while_loading_ends_with_the_timeout(root: Path, run: Path) -> None:
    before = snapshot(root, burnt="ranker")
    with loading(root, run, "--timeout", "1") as (process, server):
        os.kill(server, signal.SIGSTOP)
        refused(ended(process), 63, "ranker@3", "1 s", "--timeout")
    assert snapshot(root, burnt="ranker") == before


@pytest.mark.tf
def test_a_timeout_that_no_server_can_keep_is_refused(root: Path, run: Path) -> None:
    before = snapshot(root, burnt="ranker")
    how = ("--engine", "embedded", "--timeout", "0.2")
    done = command("--root", root, "promote", run, "--model", "ranker", *how)
    refused(done, 63, "ranker@3", "--timeout")
    assert snapshot(root, burnt="ranker") == before


def test_endpoints_that_do_not_answer_change_nothing(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = snapshot(root)
        for port in (closed, silent.getsockname()[1]):
            at = ["--endpoint", f"127.0.0.1:{port}", "--wait", "1"]
            for arguments in (["rollback", "ranker"], ["serve", "ranker@1"], ["reload"]):
                done = command("--root", root, *arguments, *at, timeout=40)
                refused(done, 65, f"127.0.0.1:{port}")
        assert snapshot(root) == before


@pytest.mark.parametrize(
    "endpoint", ["", "localhost", "localhost:", "localhost:x", ":8500", "h:99999"]
)
def test_an_endpoint_that_is_none_is_a_usage_error(endpoint: str, root: Path) -> None:
    before = snapshot(root)
    for arguments in (["rollback", "ranker"], ["status"], ["reload"]):
        done = command("--root", root, *arguments, f"--endpoint={endpoint}")
        refused(done, 2, "HOST:PORT")
    assert snapshot(root) == before
