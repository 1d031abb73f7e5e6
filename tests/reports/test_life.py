"""The life of a model: what was live when, in the right order, and what nobody could read is said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from servingrepo.reports.life import life_report
from tests.reports import samples
from tests.support import new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.reports.values import Report, Section
    from servingrepo.repository.history import Event


def reported(*events: Event, left: bool = False) -> Report:
    life = msgspec.structs.replace(samples.life(), events=events, events_left=left)
    return life_report([life], subject="ranker", whole=False, created=samples.TIME)


def section(report: Report, title: str) -> Section:
    (found,) = [one for one in report.sections if one.title.startswith(title)]
    return found


def promoted(day: int, before: tuple[int, ...], after: tuple[int, ...], why: str = "") -> Event:
    return samples.event(day, "promote", before, after, why)


def test_periods_say_when_each_version_was_live() -> None:
    report = reported(
        promoted(1, (), (1,), "first"),
        promoted(2, (1,), (2,)),
        samples.event(3, "rollback", (2,), (1,), "worse"),
    )
    rows = section(report, "Live").tables[0].rows
    assert [row[:4] for row in rows] == [
        ("1", "2026-11-13 10:00", "now", "17 d 0 h"),
        ("2", "2026-11-12 10:00", "2026-11-13 10:00", "1 d 0 h"),
        ("1", "2026-11-11 10:00", "2026-11-12 10:00", "1 d 0 h"),
    ]
    assert rows[0][4:] == ("rollback by anna: worse", "-")
    assert rows[1][5] == "rollback by anna: worse"
    assert report.verdict == "Version 9 is served. 1 rollback."


def test_a_time_without_a_served_version_is_a_gap() -> None:
    report = reported(
        promoted(1, (), (1,)), samples.event(2, "unserve", (1,), (), ""), promoted(4, (), (2,))
    )
    live = section(report, "Live")
    assert [row[0] for row in live.tables[0].rows] == ["2", "1"]
    (chart,) = live.charts
    assert chart.levels == ("1", "2")
    assert chart.series[0].values == (0.0, None, 1.0, 1.0)
    assert list(chart.x) == sorted(chart.x)


def test_rollbacks_are_points_on_the_line() -> None:
    report = reported(promoted(1, (), (1,)), promoted(2, (1,), (2,)), rolled_back())
    (chart,) = section(report, "Live").charts
    assert chart.series[1].label == "rollback"
    assert chart.series[1].values == (None, None, 0.0, None)
    (row,) = section(report, "Rollbacks").tables[0].rows
    assert row == ("2026-11-13 10:00", "rollback", "2", "1", "2", "anna@ops1", "worse")


def rolled_back() -> Event:
    event = samples.event(3, "rollback", (2,), (1,), "worse")
    return msgspec.structs.replace(event, marked_bad=2)


def test_a_canary_beside_the_served_version_is_no_period() -> None:
    report = reported(promoted(2, (), (2,)), samples.event(3, "label", (2,), (1, 2), ""))
    assert len(section(report, "Live").tables[0].rows) == 1


def test_a_history_that_begins_before_is_said() -> None:
    report = reported(promoted(5, (4,), (5,)), left=True)
    live = section(report, "Live")
    assert live.remarks == ("ranker: of its history the newest 1 events were read.",)
    assert [row[:2] for row in live.tables[0].rows] == [("5", "2026-11-15 10:00"), ("4", "before")]


def test_a_strange_time_stops_no_report() -> None:
    strange = msgspec.structs.replace(promoted(1, (), (1,)), time="yesterday")
    report = reported(strange, promoted(2, (1,), (2,)))
    assert len(section(report, "Live").tables[0].rows) == 2


def test_metrics_that_several_versions_have_are_drawn() -> None:
    report = reported(promoted(1, (), (1,)))
    metrics = section(report, "Metrics")
    assert [chart.title for chart in metrics.charts] == [
        "validation/accuracy, last value",
        "loss, last value",
    ]
    assert metrics.charts[0].names == tuple(map(str, range(1, 10)))
    assert len(metrics.tables[0].rows) == 9


def test_versions_say_what_proved_them() -> None:
    rows = section(reported(), "Versions").tables[0].rows
    assert rows[0][:2] == ("9", "served, stable")
    assert "docker (TensorFlow Serving 2.19.1): 11 passed, 1 failed" in rows[0]
    assert rows[-1][1] == "in the trash since 2026-11-30 10:00"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number in (1, 2):
        run = run_with(tmp_path / f"run{number}", offset=float(number))
        repo.promote(run, model="m", smoke=False)
    record = tmp_path / "serving" / ".servingrepo" / "models" / "m" / "1.json"
    text = record.read_text()
    record.write_text(re.sub(r'"tensorflow": "[^"]*"', '"tensorflow": 7', text))
    (life,) = repo.life("m")
    assert [one.version for one in life.records] == [2]
    assert "1.json is not a record" in life.unreadable[0]
    report = life_report([life], subject="m", whole=False, created=samples.TIME)
    assert any("1.json is not a record" in one for one in section(report, "Live").remarks)


def test_an_unreadable_config_is_not_called_unserved(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "run", offset=1.0), model="m", smoke=False)
    (tmp_path / "serving" / "models" / "models.config").write_text("model_config_list {")
    report = life_report(repo.life("m"), subject="m", whole=False, created=samples.TIME)
    assert report.verdict.startswith("What is served is not known")
    whole = life_report(repo.life(), subject="r", whole=True, created=samples.TIME)
    assert section(whole, "Models").tables[0].rows[0][1] == "not known"
