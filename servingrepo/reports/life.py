"""The report of a model's life, or of the lives of all models: what was live when, and why it changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

import servingrepo
from servingrepo.reports.values import Chart, Report, Section, Series, Table, figure
from servingrepo.repository.records import say_proofs, without_secrets
from servingrepo.texts import plural, sized

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.reports.values import Outcome
    from servingrepo.repository.history import Event
    from servingrepo.repository.lives import Life
    from servingrepo.repository.records import VersionRecord

__all__ = ["life_report"]

_MOST_ROWS = 500
_MOST_VERSIONS = 60
_MOST_METRICS = 12
_MOST_MODELS = 30
_ROWS_OF_ALL = 20
_MOST_POINTS = 2000

_AGAINST = frozenset({"rollback", "stage-stopped", "mark-bad"})
"""Actions that say something against a version."""


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which unlabelled clients got one version; None where they got none. `end` None means: until now."""

    version: int | None
    begin: datetime | None
    end: datetime | None
    came: str
    went: str


def life_report(lives: Sequence[Life], *, subject: str, whole: bool, created: str) -> Report:
    """Report on the life of a model, or of all.

    Args:
        lives: What `life` returned.
        subject: The model or the repository.
        whole: Whether it is about the repository: then each model gets less room.
        created: When the report is made.
    """
    lives = [without_secrets(one) for one in lives]
    now = datetime.fromisoformat(created)
    rollbacks = sum(event.action == "rollback" for one in lives for event in one.events)
    if whole:
        verdict = f"{plural(len(lives), 'model', 'models')}, {plural(rollbacks, 'rollback', 'rollbacks')}."
    else:
        verdict = " ".join(
            f"{_state(one)}. {plural(rollbacks, 'rollback', 'rollbacks')}." for one in lives
        )
    sections: list[Section] = []
    if whole and lives:
        sections.append(_overview(lives, now))
    for one in lives[:_MOST_MODELS]:
        parts = [*_parts(one, now, rows=_ROWS_OF_ALL if whole else _MOST_ROWS)]
        name = one.model.model
        if whole:
            parts = [_joined(name, parts)]
        sections += parts
    if len(lives) > _MOST_MODELS:
        more = [one.model.model for one in lives[_MOST_MODELS:]]
        remark = f"servingrepo report NAME -o FILE shows them: {', '.join(more)}."
        sections.append(Section(title=f"{len(more)} more models", remarks=(remark,)))
    return Report(
        kind="Life of the repository" if whole else "Life of a model",
        subject=subject,
        outcome=None,
        verdict=verdict,
        facts=() if whole else tuple(fact for one in lives for fact in _facts(one)),
        sections=tuple(one for one in sections if not one.empty),
        created=created,
        program=f"servingrepo {servingrepo.__version__}",
    )


def _state(life: Life) -> str:
    details = life.model
    if details.unknown:
        return f"What is served is not known: {details.unknown}"
    if details.elsewhere:
        return f"It is unmanaged: its base path is {details.elsewhere}"
    return "Nothing is served" if details.served is None else f"Version {details.served} is served"


def _facts(life: Life) -> Iterator[tuple[str, str]]:
    details = life.model
    yield "Versions", f"{len(details.versions)}, and {len(details.trash)} in the trash"
    yield "Size", f"{sized(sum(one.size for one in details.versions))} without the trash"
    yield "Highest", f"{details.highest}, of all numbers ever used"
    for label, version in sorted(details.labels.items()):
        yield f"Label {label}", str(version)
    if details.hold is not None:
        hold = details.hold
        yield "Held", f"by {hold.user}@{hold.host} since {_short(hold.time)}: {hold.reason or '-'}"


def _overview(lives: Sequence[Life], now: datetime) -> Section:
    rows = []
    for one in lives:
        periods = _periods(one.events, now)
        since = periods[-1].begin if periods else None
        rows.append(
            (
                one.model.model,
                "not known" if one.model.unknown else str(one.model.served or "-"),
                _moment(since) if since is not None else "-",
                str(len(one.model.versions)),
                sized(sum(row.size for row in one.model.versions)),
                str(sum(event.action == "rollback" for event in one.events)),
                ", ".join(str(row.version) for row in one.model.versions if row.bad) or "-",
                "yes" if one.model.hold is not None else "-",
            )
        )
    heads = ("Model", "Served", "Since", "Versions", "Size", "Rollbacks", "Bad", "Held")
    return Section(title="Models", tables=(Table(heads=heads, rows=tuple(rows)),))


def _joined(title: str, parts: Sequence[Section]) -> Section:
    """Return the parts of a model as one section."""
    return Section(
        title=title,
        remarks=tuple(one for part in parts for one in part.remarks),
        charts=tuple(one for part in parts for one in part.charts),
        tables=tuple(
            msgspec.structs.replace(one, title=one.title or part.title)
            for part in parts
            for one in part.tables
        ),
    )


