"""Reports of commands: written when these succeed and when they fail, whole, and never through a link."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.cli import inside
from tests.cli.test_startup import loaded_by
from tests.support import command, run_with

if TYPE_CHECKING:
    from pathlib import Path


def promote(root: Path, run: Path, *more: str | Path) -> list[str | Path]:
    return ["--root", root, "promote", run, "--model", "ranker", *more]


def wrong_case(folder: Path) -> Path:
    """Write a case whose expected answer is not the model's."""
    case = {"inputs": [1.0], "expect": {"outputs": {"y": {"equal": [99.0]}}}}
    file = folder / "requests.json"
    file.write_text(json.dumps({"schema": 1, "cases": [case]}))
    return file


@pytest.mark.tf
def test_a_promotion_writes_all_three_forms(root: Path, run: Path, tmp_path: Path) -> None:
    page, junit, short = (tmp_path / name for name in ("p.html", "j.xml", "m.md"))
    files = ("--report", page, "--junit", junit, "--markdown", short)
    done = inside.command(*promote(root, run, "--engine", "embedded", *files))
    assert done.code == 0, done.err
    assert "<h1>ranker@3</h1>" in page.read_text()
    assert "ranker@3 is published and served" in page.read_text()
    suites = [one.attrib["name"] for one in ET.parse(junit).getroot()]  # noqa: S314
    assert suites == ["verdict", "smoke test", "clients"]
    assert short.read_text().startswith("## Promotion: ranker@")
    assert [one.stat().st_mode & 0o777 for one in (page, junit, short)] == [0o644] * 3


