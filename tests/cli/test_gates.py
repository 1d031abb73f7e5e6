from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.testing.exports import Served
from tests.cli import inside
from tests.savedmodel.graphs import export_with
from tests.support import Outcome, command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """A repository whose model serves two signatures."""
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "two", offset=1.0, signatures=[Served(), Served(key="other")])
    repo.promote(run, model="m", smoke=False)
    return repo.root


def promote(root: Path, run: Path, *more: str) -> Outcome:
    return inside.command("--root", root, "promote", run, "--model", "m", "--no-smoke", *more)


def test_a_breaking_promotion_is_told_with_every_change_and_the_way_out(
    serving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(tmp_path / "one", offset=2.0)
    done = promote(serving, run)
    assert done.code == 26
    assert "would break clients of m@1\n  signature other is gone\nhint: " in done.err
    assert promote(serving, run, "--dry-run").code == 26
    monkeypatch.setenv("SERVINGREPO_PROMOTE_ALLOW_BREAKING", "1")
    done = promote(serving, run)
    assert "BREAKING, which was allowed, for those of m@1" in done.out
    assert (
        "allowed: breaking changes against m@1" in inside.command("--root", serving, "history").out
    )
    assert (
        "breaking: signature other is gone" in inside.command("--root", serving, "show", "m@2").out
    )


def test_allow_op_comes_from_the_option_or_from_the_model_s_settings(
    serving: Path, tmp_path: Path
) -> None:
    run = export_with(
        tmp_path / "run", "ReadFile", signatures=[Served(), Served(key="other")], offset=5.0
    )
    assert promote(serving, run).code == 27
    (serving / "servingrepo.toml").write_text('[models.other]\nallow_op = ["ReadFile"]\n')
    assert promote(serving, run, "--dry-run").code == 27
    (serving / "servingrepo.toml").write_text('[models.m]\nallow_op = ["ReadFile"]\n')
    assert promote(serving, run, "--dry-run").code == 0
    assert promote(serving, run, "--dry-run", "--allow-op", "WriteFile").code == 27
    (serving / "servingrepo.toml").unlink()
    done = promote(serving, run, "--allow-op", "ReadFile")
    assert "  allowed   operation ReadFile" in done.out
    assert "not checked against a server's list of operations" in done.out
    for said in ("scan", run), ("verify", "m@2"), ("show", "m@2"):
        assert "may touch files: odd/ReadFile" in inside.command("--root", serving, *said).out


def test_diff_says_one_word_for_scripts(serving: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "one", offset=2.0)
    done = inside.command("--root", serving, "diff", "m", run)
    assert done.out.splitlines()[0].endswith(": breaking")
    assert inside.command("--root", serving, "diff", "-q", run, "m").out == "compatible\n"
    paths = inside.command("--root", tmp_path / "nowhere", "diff", "-q", run, run)
    assert (paths.code, paths.out) == (0, "same\n"), "two paths need no repository"


def test_contract_shows_writes_and_checks(serving: Path, tmp_path: Path) -> None:
    shown = inside.command("--root", serving, "contract", "m")
    assert "not pinned" in shown.err
    written = inside.command("--root", serving, "contract", "m", "--write")
    assert written.code == 0
    file = serving / "configs" / "m.contract.toml"
    assert file.read_text() == shown.out
    assert inside.command("--root", serving, "contract", "m", "-q").out == f"{file}\n"
    good = inside.command("--root", serving, "contract", "m", "--check", "m@1", "-q")
    assert (good.code, good.out) == (0, "same\n")
    bad = run_with(tmp_path / "one", offset=2.0)
    assert inside.command("--root", serving, "contract", "m", "--check", bad).code == 26
    both = inside.command("--root", serving, "contract", "m", "--check", bad, "--write")
    assert both.code == 2
    file.write_text("]")
    assert inside.command("--root", serving, "contract", "m").code == 14
    assert promote(serving, bad).code == 14


def test_a_rollback_that_breaks_clients_says_so_and_goes_on(serving: Path, tmp_path: Path) -> None:
    three = [Served(), Served(key="other"), Served(key="third")]
    assert promote(serving, run_with(tmp_path / "three", offset=2.0, signatures=three)).code == 0
    done = inside.command("--root", serving, "rollback", "m")
    assert done.code == 0
    assert "warning      breaks clients of m@2: signature third is gone" in done.out


def test_what_was_allowed_is_in_the_history_of_a_promotion_that_was_killed(
    serving: Path, tmp_path: Path
) -> None:
    run = run_with(tmp_path / "one", offset=2.0)
    arguments = ("promote", run, "--model", "m", "--no-smoke", "--allow-breaking")
    killed = command(
        "--root", serving, *arguments, env={"SERVINGREPO_FAILPOINTS": "c1.done@1=kill"}
    )
    assert killed.code < 0
    inside.command("--root", serving, "recover")
    said = inside.command("--root", serving, "history").out
    assert "promote (recovered)" in said
    assert "allowed: breaking changes against m@1" in said


def test_a_temporary_contract_that_a_kill_left_is_swept_and_other_files_stay(
    serving: Path,
) -> None:
    plan = {"SERVINGREPO_FAILPOINTS": "contract.before-rename@1=kill"}
    assert command("--root", serving, "contract", "m", "--write", env=plan).code < 0
    left = serving / "configs" / ".m.contract.toml.tmp"
    mine = serving / "configs" / ".mine.tmp"
    mine.write_text("x")
    assert left.exists()
    inside.command("--root", serving, "recover")
    assert not left.exists()
    assert mine.exists()