def _parts(life: Life, now: datetime, *, rows: int) -> Iterator[Section]:
    yield _live(life, now, rows)
    yield _against(life, rows)
    yield _versions(life, rows)
    yield _metrics(life)
    yield _history(life, rows)


def _live(life: Life, now: datetime, rows: int) -> Section:
    """Return what was live when."""
    periods = _periods(life.events, now)
    shown = [one for one in reversed(periods) if one.version is not None]
    table = Table(
        heads=("Version", "From", "Until", "For", "Came by", "Went by"),
        rows=tuple(
            (
                str(one.version),
                _moment(one.begin) if one.begin is not None else "before",
                _moment(one.end) if one.end is not None else "now",
                _span((one.end or now) - one.begin) if one.begin is not None else "-",
                one.came,
                one.went or "-",
            )
            for one in shown[:rows]
        ),
        note=_cut(len(shown), rows, "periods"),
    )
    remarks = []
    if life.events_left:
        remarks.append(
            f"{life.model.model}: of its history the newest {len(life.events)} events were read."
        )
    remarks += life.unreadable
    return Section(
        title="Live",
        remarks=tuple(remarks),
        tables=(table,) if shown else (),
        charts=tuple(_timeline(life, periods, now)),
    )


def _periods(events: Sequence[Event], now: datetime) -> list[Period]:
    """Return the times between which unlabelled clients got another version, oldest first."""
    found: list[Period] = []
    current, begin, came = None, None, ""
    if events and events[0].served_before is not None:
        current, came = events[0].served_before, "before this history"
    for event in events:
        after = event.served_after
        if event.before == event.after or after == current:
            continue
        moment = _read(event.time) or now
        how = f"{event.action} by {event.user}" + (f": {event.why}" if event.why else "")
        if current is not None or found:
            found.append(Period(version=current, begin=begin, end=moment, came=came, went=how))
        current, begin, came = after, moment, how
    if current is not None or found:
        found.append(Period(version=current, begin=begin, end=None, came=came, went=""))
    return found


def _timeline(life: Life, periods: Sequence[Period], now: datetime) -> Iterator[Chart]:
    """Yield the steps of the served version over time, with a point at each rollback."""
    periods = [one for one in periods if one.begin is not None][-_MOST_POINTS:]
    levels = sorted({one.version for one in periods if one.version is not None})
    if not levels:
        return
    back = {_read(one.time) for one in life.events if one.action == "rollback"}
    places = {version: float(at) for at, version in enumerate(levels)}
    x: list[float] = []
    served: list[float | None] = []
    points: list[float | None] = []
    for one in periods:
        begin = one.begin.timestamp() if one.begin is not None else 0.0
        level = places[one.version] if one.version is not None else None
        x.append(max([begin, *x[-1:]]))
        served.append(level)
        points.append(level if one.begin in back else None)
    x.append(max(now.timestamp(), x[-1]))
    served.append(served[-1])
    points.append(None)
    series = [Series(label="served", values=tuple(served))]
    if any(one is not None for one in points):
        series.append(Series(label="rollback", values=tuple(points)))
    yield Chart(
        title=f"{life.model.model}: the served version over time, UTC",
        kind="steps",
        x=tuple(x),
        times=True,
        levels=tuple(map(str, levels)),
        series=tuple(series),
    )


def _against(life: Life, rows: int) -> Section:
    """Return rollbacks, stopped roll-outs and bad marks, and why."""
    found = [one for one in reversed(life.events) if one.action in _AGAINST]
    if not found:
        return Section(title="Rollbacks")
    table = Table(
        heads=("Time", "What", "From", "To", "Marked bad", "Who", "Why"),
        rows=tuple(
            (
                _short(one.time),
                one.action,
                _pins(one.before),
                _pins(one.after),
                _bad(one),
                f"{one.user}@{one.host}",
                "; ".join([*([one.why] if one.why else []), *map(str, one.stages)]) or "-",
            )
            for one in found[:rows]
        ),
        note=_cut(len(found), rows, "events"),
    )
    return Section(title="Rollbacks, stopped roll-outs and bad marks", tables=(table,))


def _bad(event: Event) -> str:
    marked = event.version if event.action == "mark-bad" else event.marked_bad
    return "-" if marked is None else str(marked)


