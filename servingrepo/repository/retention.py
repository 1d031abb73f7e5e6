"""Retention: which versions of a model stay and which go, with all reasons.

The rules are restic's (doc/060_forget.rst): a version stays if any rule keeps it, and a policy without a rule is
refused. A version that must never go is `protected`, whatever the rules say. These are pure functions of values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_UNITS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
"""Hours by unit. There are no months, because their lengths differ."""

_DURATION = re.compile(r"(?:[0-9]{1,6}[hdwy])+")
_PART = re.compile(r"([0-9]+)([hdwy])")
_LONGEST = timedelta(days=365 * 1000)

NO_POLICY_HINT = (
    "give at least one of --keep-last N, --keep-within 30d, --keep-daily N, --keep-weekly N, "
    "--keep-labelled LABEL, or write keep_last = N into [prune] or [models.NAME] of servingrepo.toml"
)


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """A policy: a version stays if any of its rules keeps it.

    Attributes:
        last: Keep this many good versions with the highest numbers.
        within: Keep the versions made within this time of the newest version that is not from the future.
        daily: Keep the last good version of a day (UTC), for this many days that have one.
        weekly: Keep the last good version of an ISO week, for this many weeks that have one.
        labelled: Keep the versions that have, or by history had, a label that matches one of these patterns.
    """

    last: int = 0
    within: timedelta | None = None
    daily: int = 0
    weekly: int = 0
    labelled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = {"last": self.last, "daily": self.daily, "weekly": self.weekly}
        bad = [f"{name} {number}" for name, number in numbers.items() if number < 0]
        if self.within is not None and self.within < timedelta(0):
            bad.append(f"within {self.within}")
        if bad:
            raise UsageError(f"a policy cannot keep {', '.join(bad)}", hint="give 0 or more")

    def __bool__(self) -> bool:
        return bool(self.last or self.within or self.daily or self.weekly or self.labelled)

    def __str__(self) -> str:
        """Return the policy in the words of the command line."""
        return ", ".join(
            [
                *([f"last {self.last}"] if self.last else []),
                *([f"within {duration_text(self.within)}"] if self.within else []),
                *([f"daily {self.daily}"] if self.daily else []),
                *([f"weekly {self.weekly}"] if self.weekly else []),
                *(f"labelled {one}" for one in self.labelled),
            ]
        )


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One version to decide on.

    `created` is the record's ISO 8601 text. `labels` are those that it has or had. `protected` are the reasons why it
    must not go.
    """

    version: int
    created: str
    size: int
    bad: bool = False
    labels: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on one version: whether it stays, and all reasons."""

    version: int
    size: int
    keep: bool
    reasons: tuple[str, ...]


def policies_for(models: Iterable[str], keep: Keep | Mapping[str, Keep] | None) -> dict[str, Keep]:
    """Return the policy of each model. `keep` is one policy for all models, or a policy for each.

    Raises:
        UsageError: A policy is empty.
    """
    given = Keep() if keep is None else keep
    found = {
        model: given if isinstance(given, Keep) else given.get(model, Keep()) for model in models
    }
    need_policies(found or ({"all models": given} if isinstance(given, Keep) else {}))
    return found


def need_policies(policies: Mapping[str, Keep]) -> None:
    """Refuse empty policies.

    Raises:
        UsageError: A policy is empty; the message names all models with an empty one.
    """
    empty = sorted(model for model, keep in policies.items() if not keep)
    if empty:
        raise UsageError(
            f"the policy for {', '.join(empty)} is empty: every version would go",
            hint=NO_POLICY_HINT,
        )


def decide(candidates: Iterable[Candidate], keep: Keep, *, now: datetime) -> tuple[Decision, ...]:
    """Decide on each version of one model, the highest number first.

    `last`, `daily` and `weekly` do not count versions with a bad mark: these cannot be served, so they must not take
    the place of good ones. Versions are ordered by number and not by time, so a clock that jumped does not reorder
    them. `within` counts back from the newest version that is not from the future. So a clock that is or was ahead
    does not make the other versions old.

    Raises:
        UsageError: The policy has no rule, so every version would go.
    """
    if not keep:
        raise UsageError("the policy is empty: every version would go", hint=NO_POLICY_HINT)
    versions = sorted(candidates, key=lambda one: one.version, reverse=True)
    times = {one.version: read_time(one.created) for one in versions}
    reasons: dict[int, list[str]] = {one.version: list(one.protected) for one in versions}
    good = [one for one in versions if not one.bad]
    for one in good[: keep.last]:
        reasons[one.version].append(f"last {keep.last}")
    _keep_within(reasons, times, keep.within, now=now)
    _keep_one_each(reasons, times, good, count=keep.daily, period=_day, name="day")
    _keep_one_each(reasons, times, good, count=keep.weekly, period=_week, name="week")
    for one in versions:
        reasons[one.version] += [
            f"is or was labelled {label}"
            for label in one.labels
            if any(fnmatchcase(label, pattern) for pattern in keep.labelled)
        ]
    return tuple(
        Decision(
            version=one.version,
            size=one.size,
            keep=bool(reasons[one.version]),
            reasons=tuple(reasons[one.version])
            or ("marked bad, and no rule keeps it" if one.bad else "no rule keeps it",),
        )
        for one in versions
    )


def _keep_within(
    reasons: dict[int, list[str]],
    times: dict[int, datetime | None],
    within: timedelta | None,
    *,
    now: datetime,
) -> None:
    if not within:
        return
    newest = max((at for at in times.values() if at is not None and at <= now), default=now)
    for version, at in times.items():
        if at is None:
            reasons[version].append("when it was made cannot be read")
        elif at > now:
            reasons[version].append("made in the future, by its clock")
        elif newest - at <= within:
            reasons[version].append(f"within {duration_text(within)}")


def _keep_one_each(
    reasons: dict[int, list[str]],
    times: dict[int, datetime | None],
    good: list[Candidate],
    *,
    count: int,
    period: Callable[[datetime], str],
    name: str,
) -> None:
    """Keep the highest good version of each of `count` periods."""
    seen: set[str] = set()
    for one in good if count else ():
        at = times[one.version]
        if at is None:
            reasons[one.version].append("when it was made cannot be read")
            continue
        if period(at) not in seen and len(seen) < count:
            seen.add(period(at))
            reasons[one.version].append(f"last of the {name} {period(at)}")


def _day(at: datetime) -> str:
    return at.date().isoformat()


def _week(at: datetime) -> str:
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02}"


def read_time(text: str) -> datetime | None:
    """Read a record's time as UTC. A text without a zone is UTC. Return None if it is no time."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_duration(text: str) -> timedelta:
    """Read a duration such as 30d, 12h, 2w, 1y or 1w3d.

    Raises:
        ValueError: The text is no duration.
    """
    if _DURATION.fullmatch(text):
        hours = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
        found = timedelta(hours=hours)
        if timedelta(0) < found <= _LONGEST:
            return found
    message = f"{text!r} is not a duration: write 12h, 30d, 2w, 1y or 1w3d"
    raise ValueError(message)


def duration_text(duration: timedelta | None) -> str:
    """Write a duration as `parse_duration` reads it."""
    hours = int((duration or timedelta(0)).total_seconds() // 3600)
    days, hours = divmod(hours, 24)
    return f"{f'{days}d' if days else ''}{f'{hours}h' if hours else ''}" or "0h"
