"""What a stage comes to: go, stop, or inconclusive, by the requests that came."""

from __future__ import annotations

import json
import random
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import SwitchFailed
from servingrepo.fleet.rules import Rules
from servingrepo.fleet.verdicts import TOLERATED, lower_bound
from servingrepo.servers.metrics import Requests
from tests.fleet.test_fleet import answering, at, fleet_of
from tests.fleet.test_switch import two_versions
from tests.support import command, run_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from servingrepo.testing.fake_models import FakeModels

POINT = ':tensorflow:serving:request_count{{model_name="half",status="{}"}} {}\n'
Rate = dict[str, int]
"""How many requests come between two looks at a page, by status."""


@contextmanager
def metrics_pages(
    found: Sequence[FakeModels], rate: Callable[[int, bool], Rate]
) -> Iterator[tuple[str, list[Rate]]]:
    """Serve fake pages whose counters grow with every look; give their URL, and the counters.

    `rate` says by how much: from the server's place in the fleet, and whether it has version 2.
    """
    places = {f"/{one.port}": place for place, one in enumerate(at(found))}
    counters: list[Rate] = [{} for _ in found]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = places[self.path]
            pinned = found[place].reloads[-1].model_config_list.config[0].model_version_policy
            for status, count in rate(place, 2 in pinned.specific.versions).items():
                counters[place][status] = counters[place].get(status, 0) + count
            body = "".join(POINT.format(*one) for one in counters[place].items()).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{{port}}", counters
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Newcombe, Interval estimation for the difference between independent proportions (Statistics in Medicine 17,
# 1998), table II, method 6: both bounds of two-sided intervals at 95 %.
PUBLISHED = (
    ((56, 70), (48, 80), (0.0528, 0.3382)),
    ((9, 10), (3, 10), (0.1700, 0.8406)),
    ((6, 7), (2, 7), (0.0342, 0.8534)),
    ((5, 56), (0, 29), (-0.0326, 0.1933)),
    ((0, 10), (0, 20), (-0.1658, 0.2844)),
    ((0, 10), (0, 10), (-0.2879, 0.2879)),
    ((10, 10), (0, 20), (0.7156, 1.0)),
    ((10, 10), (0, 10), (0.6636, 1.0)),
)


@pytest.mark.parametrize(("one", "other", "interval"), PUBLISHED)
def test_the_bound_is_the_published_one(
    one: tuple[int, int], other: tuple[int, int], interval: tuple[float, float]
) -> None:
    stage, control = (Requests(count, errors) for errors, count in (one, other))
    low = lower_bound(stage, control, confidence=0.975)
    high = -lower_bound(control, stage, confidence=0.975)
    assert (round(low, 4), round(high, 4)) == interval


def test_a_version_that_is_as_good_is_seldom_called_worse() -> None:
    """At the tolerated difference itself the bound is too high in 5 % of all stages, and no more."""
    chance = random.Random(1)  # noqa: S311 - no secret
    alarms = 0
    rounds = 400
    for _ in range(rounds):
        errors = [
            sum(chance.random() < rate for _ in range(400)) for rate in (0.02 + TOLERATED, 0.02)
        ]
        stage, control = (Requests(400, count) for count in errors)
        alarms += lower_bound(stage, control, confidence=0.95) > TOLERATED
    assert alarms <= rounds * 0.09
    assert alarms >= rounds * 0.02


def staged(found: Sequence[FakeModels], url: str, **more: object) -> Rules:
    return Rules(first=(str(at(found)[0]),), watch=1, metrics_url=url, **more)  # type: ignore[arg-type]


def test_a_stage_with_too_few_requests_goes_back(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    with metrics_pages(found, lambda place, _: {"OK": 400} if place else {}) as (url, _):
        rules = staged(found, url)
        with pytest.raises(SwitchFailed, match="inconclusive: too few requests") as failed:
            repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
        assert "--allow-inconclusive" in (failed.value.hint or "")
        assert [answering(one) for one in at(found)] == [1, 1]
        (event,) = repo.history("half", limit=1)
        assert (event.action, event.before, event.after) == ("stage-stopped", (1,), (1,))
        assert [one.verdict for one in event.stages] == ["inconclusive"]
        assert repo.status().ok

        rules = staged(found, url, allow_inconclusive=True)
        done = repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
    assert [one.verdict for one in done.stages] == ["inconclusive", "go"]
    assert [answering(one) for one in at(found)] == [2, 2]
    assert list(repo.history("half"))[-1].stages == done.stages


def test_one_error_in_one_request_stops_nobody_by_itself(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)

    def rate(place: int, _has_it: bool) -> Rate:
        return {"OK": 400} if place else {"INTERNAL": 1}

    with metrics_pages(found, rate) as (url, _), pytest.raises(SwitchFailed, match="too few"):
        repo.serve("half@2", endpoints=at(found), rules=staged(found, url), wait=10)
    few = lower_bound(Requests(100, 1), Requests(100, 0), confidence=0.95)
    assert few < TOLERATED


def test_the_last_stage_is_compared_with_its_own_servers_before(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)

    def rate(place: int, has_it: bool) -> Rate:
        return {"OK": 300, "INTERNAL": 60 if has_it and place else 0}

    with metrics_pages(found, rate) as (url, _):
        done = command(
            *("--root", repo.root, "--json", "serve", "half@2", "--metrics-url", url),
            *("--first", str(at(found)[0]), "--watch-for", "1"),
            *(part for one in at(found) for part in ("--endpoint", str(one))),
        )
    assert done.code == SwitchFailed.exit_code, done.out
    assert "fails too often" in json.loads(done.out)["error"]["message"]
    assert [answering(one) for one in at(found)] == [1, 1]
    (event,) = repo.history("half", limit=1)
    first, last = event.stages
    assert (first.verdict, first.control) == ("go", "the servers without it")
    assert (last.verdict, last.control) == ("stop", "the same servers before it")
    assert last.endpoints == (str(at(found)[1]),)
    assert last.control_requests >= 300
    assert last.control_errors == 0
    assert (last.lower_bound or 0) > TOLERATED


def test_a_single_stage_is_compared_with_the_time_before(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 1)

    def rate(_place: int, has_it: bool) -> Rate:
        return {"OK": 300, "INTERNAL": 60 if has_it else 1}

    with metrics_pages(found, rate) as (url, counters):
        counters[0]["INTERNAL"] = 10**6  # of an old incident: not what it is compared with
        rules = Rules(watch=1, metrics_url=url)
        with pytest.raises(SwitchFailed, match="fails too often"):
            repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
    assert [answering(one) for one in at(found)] == [1]


def test_errors_beyond_doubt_end_a_stage_early(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)

    def rate(_place: int, has_it: bool) -> Rate:
        return {"OK": 300, "INTERNAL": 300 if has_it else 0}

    with metrics_pages(found, rate) as (url, _):
        rules = Rules(first=(str(at(found)[0]),), watch=600, metrics_url=url)
        with pytest.raises(SwitchFailed, match="fails too often"):
            repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
    assert [answering(one) for one in at(found)] == [1, 1]


def test_requests_that_a_full_server_turned_away_are_counted_apart(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)

    def rate(_place: int, has_it: bool) -> Rate:
        return {"OK": 300, "RESOURCE_EXHAUSTED": 200 if has_it else 0}

    with metrics_pages(found, rate) as (url, _):
        done = repo.serve("half@2", endpoints=at(found), rules=staged(found, url), wait=10)
    assert [one.verdict for one in done.stages] == ["go", "go"]
    assert done.stages[0].exhausted >= 200
    assert done.stages[0].errors == 0
    assert "met a full server" in str(done.stages[0])


def test_metrics_that_cannot_be_read_are_inconclusive(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    url = "http://127.0.0.1:9/{port}"
    with pytest.raises(SwitchFailed, match="inconclusive: errors were not judged: no metrics at"):
        repo.serve("half@2", endpoints=at(found), rules=staged(found, url), wait=10)
    rules = staged(found, url, allow_inconclusive=True)
    done = repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
    assert {one.verdict for one in done.stages} == {"inconclusive"}


def test_a_stage_without_metrics_says_what_was_not_checked(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    rules = Rules(first=(str(at(found)[0]),))
    done = repo.serve("half@2", endpoints=at(found), rules=rules, wait=10)
    assert [str(one) for one in done.stages] == ["go: errors not checked"]


def test_a_promotion_keeps_the_verdicts_of_its_stages(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    with metrics_pages(found, lambda _place, _has_it: {"OK": 5}) as (url, _):
        done = command(
            *("--root", repo.root, "promote", run_with(tmp_path / "c", offset=4.0)),
            *("--model", "half", "--no-smoke", "--metrics-url", url, "--watch-for", "0"),
            *("--first", str(at(found)[0]), "--allow-inconclusive"),
            *(part for one in at(found) for part in ("--endpoint", str(one))),
        )
    assert done.code == 0, done.err
    assert "stage 1" in done.out
    assert "inconclusive: too few requests" in done.out
    (event,) = repo.history("half", limit=1)
    assert [one.verdict for one in event.stages] == ["inconclusive", "inconclusive"]
    listed = command("--root", repo.root, "history", "half", "-n", "1")
    assert "stage 1: inconclusive" in listed.out
