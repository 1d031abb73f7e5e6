from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.errors import UsageError
from servingrepo.repository.retention import (
    Candidate,
    Decision,
    Keep,
    decide,
    duration_text,
    need_policies,
    parse_duration,
    policies_for,
    read_time,
)

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)


def version(number: int, *, days: float = 0, **options: object) -> Candidate:
    """A version that was made that many days before now."""
    created = (NOW - timedelta(days=days)).isoformat(timespec="milliseconds")
    return Candidate(version=number, created=created, size=1, **options)  # type: ignore[arg-type]


def kept(candidates: list[Candidate], keep: Keep, *, now: datetime = NOW) -> list[int]:
    return [one.version for one in decide(candidates, keep, now=now) if one.keep]


def by_number(candidates: list[Candidate], keep: Keep) -> dict[int, Decision]:
    return {one.version: one for one in decide(candidates, keep, now=NOW)}


def test_an_empty_policy_is_refused() -> None:
    for keep in (Keep(), Keep(last=0, daily=0, labelled=()), Keep(within=timedelta(0))):
        with pytest.raises(UsageError, match="every version would go"):
            decide([version(1)], keep, now=NOW)
    with pytest.raises(UsageError, match="the policy for a, c is empty"):
        need_policies({"a": Keep(), "b": Keep(last=1), "c": Keep()})
    with pytest.raises(UsageError, match="for all models is empty"):
        policies_for((), None)


def test_a_policy_with_negative_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="last -1, weekly -2"):
        Keep(last=-1, weekly=-2)
    with pytest.raises(UsageError, match="within"):
        Keep(within=timedelta(days=-1))


def test_the_last_n_are_the_highest_numbers_whatever_their_times() -> None:
    versions = [version(1), version(2, days=900), version(10, days=400), version(9, days=1)]
    assert kept(versions, Keep(last=2)) == [10, 9]


def test_bad_versions_take_no_place_of_good_ones() -> None:
    versions = [version(1), version(2), version(3, bad=True), version(4, bad=True)]
    decided = by_number(versions, Keep(last=1, daily=1, weekly=1))
    assert [number for number, one in decided.items() if one.keep] == [2]
    assert decided[4].reasons == ("marked bad, and no rule keeps it",)
    assert decided[1].reasons == ("no rule keeps it",)


def test_what_is_protected_stays_and_says_why() -> None:
    versions = [version(1, protected=("served", "labelled stable")), version(2), version(3)]
    decided = by_number(versions, Keep(last=1))
    assert decided[1] == Decision(
        version=1, size=1, keep=True, reasons=("served", "labelled stable")
    )
    assert not decided[2].keep


def test_every_rule_that_keeps_a_version_is_named() -> None:
    decided = by_number(
        [version(7, days=1, labels=("stable",))],
        Keep(last=3, within=timedelta(days=30), daily=1, weekly=1, labelled=("sta*",)),
    )
    assert decided[7].reasons == (
        "last 3",
        "within 30d",
        "last of the day 2026-05-09",
        "last of the week 2026-W19",
        "is or was labelled stable",
    )


def test_one_per_day_is_the_last_good_of_each_of_the_last_days_that_have_one() -> None:
    versions = [version(n, days=d) for n, d in ((1, 9), (2, 5), (3, 5), (4, 1), (5, 0), (6, 0))]
    versions.append(version(7, days=0, bad=True))
    assert kept(versions, Keep(daily=3)) == [6, 4, 3]


def test_one_per_week_goes_by_iso_weeks_over_the_turn_of_a_year() -> None:
    dates = ("2024-12-28", "2024-12-30", "2025-01-01", "2025-01-05", "2025-01-06")
    versions = [
        Candidate(version=number, created=f"{date}T00:00:00+00:00", size=1)
        for number, date in enumerate(dates, start=1)
    ]
    assert kept(versions, Keep(weekly=9)) == [5, 4, 1]


def test_days_are_days_in_utc_whatever_zone_a_record_has() -> None:
    zone = timezone(timedelta(hours=14))
    late = datetime(2026, 5, 2, 0, 30, tzinfo=zone)  # 1 May in UTC
    versions = [
        Candidate(version=1, created="2026-05-01T23:00:00", size=1),
        Candidate(version=2, created=late.isoformat(), size=1),
    ]
    assert kept(versions, Keep(daily=2)) == [2]


def test_a_clock_that_was_ahead_once_makes_the_others_not_old() -> None:
    versions = [version(1, days=3), version(2, days=-4000), version(3, days=1)]
    keep = Keep(within=timedelta(days=7))
    assert kept(versions, keep) == [3, 2, 1]
    assert by_number(versions, keep)[2].reasons == ("made in the future, by its clock",)


def test_a_clock_that_is_ahead_now_makes_nothing_old() -> None:
    versions = [version(1, days=40), version(2, days=3), version(3, days=1)]
    later = NOW + timedelta(days=4000)
    assert kept(versions, Keep(within=timedelta(days=7)), now=later) == [3, 2]


def test_a_time_that_cannot_be_read_is_never_a_reason_to_go_by_time() -> None:
    strange = Candidate(version=1, created="yesterday", size=1)
    for keep in (Keep(within=timedelta(days=1)), Keep(daily=1), Keep(weekly=1)):
        assert kept([strange, version(2)], keep) == [2, 1]
    assert kept([strange, version(2)], Keep(last=1)) == [2]


