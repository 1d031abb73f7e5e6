"""Repositories that are none, are damaged or of tomorrow, and configs edited by hand: named and left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.inside import command, refused
from tests.cli.trees import snapshot
from tests.support import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def promote(root: Path, run: Path) -> Outcome:
    return command("--root", root, "promote", run, "--model=ranker", "--no-smoke")


def test_a_root_that_is_no_repository_is_refused(tmp_path: Path, run: Path) -> None:
    for folder in (tmp_path / "empty", tmp_path / "gone"):
        if folder.name == "empty":
            folder.mkdir()
        before = snapshot(tmp_path)
        for arguments in (["list"], ["rollback", "ranker"], ["recover"], ["verify"]):
            refused(command("--root", folder, *arguments), 30, folder, "init")
        refused(promote(folder, run), 30, folder, "init")
        assert snapshot(tmp_path) == before


def newer_marker(root: Path) -> Path:
    path = root / ".servingrepo" / "format.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 3'))
    return path


def newer_state(root: Path) -> Path:
    path = root / ".servingrepo" / "models" / "ranker.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    return path


def newer_record(root: Path) -> Path:
    path = root / ".servingrepo" / "models" / "ranker" / "1.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2', 1))
    return path


def newer_history(root: Path) -> Path:
    path = root / ".servingrepo" / "history.jsonl"
    path.write_text(path.read_text().replace('"schema":1', '"schema":2'))
    return path


def newer_intent(root: Path) -> Path:
    path = root / ".servingrepo" / "journal" / "20990101T000000Z-00000000.json"
    path.write_text('{"schema": 2, "txid": "20990101T000000Z-00000000"}')
    return path


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (newer_marker, ["list"]),
        (newer_marker, ["promote", "{run}", "--model", "ranker", "--no-smoke"]),
        (newer_marker, ["rollback", "ranker"]),
        (newer_marker, ["init"]),
        (newer_state, ["list"]),
        (newer_state, ["promote", "{run}", "--model", "ranker", "--no-smoke"]),
        (newer_state, ["rollback", "ranker"]),
        (newer_record, ["show", "ranker@1"]),
        (newer_record, ["show", "ranker"]),
        (newer_record, ["verify", "ranker@1"]),
        (newer_record, ["rollback", "ranker"]),
        (newer_history, ["history"]),
        (newer_history, ["rollback", "ranker"]),
        (newer_intent, ["promote", "{run}", "--model", "ranker", "--no-smoke"]),
        (newer_intent, ["recover"]),
    ],
)
def test_what_a_newer_servingrepo_wrote_is_left_alone(
    make: Callable[[Path], Path], arguments: list[str], root: Path, run: Path
) -> None:
    path = make(root)
    before = snapshot(root)
    done = command("--root", root, *(one.format(run=run) for one in arguments))
    refused(done, 31, path, "newer")
    assert snapshot(root) == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": "x"}'])
@pytest.mark.parametrize("name", ["format.json", "models/ranker.json", "models/ranker/2.json"])
def test_a_record_that_cannot_be_read_is_named_and_left_alone(
    name: str, text: bytes, root: Path
) -> None:
    path = root / ".servingrepo" / name
    path.write_bytes(text)
    before = snapshot(root)
    refused(command("--root", root, "show", "ranker"), 39, path, "backup")
    refused(command("--root", root, "serve", "ranker@2"), 39, path)
    assert snapshot(root) == before


# models.config edited by hand -----------------------------------------------------------------------

NONSENSE = {
    "garbage": b"this is no config {{{",
    "binary": b"\xff\xfe\0",
    "empty": b"",
    "unknown field": b"model_config_list { config { nam: 'ranker' } }",
}


@pytest.mark.parametrize("text", list(NONSENSE.values()), ids=list(NONSENSE))
def test_config_edited_into_nonsense_is_named_and_left_alone(
    text: bytes, root: Path, run: Path
) -> None:
    config = root / "models" / "models.config"
    good = config.read_bytes()
    config.write_bytes(text)
    before = snapshot(root)
    for arguments in (
        ["serve", "ranker@1"],
        ["rollback", "ranker"],
        ["unserve", "ranker"],
        ["promote", run, "--model", "ranker", "--no-smoke"],
    ):
        refused(command("--root", root, *arguments), 36, config, "config write --discard-edit")
    for arguments in (["config", "check"], ["config", "write"]):
        refused(command("--root", root, *arguments), 36, config)
    for arguments in (["list"], ["status"], ["show", "ranker"]):
        done = command("--root", root, *arguments)
        assert "ranker" in done.out, "what is on disk is shown all the same"
        refused(Outcome(done.code, "", done.err), 36, config, "is not known", "--discard-edit")
        shown = command("--root", root, *arguments, "--json").json
        assert (shown["ok"], shown["error"]["slug"]) == (False, "config-invalid")
        assert "ranker" in str(shown["error"]["details"])
    assert "?" in command("--root", root, "list").out
    assert "unknown" in command("--root", root, "status").out
    assert command("--root", root, "show", "ranker@1", "-q").out == "1\n"
    assert command("--root", root, "verify", "-q").out == "ok\n"
    assert command("--root", root, "config", "show").code == 0
    assert snapshot(root) == before
    done = command("--root", root, "config", "write", "--discard-edit")
    assert done.code == 0
    assert config.read_bytes() == good
    backups = list((root / ".servingrepo").glob("*.backup"))
    assert [one.read_bytes() for one in backups] == [text]
    assert command("--root", root, "config", "check", "-q").out == "ok\n"


def test_config_edited_into_something_that_servers_take_is_shown_as_a_diff_and_left_alone(
    root: Path, run: Path
) -> None:
    config = root / "models" / "models.config"
    edited = config.read_bytes().replace(b"versions: 2", b"versions: 1")
    config.write_bytes(edited)
    before = snapshot(root)
    for arguments in (
        ["serve", "ranker@1"],
        ["rollback", "ranker"],
        ["promote", run, "--model", "ranker", "--no-smoke"],
        ["config", "write"],
        ["config", "check"],
    ):
        done = command("--root", root, *arguments)
        refused(done, 37, config, "edited by hand", "-        versions: 2", "+        versions: 1")
        assert "--take-edit" in done.err
        assert "--discard-edit" in done.err
    assert snapshot(root) == before
    assert command("--root", root, "config", "write", "--take-edit").code == 0
    assert command("--root", root, "show", "ranker@served", "-q").out == "1\n"
    assert command("--root", root, "serve", "ranker@2", "-q").out == "2\n"


def test_config_check_names_model_and_field_of_every_mistake_at_once(
    root: Path, tmp_path: Path
) -> None:
    config = tmp_path / "some.config"
    config.write_text(
        "model_config_list {\n"
        " config { name: 'a' base_path: 'relative' model_platform: 'tensorflow' }\n"
        " config { name: 'b' base_path: '/models/b' model_platform: 'torch' }\n"
        " config { name: 'b' base_path: '/models/c' }\n"
        "}\n"
    )
    done = command("config", "check", config)
    refused(done, 36, config, "model a: base_path", "model b: model_platform", "config check again")
    assert done.err.count("error: model ") >= 4


def test_config_that_was_removed_is_not_silently_made_again(root: Path, run: Path) -> None:
    config = root / "models" / "models.config"
    good = config.read_bytes()
    config.unlink()
    before = snapshot(root)
    for arguments in (["serve", "ranker@1"], ["rollback", "ranker"], ["config", "write"]):
        refused(command("--root", root, *arguments), 37, config, "removed")
    refused(promote(root, run), 37, config, "removed")
    assert snapshot(root) == before
    assert command("--root", root, "config", "write", "--discard-edit").code == 0
    assert config.read_bytes() == good
