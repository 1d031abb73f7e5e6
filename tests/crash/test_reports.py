"""A report interrupted: its file is the old one or the whole new one, and the promotion stands."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.crash.test_steps import NEED_REPORTS
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = {"ENOSPC": 51, "EIO": 50, "EACCES": 52}
REPLACED = ("report.after-rename", "report.done")


def promoted(folder: Path, fault: str) -> tuple[int, str, bool]:
    """Promote with a report and a fault; return the exit code, the report, and whether the version is there."""
    root, page = folder / "serving", folder / "p.html"
    page.write_text("old")
    run = run_with(folder / "run", offset=1.0)
    repo = new_repository(root)
    options = ("--root", root, "--failpoints", fault, "promote", run, "--model", "m", "--no-smoke")
    done = command(*options, "--report", page)
    text = page.read_text()
    assert text == "old" or text.endswith("</html>\n")
    return done.code, text, repo.show_version("m@1").version == 1


@pytest.mark.parametrize("step", NEED_REPORTS)
def test_a_killed_report_is_whole_or_old(step: str, tmp_path: Path) -> None:
    code, text, there = promoted(tmp_path, f"{step}=kill")
    assert code == -signal.SIGKILL
    assert (text != "old") == (step in REPLACED)
    assert there
    (tmp_path / "run" / "saved_model" / "new").touch()
    again = ("--root", tmp_path / "serving", "promote", tmp_path / "run", "--model", "m")
    assert command(*again, "--no-smoke", "--report", tmp_path / "p.html").code == 0
    assert (tmp_path / "p.html").read_text().endswith("</html>\n")
    assert not (tmp_path / ".p.html.tmp").exists()


@pytest.mark.parametrize("step", NEED_REPORTS)
@pytest.mark.parametrize("fault", ERRORS)
def test_a_refused_report_leaves_no_part(step: str, fault: str, tmp_path: Path) -> None:
    code, text, there = promoted(tmp_path, f"{step}={fault}")
    assert code == ERRORS[fault]
    assert (text != "old") == (step in REPLACED)
    assert there
    assert not (tmp_path / ".p.html.tmp").exists()
