from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import StaleRun
from servingrepo.testing.exports import write_export
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path

EXPORTED = 1_700_000_000


def run_of(folder: Path, **written: int) -> Path:
    """A run whose SavedModel was written at EXPORTED, and files so many seconds later; `__` is `/`."""
    export = write_export(folder / "saved_model", variables=True)
    for path in (export / "saved_model.pb", *export.rglob("variables*")):
        os.utime(path, (EXPORTED + 900 if "variables" in path.name else EXPORTED,) * 2)
    for name, seconds in written.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace(
            "_index", ".index"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (EXPORTED + seconds,) * 2)
    return folder


def doubts(run: Path) -> list[str]:
    found: list[str] = command("scan", run, "--json").json["result"]["doubts"]
    return found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            {"checkpoints__ckpt-5_index": 3600},
            "the checkpoint checkpoints/ckpt-5.index was written",
        ),
        ({"best.keras": 3600}, "the checkpoint best.keras"),
        ({"config_json": 3600}, "the configuration config.json was written"),
        ({"checkpoints__ckpt-5_index": 30, "config_json": -3600, "notes": 9999}, None),
    ],
)
def test_what_was_written_after_the_savedmodel_is_noticed(
    tmp_path: Path, written: dict[str, int], said: str | None
) -> None:
    found = doubts(run_of(tmp_path / "run", **written))
    assert len(found) == (said is not None)
    if said is not None:
        assert found[0].startswith(said)


def test_a_second_savedmodel_is_noticed_unless_one_was_chosen(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    write_export(run / "old/exports/saved_model", offset=9)
    assert doubts(run)[0].startswith("there is another SavedModel, old/exports/saved_model")
    done = command("scan", run, "--saved-model", "saved_model", "--json")
    assert done.json["result"]["doubts"] == []


def test_the_earlier_exports_of_an_estimator_are_no_doubt(tmp_path: Path) -> None:
    for number in (1646034756, 1646034790):
        write_export(tmp_path / f"run/export/latest/{number}", offset=number % 7)
    assert doubts(tmp_path / "run") == []


def test_two_runs_in_one_folder_are_noticed(produced: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    (run / "logs").symlink_to(produced / "mixed")
    assert doubts(run) == []  # links out of the run are not followed
    (run / "logs").unlink()
    (run / "logs").mkdir()
    for path in (produced / "mixed").iterdir():
        (run / "logs" / path.name).write_bytes(path.read_bytes())
    (found,) = doubts(run)
    assert "two runs write into one folder" in found


def test_promote_notes_staleness_and_refuses_it_if_strict(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    run = run_of(tmp_path / "run", config_json=3600)
    with pytest.raises(StaleRun, match="the configuration"):
        repo.promote(run, model="m", smoke=False, strict=True)
    assert repo.models() == ()
    done = repo.promote(run, model="m", smoke=False)
    assert done.doubts == repo.show_version("m").doubts
    assert len(done.doubts) == 1
    assert "note          the configuration" in command("--root", repo.root, "show", "m@1").out