def test_labels_are_compared_as_patterns_with_case() -> None:
    versions = [version(1, labels=("stable",)), version(2, labels=("Stable", "canary"))]
    assert kept(versions, Keep(labelled=("stable",))) == [1]
    assert kept(versions, Keep(labelled=("*",))) == [2, 1]
    assert kept([version(3)], Keep(labelled=("*",))) == []


@pytest.mark.parametrize(
    ("text", "hours"),
    [("12h", 12), ("30d", 720), ("2w", 336), ("1y", 8760), ("1w3d", 240), ("1d1d", 48)],
)
def test_durations_are_read(text: str, hours: int) -> None:
    assert parse_duration(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "30 d", "-1d", "1m", "0d", "1.5d", "30D", "9999y", "999999999d", "\u0661d"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_policy_says_itself_in_the_words_of_the_command_line() -> None:
    keep = Keep(
        last=3, within=parse_duration("1w12h"), daily=7, weekly=4, labelled=("stable", "rc*")
    )
    assert str(keep) == "last 3, within 7d12h, daily 7, weekly 4, labelled stable, labelled rc*"
    assert str(Keep()) == ""


@given(st.integers(1, 24 * 3650))
def test_a_duration_that_is_written_is_read_the_same(hours: int) -> None:
    assert parse_duration(duration_text(timedelta(hours=hours))) == timedelta(hours=hours)


@given(st.text())
def test_reading_a_time_never_fails(text: str) -> None:
    found = read_time(text)
    assert found is None or found.tzinfo is UTC


# properties -----------------------------------------------------------------------------------------

times = st.one_of(
    st.integers(-24 * 3000, 24 * 5000).map(
        lambda hours: (NOW + timedelta(hours=hours)).isoformat()
    ),
    st.sampled_from(["", "yesterday", "2026-05-10T11:00:00", "2026-05-10T01:00:00+14:00"]),
)
reasons = st.lists(st.sampled_from(["served", "held", "in use"]), max_size=2, unique=True)
labels = st.lists(st.sampled_from(["stable", "canary", "rc1"]), max_size=2, unique=True)
one_candidate = st.builds(
    Candidate,
    version=st.integers(1, 40),
    created=times,
    size=st.integers(0, 10),
    bad=st.booleans(),
    labels=labels.map(tuple),
    protected=reasons.map(tuple),
)
candidates_lists = st.lists(one_candidate, max_size=12, unique_by=lambda one: one.version)
policies = st.builds(
    Keep,
    last=st.integers(0, 5),
    within=st.none() | st.integers(1, 24 * 4000).map(lambda hours: timedelta(hours=hours)),
    daily=st.integers(0, 5),
    weekly=st.integers(0, 5),
    labelled=st.lists(st.sampled_from(["stable", "rc*", "*"]), max_size=1).map(tuple),
).filter(bool)


@given(candidates_lists, policies, st.randoms())
def test_each_version_gets_one_decision_with_a_reason_in_any_order(
    candidates: list[Candidate], keep: Keep, random: object
) -> None:
    decided = decide(candidates, keep, now=NOW)
    numbers = [one.version for one in decided]
    assert numbers == sorted((one.version for one in candidates), reverse=True)
    assert all(one.reasons for one in decided)
    random.shuffle(candidates)  # type: ignore[attr-defined]
    assert decide(candidates, keep, now=NOW) == decided


@given(candidates_lists, policies)
def test_what_is_protected_never_goes(candidates: list[Candidate], keep: Keep) -> None:
    stays = set(kept(candidates, keep))
    assert {one.version for one in candidates if one.protected} <= stays


@given(candidates_lists, policies)
def test_the_last_good_versions_never_go(candidates: list[Candidate], keep: Keep) -> None:
    good = sorted((one.version for one in candidates if not one.bad), reverse=True)
    assert set(good[: keep.last]) <= set(kept(candidates, keep))


@given(candidates_lists, policies)
def test_pruning_again_takes_nothing_more(candidates: list[Candidate], keep: Keep) -> None:
    stays = set(kept(candidates, keep))
    left = [one for one in candidates if one.version in stays]
    assert set(kept(left, keep)) == stays


@given(candidates_lists, policies, policies)
def test_another_rule_never_makes_more_go(
    candidates: list[Candidate], keep: Keep, more: Keep
) -> None:
    both = Keep(
        last=max(keep.last, more.last),
        within=max((one for one in (keep.within, more.within) if one), default=None),
        daily=max(keep.daily, more.daily),
        weekly=max(keep.weekly, more.weekly),
        labelled=(*keep.labelled, *more.labelled),
    )
    assert set(kept(candidates, keep)) | set(kept(candidates, more)) <= set(kept(candidates, both))


@given(candidates_lists, policies, st.integers(0, 24 * 5000))
def test_a_clock_that_runs_ahead_never_makes_a_version_old_that_the_newest_does_not(
    candidates: list[Candidate], keep: Keep, hours: int
) -> None:
    past = [one for one in candidates if (at := read_time(one.created)) and at <= NOW]
    later = NOW + timedelta(hours=hours)
    assert kept(past, keep, now=later) == kept(past, keep)