def _versions(life: Life, rows: int) -> Section:
    """Return the versions with their sizes and proofs."""
    details = life.model
    records = {one.version: one for one in life.records}
    lines: list[tuple[str, ...]] = []
    marks: list[Outcome] = []
    for row in details.versions:
        state = [*(["served"] if row.served else ["pinned"] if row.pinned else []), *row.labels]
        state += ["bad"] if row.bad is not None else []
        record = records.get(row.version)
        lines.append(
            (
                str(row.version),
                ", ".join(state) or "-",
                _short(row.created),
                row.by,
                sized(row.size),
                say_proofs(record.proofs) if record is not None else row.proof,
                *_judged(record),
                row.message or "-",
            )
        )
        proven = record is not None and any(
            one.report.passed and not one.report.failed for one in record.proofs
        )
        marks.append("failed" if row.bad else "passed" if proven else "not checked")
    for gone in details.trash:
        record = records.get(gone.version)
        proof = say_proofs(record.proofs) if record is not None else "-"
        lines.append(
            (
                str(gone.version),
                f"in the trash since {_short(gone.since)}" + (", bad" if gone.bad else ""),
                _short(record.created) if record is not None else "-",
                f"{record.user}@{record.host}" if record is not None else "-",
                sized(gone.size),
                proof,
                *_judged(record),
                gone.message or "-",
            )
        )
        marks.append("failed" if gone.bad else "not checked")
    if not lines:
        return Section(title="Versions")
    heads = (
        "Version",
        "State",
        "Created",
        "By",
        "Size",
        "Proven by",
        "Gates",
        "Clients",
        "Message",
    )
    table = Table(
        heads=heads,
        rows=tuple(lines[:rows]),
        marks=tuple(marks[:rows]),
        note=_cut(len(lines), rows, "versions"),
    )
    left = f"Of {life.records_left} older versions the records were not read."
    return Section(
        title="Versions, and what proved them",
        remarks=(left,) if life.records_left else (),
        tables=(table,),
        charts=tuple(_sizes(life)),
    )


def _judged(record: VersionRecord | None) -> tuple[str, str]:
    """Return what gates and the comparison for clients said, in a few words."""
    if record is None:
        return "-", "-"
    gates = ", ".join(f"{one.gate}: {one.verdict}" for one in record.gates) or "-"
    guard = record.guard
    if guard is None:
        return gates, "-"
    clients = guard.verdict + (f" against {guard.against}" if guard.against else "")
    return gates, "; ".join([clients, *(f"allowed: {one}" for one in guard.allowed)])


def _sizes(life: Life) -> Iterator[Chart]:
    rows = sorted(
        [(one.version, one.size) for one in life.model.versions]
        + [(one.version, one.size) for one in life.model.trash]
    )[-_MOST_VERSIONS:]
    if len(rows) > 1:
        yield Chart(
            title=f"{life.model.model}: size of each version",
            kind="bars",
            unit="bytes",
            x=tuple(map(float, range(len(rows)))),
            names=tuple(str(version) for version, _ in rows),
            series=(Series(label="size", values=tuple(float(size) for _, size in rows)),),
        )


def _metrics(life: Life) -> Section:
    """Return the numbers that several versions' runs measured, over versions."""
    records = sorted(life.records, key=_number)[-_MOST_VERSIONS:]
    found: dict[str, dict[int, float | None]] = {}
    for record in records:
        for number in record.measured:
            found.setdefault(number.name, {})[record.version] = number.last
    names = sorted((one for one in found if len(found[one]) > 1), key=lambda one: -len(found[one]))
    if not names:
        return Section(title="Metrics over versions")
    versions = [one.version for one in records]
    charts = tuple(
        Chart(
            title=f"{name}, last value",
            kind="lines",
            x=tuple(map(float, range(len(versions)))),
            names=tuple(map(str, versions)),
            series=(Series(label=name, values=tuple(found[name].get(one) for one in versions)),),
        )
        for name in names[:_MOST_METRICS]
    )
    shown = names[:_MOST_METRICS]
    table = Table(
        heads=("Version", *shown),
        rows=tuple(
            (str(one), *(figure(found[name].get(one)) for name in shown))
            for one in reversed(versions)
        ),
        note=_cut(len(names), _MOST_METRICS, "metrics"),
    )
    return Section(title="Metrics over versions", charts=charts, tables=(table,))


def _number(record: VersionRecord) -> int:
    return record.version


def _history(life: Life, rows: int) -> Section:
    if not life.events:
        return Section(title="History")
    newest = life.events[::-1]
    table = Table(
        heads=("Time", "Who", "What", "Version", "Served", "Proof", "Run", "Why"),
        rows=tuple(
            (
                _short(one.time),
                f"{one.user}@{one.host}",
                one.action + (" (recovered)" if one.recovered else ""),
                _pins(one.versions or ((one.version,) if one.version is not None else ())),
                _pins(one.after)
                if one.before == one.after
                else f"{_pins(one.before)} → {_pins(one.after)}",
                one.proof or "-",
                one.run or "-",
                "; ".join(
                    [*([one.why] if one.why else []), *(f"allowed: {a}" for a in one.allowed)]
                )
                or "-",
            )
            for one in newest[:rows]
        ),
        note=_cut(len(newest), rows, "events"),
    )
    return Section(title="History", tables=(table,))


def _cut(count: int, most: int, what: str) -> str:
    return f"The first {most} of {count} {what}." if count > most else ""


def _pins(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "-"


def _read(time: str) -> datetime | None:
    """Read the time of an event; None if somebody wrote another text there."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _short(time: str) -> str:
    """Return a time of a record without its seconds."""
    return time[:16].replace("T", " ")


def _moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _span(time: timedelta) -> str:
    minutes = max(0, int(time.total_seconds())) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min"
