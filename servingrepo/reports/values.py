"""What a report says, in whatever form: the verdict first, then sections of facts, tables and charts."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from servingrepo.texts import printable

__all__ = [
    "Chart",
    "Check",
    "Outcome",
    "Report",
    "Section",
    "Series",
    "Table",
    "figure",
    "finite",
    "plain",
]

Outcome = Literal["passed", "failed", "inconclusive", "not checked"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked: a case of a smoke test, a gate, a budget.

    Attributes:
        group: What kind of check it is; all cases of a smoke test have one group.
        name: What was checked.
        outcome: How it ended.
        reason: Why, or what is odd; it may be empty.
        source: Where the data came from; empty if there were none.
        call: The API that was called.
        requests: How many requests were sent.
        milliseconds: The time of the last answer; 0 if nobody measured it.
    """

    group: str
    name: str
    outcome: Outcome
    reason: str = ""
    source: str = ""
    call: str = ""
    requests: int = 0
    milliseconds: float = 0.0


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of text. `marks` has the outcome of each row, where rows have one."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    marks: tuple[Outcome, ...] = ()


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a chart, one for each place on its axis; None where there is none.

    `low` and `high` are the ends of an interval around each number, where it has one.
    """

    label: str
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart, whose figures a table near it has too.

    Attributes:
        kind: Bars, a line with points, or steps that hold until the next one. In steps, a second series is points.
        x: Places on the axis, in seconds since the epoch if `times`.
        names: The names of the places 0, 1, …, where they are no times.
        levels: The names of the values 0, 1, …, where they are no numbers.
        unit: Of the values: bytes, a share of 1, or none.
        note: What to know of it.
    """

    title: str
    kind: Literal["bars", "lines", "steps"]
    x: tuple[float, ...]
    series: tuple[Series, ...]
    names: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    times: bool = False
    unit: Literal["", "bytes", "share"] = ""
    note: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a report: remarks, then facts by name, tables and charts."""

    title: str
    remarks: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.remarks or self.facts or self.tables or self.charts)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A report.

    Attributes:
        kind: What it reports on: a promotion, a smoke test, a comparison, a life.
        subject: The model, version or path.
        outcome: The verdict; None for a report that judges nothing.
        verdict: The verdict, in a sentence.
        problems: All that speaks against it.
        hint: What to do next; it may be empty.
        facts: The most important facts, by name.
        sections: The parts.
        background: The parts that come after the checks.
        checks: All that was checked.
        checks_left: How many more checks there were of an outcome.
        log: The last lines of the server's log.
        created: When the report was made.
        program: Which servingrepo made it.
    """

    kind: str
    subject: str
    outcome: Outcome | None
    verdict: str
    problems: tuple[str, ...] = ()
    hint: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    background: tuple[Section, ...] = ()
    checks: tuple[Check, ...] = ()
    checks_left: dict[str, int] = {}
    log: tuple[str, ...] = ()
    created: str
    program: str


def plain(report: Report) -> Report:
    """Return a report without control characters in its texts: names and messages may come from files of others."""
    return msgspec.convert(_plain(msgspec.to_builtins(report)), Report)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return value


def finite(value: float | None) -> float | None:
    """Return a number that a chart can draw; None for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def figure(value: float | None) -> str:
    """Return a number for people; `-` for none."""
    return "-" if value is None else f"{value:.4g}"