@pytest.mark.tf
def test_a_smoke_test_of_a_version_shows_its_record(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    smoked = ("smoke", "ranker@1", "--engine", "embedded", "--report", page)
    done = inside.command("--root", root, *smoked)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "<h1>ranker@1</h1>" in text
    assert "run 1" in text  # the message of its promotion
    assert "x float32[?]" in text


@pytest.mark.tf
@pytest.mark.parametrize("verb", ["smoke", "promote"])
def test_a_failed_smoke_test_is_reported_too(
    verb: str, root: Path, run: Path, tmp_path: Path
) -> None:
    page, junit = tmp_path / "p.html", tmp_path / "j.xml"
    about = ("smoke", run) if verb == "smoke" else promote(root, run)[2:]
    given = ("--engine", "embedded", "--case", wrong_case(tmp_path))
    files = ("--report", page, "--junit", junit)
    done = inside.command("--root", root, *about, *given, *files)
    assert done.code == 70, (done.out, done.err)
    text = page.read_text()
    assert '<strong class="badge">failed</strong>' in text
    assert "smoke-failed (exit code 70)" in text
    cases_found = list(ET.parse(junit).getroot().iter("testcase"))  # noqa: S314
    failed = [one for one in cases_found if one.find("failure") is not None]
    assert len(failed) == 2  # the verdict, and the case
    assert "expected 99.0" in text
    assert inside.command("--root", root, "show", "ranker@3").code == 32


@pytest.mark.tf
def test_a_drift_beyond_its_budget_is_reported(root: Path, run: Path, tmp_path: Path) -> None:
    page, junit = tmp_path / "p.html", tmp_path / "j.xml"
    file = tmp_path / "requests.json"
    file.write_text(json.dumps({"schema": 1, "cases": [{"inputs": [1.0]}, {"inputs": [2.0]}]}))
    given = ("--engine", "embedded", "--case", file, "--max-diff", "0.1")
    done = inside.command(*promote(root, run, *given, "--report", page, "--junit", junit))
    assert done.code == 70, (done.out, done.err)
    text = page.read_text()
    assert "<h2>Drift against version 2</h2>" in text
    assert "the largest difference is 1, allowed are 0.1" in text
    budgets = ET.parse(junit).getroot().findall("testsuite[@name='drift']/testcase/failure")  # noqa: S314
    assert len(budgets) == 1


def test_a_refused_promotion_is_reported(root: Path, run: Path, tmp_path: Path) -> None:
    page, short = tmp_path / "p.html", tmp_path / "m.md"
    files = ("--report", page, "--markdown", short)
    more = ("--no-smoke", "--require", "auc >= 0.9", *files)
    done = inside.command(*promote(root, run, *more))
    assert done.code == 28
    assert "gate-failed (exit code 28)" in page.read_text()
    assert "auc &gt;= 0.9" in page.read_text()
    assert "**failed**" in short.read_text()


def test_an_unsmoked_promotion_is_not_called_passed(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert inside.command(*promote(root, run, "--no-smoke", "--report", page)).code == 0
    assert '<strong class="badge">not checked</strong>' in page.read_text()
    assert "that is not checked, and not ok" in page.read_text()


def test_a_dry_run_says_so_in_its_report(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert inside.command(*promote(root, run, "--dry-run", "--report", page)).code == 0
    assert "Nothing was changed: would publish ranker@3." in page.read_text()


def test_a_diff_has_both_sides_signatures(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    done = inside.command("--root", root, "diff", "ranker@1", run, "--report", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "Nothing changes for clients of ranker@1." in text
    assert "<caption>ranker@1</caption>" in text
    assert f"<caption>{run}</caption>" in text


def test_a_failed_diff_is_reported(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert (
        inside.command("--root", root, "diff", "ranker@1", "ranker@9", "--report", page).code == 32
    )
    assert "no-such-version (exit code 32)" in page.read_text()


FAULTS = ("--failpoints", "report.before-sync=ENOSPC")


def test_an_unwritten_report_hides_no_result(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    done = inside.command(*FAULTS, *promote(root, run, "--no-smoke", "--report", page))
    assert done.code == 51
    assert done.out.startswith("ranker@3 published\n")
    assert "the report was not written" in done.err
    assert "the command itself has succeeded" in done.err
    assert not page.exists()
    assert inside.command("--root", root, "show", "ranker@3").code == 0


def test_json_has_the_result_of_an_unwritten_report(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    done = inside.command(*FAULTS, "--json", *promote(root, run, "--no-smoke", "--report", page))
    assert done.code == 51
    assert done.json["error"]["slug"] == "no-space"
    assert done.json["error"]["details"]["result"]["version"] == 3


def test_a_failure_keeps_its_code_without_report(root: Path, run: Path, tmp_path: Path) -> None:
    more = ("--no-smoke", "--require", "auc >= 0.9", "--report", tmp_path / "p.html")
    done = inside.command(*FAULTS, *promote(root, run, *more))
    assert done.code == 28
    assert "the report was not written" in done.err


def test_a_link_in_a_report_s_place_is_refused(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    link = tmp_path / "p.html"
    link.symlink_to(secret)
    done = inside.command("--root", root, "diff", "ranker@1", "ranker@2", "--report", link)
    assert done.code == 2
    assert "no file that could be replaced" in done.err
    assert secret.read_text() == "mine"
    assert link.is_symlink()


def test_a_device_is_no_place_for_reports(root: Path) -> None:
    for place in ("/dev/null", "/dev/stdout"):
        done = inside.command("--root", root, "diff", "ranker@1", "ranker@2", "--report", place)
        assert done.code == 2, place


def test_no_report_leaves_a_run_by_a_link(root: Path, run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / "out").symlink_to(elsewhere)
    page = run / "out" / "p.html"
    done = inside.command(*promote(root, run, "--no-smoke", "--report", page))
    assert done.code == 24
    assert "leads out of it" in done.err
    assert list(elsewhere.iterdir()) == []


def test_a_report_may_lie_in_its_run(root: Path, run: Path) -> None:
    page = run / "p.html"
    assert inside.command(*promote(root, run, "--no-smoke", "--report", page)).code == 0
    assert page.exists()


def test_a_missing_directory_is_told_before_anything(root: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "nosuch" / "p.html"
    done = inside.command(*promote(root, run, "--no-smoke", "--report", page))
    assert done.code == 2
    assert f"there is no directory {page.parent}" in done.err
    assert inside.command("--root", root, "show", "ranker@3").code == 32


def test_two_reports_need_two_files(root: Path, tmp_path: Path) -> None:
    files = ("--report", tmp_path / "p", "--junit", os.path.join(tmp_path, ".", "p"))  # noqa: PTH118
    done = inside.command("--root", root, "diff", "ranker@1", "ranker@2", *files)
    assert done.code == 2
    assert "two reports would be one file" in done.err


def test_a_report_s_file_may_come_from_a_variable(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    variables = {"SERVINGREPO_DIFF_REPORT": str(page)}
    done = command("--root", root, "diff", "ranker@1", "ranker@2", env=variables)
    assert done.code == 0, done.err
    assert page.exists()


def test_an_old_report_is_replaced(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    page.write_text("old")
    done = inside.command("--root", root, "diff", "ranker@1", "ranker@2", "--report", page)
    assert done.code == 0
    assert page.read_text().startswith("<!doctype html>")
    assert not (tmp_path / ".p.html.tmp").exists()


def test_templates_are_loaded_for_a_report_only(root: Path, tmp_path: Path) -> None:
    compared = ("diff", "ranker@1", "ranker@2")
    assert "jinja2" not in loaded_by("--root", root, *compared, cwd=tmp_path)
    found = loaded_by("--root", root, *compared, "--report", tmp_path / "p.html", cwd=tmp_path)
    assert "jinja2" in found


def test_the_life_of_a_model_is_written(root: Path, tmp_path: Path) -> None:
    assert inside.command("--root", root, "rollback", "ranker", "-m", "worse").code == 0
    page = tmp_path / "life.html"
    done = inside.command("--root", root, "report", "ranker", "-o", page)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{page} written: 1 model, ")
    text = page.read_text()
    assert "Version 1 is served. 1 rollback." in text
    assert "worse" in text
    assert "run 2" in text


def test_the_life_of_a_repository_has_every_model(root: Path, tmp_path: Path) -> None:
    other = run_with(tmp_path / "other", offset=9.0)
    assert inside.command("--root", root, "promote", other, "--model", "b", "--no-smoke").code == 0
    page = tmp_path / "life.html"
    done = inside.command("--json", "--root", root, "report", "-o", page)
    assert done.json["result"]["models"] == ["b", "ranker"]
    assert done.json["result"]["size"] == page.stat().st_size
    text = page.read_text()
    assert "<h2>b</h2>" in text
    assert "<h2>ranker</h2>" in text


def test_the_life_of_an_empty_repository_is_written(tmp_path: Path) -> None:
    assert inside.command("--root", tmp_path / "s", "init").code == 0
    page = tmp_path / "life.html"
    assert inside.command("--root", tmp_path / "s", "report", "-o", page).code == 0
    assert "0 models, 0 rollbacks." in page.read_text()


def test_a_life_needs_a_model_and_a_file(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "life.html"
    inside.refused(inside.command("--root", root, "report", "nosuch", "-o", page), 32, "nosuch")
    assert inside.command("--root", root, "report", "ranker").code == 2
    assert not page.exists()
