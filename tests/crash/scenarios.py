"""Every writing command: what it starts from, how it is called, and what calling it again may say."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import servingrepo
from servingrepo.repository.config_write import rewrite
from servingrepo.repository.layout import STAGING_NAME
from servingrepo.repository.repository import save_paths, with_paths
from servingrepo.repository.retention import Keep
from servingrepo.testing.exports import write_export
from tests.crash.fake_smoke_server import ENDPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.crash.forking import Forking

AT_PATH = "path"
"""Starts with this before them have the model m at the path push/m."""

ALREADY = 38
NOTHING_TO_UNDO = 38
NOT_MARKED = 32


@dataclass(frozen=True)
class Scenario:
    """One command on one kind of repository.

    `again` are the exit codes of the same command called once more when its change has happened; empty where
    calling it again means something else, as for a second rollback. A promotion that died between the two
    commit points is published but `unserved` when it is repeated: the same content is not served unasked.
    What follows a promotion is `best_effort`: if it fails, the exit code is still 0 and a warning says so.
    """

    name: str
    start: str
    arguments: tuple[str, ...]
    again: frozenset[int] = frozenset({0})
    unserved: bool = False
    best_effort: bool = False


def _promote(name: str, start: str, *options: str, unserved: bool = False) -> Scenario:
    arguments = ("promote", "{runs}/new", "--model", "m", "--no-smoke", *options)
    return Scenario(name, start, arguments, unserved=unserved)


SCENARIOS = (
    Scenario("init", "nothing", ("init",)),
    _promote("promote, new model", "empty", unserved=True),
    _promote("promote, second version", "one", unserved=True),
    _promote("promote --serve", "two", "--serve"),
    _promote("promote --no-serve", "one", "--no-serve"),
    _promote("promote, held", "held"),
    Scenario(
        "promote --smoke, published unproven",
        "two",
        ("promote", "{runs}/first", "--model", "m", "--engine", "remote:{server}"),
    ),
    Scenario("serve", "two", ("serve", "m@1")),
    Scenario("serve, first", "unserved", ("serve", "m")),
    Scenario("unserve", "two", ("unserve", "m")),
    Scenario("rollback", "two", ("rollback", "m", "-m", "worse"), again=frozenset()),
    Scenario("rollback --to", "three", ("rollback", "m", "--to", "1"), again=frozenset({ALREADY})),
    Scenario(
        "rollback --no-mark-bad", "two", ("rollback", "m", "--no-mark-bad"), again=frozenset()
    ),
    Scenario("label set", "two", ("label", "set", "m@1", "stable")),
    Scenario("label set, moved", "labelled", ("label", "set", "m@2", "stable")),
    Scenario("label set --serve", "unserved", ("label", "set", "m@2", "canary", "--serve")),
    Scenario(
        "label remove",
        "labelled",
        ("label", "remove", "m", "stable"),
        again=frozenset({NOT_MARKED}),
    ),
    Scenario("rollback, labelled", "labelled", ("rollback", "m"), again=frozenset()),
    Scenario("hold", "two", ("hold", "m", "-m", "freeze")),
    Scenario("release-hold", "held", ("release-hold", "m")),
    Scenario("mark-bad", "two", ("mark-bad", "m@1")),
    Scenario(
        "mark-bad --clear", "bad", ("mark-bad", "m@1", "--clear"), again=frozenset({NOT_MARKED})
    ),
    Scenario("contract --write", "two", ("contract", "m", "--write")),
    Scenario("config write --take-edit", "edited", ("config", "write", "--take-edit")),
    Scenario("config write --take-edit, pins", "re-pinned", ("config", "write", "--take-edit")),
    Scenario("config write --discard-edit", "edited", ("config", "write", "--discard-edit")),
    Scenario("config write --server-root", "two", ("config", "write", "--server-root", "/srv/m")),
    Scenario("verify --max-seconds", "two", ("verify", "--max-seconds", "0")),
    Scenario("prune", "four", ("prune", "m", "--keep-last", "1")),
    Scenario(
        "prune --empty-trash", "four", ("prune", "--keep-last", "1", "--empty-trash", "-m", "full")
    ),
    Scenario("restore", "pruned", ("restore", "m@1"), again=frozenset({NOT_MARKED})),
    Scenario("empty the trash", "pruned", ("prune", "--empty-trash")),
    Scenario(
        "promote --prune",
        "policy",
        ("promote", "{runs}/new", "--model", "m", "--no-smoke", "--prune"),
        unserved=True,
        best_effort=True,
    ),
    Scenario("adopt", "unmanaged", ("adopt", "--all")),
    Scenario("adopt, config kept", "pinned by hand", ("adopt", "--all")),
    Scenario("adopt, no config", "no config", ("adopt", "--all", "-m", "day one")),
    Scenario("adopt --undo", "adopted", ("adopt", "--undo"), again=frozenset({NOTHING_TO_UNDO})),
    Scenario(
        "adopt --undo, config kept",
        "adopted as pinned",
        ("adopt", "--undo"),
        again=frozenset({NOTHING_TO_UNDO}),
    ),
    Scenario("reload --reload poll", "adopted", ("reload", "--reload", "poll")),
    Scenario("rollback, by number", "adopted", ("rollback", "m"), again=frozenset()),
    Scenario("hold beside an unreadable intent", "unreadable", ("hold", "m", "-m", "freeze")),
    Scenario("hold, empty folders lost", "thinned", ("hold", "m", "-m", "freeze")),
    Scenario("recover, died at trash", "died at trash", ("recover",)),
    Scenario("recover, died at restore", "died at restore", ("recover",)),
    Scenario("recover, died at condemning", "died at condemning", ("recover",)),
    Scenario("recover, died at deleting", "died at deleting", ("recover",)),
    Scenario("recover, died at staging", "died at staging", ("recover",)),
    Scenario("recover, died at C1", "died at C1", ("recover",)),
    Scenario("recover, died at C2", "died at C2", ("recover",)),
    Scenario("recover, died at adopting", "died at adopting", ("recover",)),
    Scenario("recover, died at undoing", "died at undoing", ("recover",)),
    Scenario("recover, died at server root", "died at server root", ("recover",)),
    Scenario("recover, died at a directory", "died at a directory", ("recover",)),
    # The folder of the model m is push/m.
    _promote("promote, path, new model", "path", unserved=True),
    Scenario("rollback, path", "path, two", ("rollback", "m"), again=frozenset()),
    Scenario(
        "prune --empty-trash, path",
        "path, four",
        ("prune", "--keep-last", "1", "--empty-trash", "-m", "full"),
    ),
    Scenario("recover, path, died at a directory", "path, died at a directory", ("recover",)),
    Scenario("recover, path, died at staging", "path, died at staging", ("recover",)),
    Scenario("recover, path, died at C1", "path, died at C1", ("recover",)),
    Scenario("recover, path, died at trash", "path, died at trash", ("recover",)),
    Scenario("adopt, path", "path, unmanaged", ("adopt", "--all")),
    Scenario("adopt, path, config kept", "path, pinned by hand", ("adopt", "--all")),
    Scenario(
        *("adopt --undo, path", "path, adopted", ("adopt", "--undo")),
        again=frozenset({NOTHING_TO_UNDO}),
    ),
    Scenario(
        *("adopt --undo, path, config kept", "path, adopted as pinned", ("adopt", "--undo")),
        again=frozenset({NOTHING_TO_UNDO}),
    ),
    Scenario("recover, path, died at adopting", "path, died at adopting", ("recover",)),
    Scenario("recover, path, died at undoing", "path, died at undoing", ("recover",)),
)

_DEATHS = {
    "died at a directory": (
        "make-directory.before-rename",
        ("promote", "{runs}/new", "--model", "n", "--no-smoke"),
    ),
    "died at staging": ("record.done", ("promote", "{runs}/new", "--model", "m", "--no-smoke")),
    "died at C1": ("c1.done", ("promote", "{runs}/new", "--model", "m", "--no-smoke")),
    "died at C2": ("c2.after-rename", ("rollback", "m")),
    "died at trash": ("trash.after-rename", ("prune", "m", "--keep-last", "1")),
    "died at restore": ("restore.after-rename", ("restore", "m@1")),
    "died at condemning": ("condemn.after-rename", ("prune", "--empty-trash")),
    "died at deleting": ("remove-tree.before", ("prune", "--empty-trash")),
    "died at adopting": ("c2.before-rename", ("adopt", "--all")),
    "died at undoing": ("c2.after-rename", ("adopt", "--undo")),
    "died at server root": ("format.done", ("config", "write", "--server-root", "/srv/m")),
}


_UNMANAGED = ("unmanaged", "pinned by hand", "no config", "died at adopting")
"""Starts with versions that are not ours."""

_ADOPTED = ("adopted", "adopted as pinned", "died at undoing")
"""Starts with versions that were adopted."""

_WITH_TRASH = ("pruned", "died at restore", "died at condemning", "died at deleting")
"""Starts that have versions in the trash."""


def write_runs(runs: Path) -> Path:
    """Write the run directories that commands promote."""
    for number, name in enumerate(("first", "second", "third", "new", "fourth"), start=1):
        write_export(
            runs / name / "saved_model",
            slope=float(number),
            variables=True,
            assets={"words": b"a\nb\n"},
        )
    return runs


def _begun(root: Path, start: str, runs: Path, *, path: str) -> OpenRepository:
    """Make the repository with its versions: unmanaged, adopted or promoted; those of the model m lie at a path."""
    if start in {*_UNMANAGED, *_ADOPTED}:
        repo = _unmanaged(root, start, runs, path=path)
        if start in _ADOPTED:
            repo.adopt((), all=True)
        return repo
    repo, _ = servingrepo.init(root)
    if path != "m":
        save_paths(with_paths(repo.value, {"m": path}))
    return _promoted(repo, start, runs)


def prepare(root: Path, start: str, *, runs: Path, forking: Forking) -> Path:
    """Make the repository that a scenario starts from."""
    root.mkdir()
    if start == "nothing":
        return root
    path = "push/m" if start.startswith(AT_PATH) else "m"
    start = start.removeprefix(AT_PATH).removeprefix(", ") or "empty"
    repo = _begun(root, start, runs, path=path)
    match start:
        case "policy":
            (root / "servingrepo.toml").write_text("[prune]\nkeep_last = 1\n")
        case "held":
            repo.hold("m")
        case "unserved":
            repo.unserve("m")
        case "labelled":
            repo.label_set("m@1", "stable")
            repo.label_set("m@2", "canary")
        case "bad":
            repo.mark_bad("m@1")
        case "unreadable" | "thinned" | "edited" | "re-pinned":
            _spoil(repo, start)
        case _ if start in _DEATHS:
            step, arguments = _DEATHS[start]
            plan = {"SERVINGREPO_FAILPOINTS": f"{step}@1=kill"}
            code, said = forking.run("--root", str(root), *filled(arguments, runs), env=plan)
            assert code < 0, said
    return root


def _unmanaged(root: Path, start: str, runs: Path, *, path: str) -> OpenRepository:
    """Make a repository of a tree that others made: two versions of m, which a policy serves, and one of n."""
    models = root / "models"
    for place, name in ((f"{path}/1", "first"), (f"{path}/20240501", "second"), ("n/3", "third")):
        shutil.copytree(runs / name / "saved_model", models / place)
    if start == "no config":
        return servingrepo.init(root)[0]
    by_hand = start in {"pinned by hand", "adopted as pinned"}
    policy = "model_version_policy { specific { versions: 20240501 } }" if by_hand else ""
    entries = "".join(
        f'config {{ name: "{name}" base_path: "/models/{at}" model_platform: "tensorflow" {rest} }}\n'
        for name, at, rest in (("m", path, policy), ("n", "n", policy.replace("20240501", "3")))
    )
    (models / "models.config").write_text(f"# by hand\nmodel_config_list {{\n{entries}}}\n")
    repo, _ = servingrepo.init(root)
    if by_hand:
        rewrite(repo.value, edit="take")
    return repo


def _spoil(repo: OpenRepository, start: str) -> None:
    """Do to a repository what others do: a tool, a backup, a person with an editor."""
    layout = repo.value.layout
    if start == "unreadable":
        (layout.journal / "20260510T120000Z-0badc0de.json").write_text("{")
    elif start == "thinned":  # a backup that leaves empty folders out
        layout.journal.rmdir()
        (layout.model("m") / STAGING_NAME).rmdir()
    else:
        pinned = "versions: 1" if start == "re-pinned" else "versions: 2"
        text = layout.config.read_text().replace("versions: 2", pinned)
        layout.config.write_text(f"{text}# by hand\n")


def _promoted(repo: OpenRepository, start: str, runs: Path) -> OpenRepository:
    """Promote the versions, in place or in the trash, that a start has."""
    four = ("first", "second", "third", "fourth")
    names = {"empty": (), "one": ("first",), "three": four[:3], "died at trash": four}
    names |= dict.fromkeys(("four", "policy", *_WITH_TRASH), four)
    for name in names.get(start, ("first", "second")):
        repo.promote(runs / name, model="m", smoke=False)
    if start in _WITH_TRASH:
        repo.prune("m", keep=Keep(last=1))
    return repo


def filled(arguments: tuple[str, ...], runs: Path) -> list[str]:
    """Return the arguments with the place of the run directories, and of the fake server, filled in."""
    server = runs / ENDPOINT
    places = {"runs": runs, "server": server.read_text() if server.exists() else ""}
    return [one.format(**places) for one in arguments]
