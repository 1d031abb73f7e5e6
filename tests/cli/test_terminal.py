"""Whatever names, messages and files hold, what a person reads carries no control characters to the terminal."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import servingrepo
from servingrepo.errors import ServingRepoError, UsageError
from servingrepo.storage.lock import hold_lock, this_process
from servingrepo.testing.exports import Served, write_export
from servingrepo.testing.fake_server import FakeServing, serve_fake
from tests.crash.forking import Forking
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202eb\rc"
"""Clears the screen, names the window, C1's colour, turns the direction of writing, overwrites the line."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where everything that has a name or a message has that one."""
    folder = tmp_path_factory.mktemp("terminal")
    repo = new_repository(folder / "repo")
    for number in (1, 2):
        run = folder / f"{EVIL}{number}"
        write_export(
            run / "saved_model",
            slope=float(number),
            signatures=[Served(), Served(key=EVIL)],
            assets={EVIL: b"a\n"},
        )
        repo.promote(run, model="m", smoke=False, message=EVIL)
    repo.hold("m", message=EVIL)
    repo.mark_bad("m@1", message=EVIL)
    (repo.value.layout.version("m", 2) / EVIL).write_text("extra")
    (
        repo.value.layout.model("m") / "\t9\n"
    ).mkdir()  # TensorFlow Serving trims it: an unmanaged version 9
    intent = repo.value.layout.intent(EVIL)
    intent.write_text("{")
    return folder


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    with Forking(tmp_path / "output") as process:
        yield process


def raw_controls(text: str) -> set[str]:
    """Return what would act on a terminal, or make text read otherwise than it is."""
    return {
        ascii(one)
        for one in text
        if one not in "\n\t" and unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    }


CALLS: list[tuple[str, ...]] = [
    ("list",),
    ("show", "m"),
    ("show", "m@2"),
    ("history",),
    ("history", "-q"),
    ("status",),
    ("verify",),
    ("scan", "{run}"),
    ("scan", "{root}"),
    ("promote", "{run}", "--model", "m", "--no-smoke"),
    ("promote", "{run}x", "--model", "m"),
    ("promote", "{run}", "--model", "new", "--dry-run"),
    ("promote", "{run}", "--model", EVIL),
    ("serve", "m@1"),
    ("serve", f"m@{EVIL}"),
    ("serve", f"m@label:{EVIL}"),
    ("rollback", "m", "--dry-run"),
    ("rollback", "m", "--to", EVIL),
    ("mark-bad", "m@1", "-m", EVIL, "--dry-run"),
    ("hold", "m", "-m", EVIL, "--dry-run"),
    ("reload", "--endpoint", EVIL),
    ("config", "check", "{run}"),
    (EVIL,),
    ("list", f"--{EVIL}"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: ascii(" ".join(call))[:40])
def test_no_command_prints_control_characters(
    call: tuple[str, ...], folder: Path, forking: Forking
) -> None:
    places = {"run": str(folder / f"{EVIL}1"), "root": str(folder)}
    arguments = [one.format(**places) for one in call]
    code, said = forking.run("--root", str(folder / "repo"), *arguments)
    assert said
    assert code != 1, said
    assert raw_controls(said) == set()


@pytest.mark.parametrize(
    "call",
    [("show",), ("show", "-q"), ("check",), ("write",), ("write", "--take-edit", "--dry-run")],
)
def test_a_config_with_control_characters_is_shown_without_them(
    call: tuple[str, ...], tmp_path: Path, forking: Forking
) -> None:
    repo = new_repository(tmp_path / "repo")
    config = repo.value.layout.config
    config.write_text(config.read_text() + f"# {EVIL}\n", newline="")
    _, said = forking.run("--root", str(repo.root), "config", *call)
    assert said
    assert raw_controls(said) == set()


def test_the_name_in_a_lock_is_shown_without_control_characters(
    tmp_path: Path, forking: Forking
) -> None:
    repo = new_repository(tmp_path / "repo")
    owner = msgspec.structs.replace(this_process(EVIL), since=EVIL)
    with hold_lock(repo.value.layout.lock, owner, wait=1, what="it"):
        code, said = forking.run("--root", str(repo.root), "recover", "--lock-wait", "0")
    assert code == 40
    assert "x1b" in said
    assert raw_controls(said) == set()


def test_what_a_server_says_is_shown_without_control_characters(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    for number in (6, 7):
        write_export(tmp_path / f"{number}" / "saved_model", slope=float(number))
        repo.promote(tmp_path / f"{number}", model="m", version=number, smoke=False)
    fake = FakeServing({})
    fake.states = [("END", 3, EVIL)]
    with serve_fake(fake) as client:
        done = command("--root", repo.root, "status", "--endpoint", str(client.endpoint))
    assert "x1b" in done.err, done
    assert raw_controls(done.err + done.out) == set()


# texts that no file can hold ------------------------------------------------------------------------

TEXTS: dict[str, Callable[[OpenRepository, str], Any]] = {
    "run": lambda repo, text: repo.promote(text, model="m"),
    "saved_model": lambda repo, text: repo.promote(repo.root, model="m", saved_model=text),
    "model": lambda repo, text: repo.promote(repo.root, model=text),
    "promote message": lambda repo, text: repo.promote(repo.root, model="m", message=text),
    "endpoint": lambda repo, text: repo.reload(endpoints=[f"{text}:1"]),
    "case file": lambda repo, text: repo.smoke("m", cases=[text]),
    "verify path": lambda repo, text: repo.verify(f"./{text}"),
    "smoke path": lambda repo, text: repo.smoke(f"./{text}"),
    "scan": lambda repo, text: repo.scan(text),
    "serve": lambda repo, text: repo.serve(f"m@{text}"),
    "serve message": lambda repo, text: repo.serve("m", message=text),
    "unserve message": lambda repo, text: repo.unserve("m", message=text),
    "rollback message": lambda repo, text: repo.rollback("m", message=text),
    "rollback to": lambda repo, text: repo.rollback("m", to=text),
    "hold": lambda repo, text: repo.hold("m", message=text),
    "release": lambda repo, text: repo.release_hold("m", message=text),
    "mark": lambda repo, text: repo.mark_bad("m@1", message=text),
    "clear": lambda repo, text: repo.mark_bad("m@1", clear=True, message=text),
    "history": lambda repo, text: repo.history(text),
    "status": lambda repo, text: repo.status(text),
    "open": lambda _, text: servingrepo.open(text),
    "init": lambda _, text: servingrepo.init(text),
    "server root": lambda repo, text: servingrepo.init(repo.root, server_root=f"/{text}"),
}
NOT_TEXTS = {"model", "serve", "rollback to", "history", "status"}
"""What has a grammar of its own, so that its own error is clearer."""


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
@pytest.mark.parametrize("name", TEXTS)
def test_text_that_no_file_can_hold_is_refused_before_anything_is_done(
    name: str, text: str, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "repo")
    write_export(tmp_path / "run" / "saved_model")
    repo.promote(tmp_path / "run", model="m", smoke=False)
    before = repo.value.layout.history.read_bytes()
    with pytest.raises(ServingRepoError if name in NOT_TEXTS else UsageError) as caught:
        TEXTS[name](repo, text)
    assert caught.value.exit_code in {2, 11, 13}
    assert caught.value.hint
    assert repo.value.layout.history.read_bytes() == before
