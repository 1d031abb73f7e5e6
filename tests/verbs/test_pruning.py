from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import EndpointUnreachable
from servingrepo.repository.retention import Keep
from servingrepo.servers.engines.processes import free_port
from tests.support import live_server, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository


@pytest.fixture
def four(tmp_path: Path) -> OpenRepository:
    """A repository with four versions, the last one served."""
    repo = new_repository(tmp_path / "serving")
    for number in (1, 2, 3, 4):
        run = run_with(tmp_path / f"run{number}", offset=float(number))
        repo.promote(run, model="m", smoke=False)
    return repo


@pytest.mark.tf
def test_what_a_live_server_has_loaded_is_not_pruned(four: OpenRepository, tmp_path: Path) -> None:
    four.serve("m@1")
    with live_server(four, log=tmp_path / "server.log") as endpoint:
        four.serve("m@4")  # the server is not told
        done = four.prune("m", keep=Keep(last=1), endpoints=[endpoint], dry_run=True)
        reasons = {one.version: one.reasons for one in done.models[0].decisions}
        assert f"AVAILABLE on {endpoint}" in reasons[1]
        assert not reasons[2][0].startswith("AVAILABLE")
        four.serve("m@3")
        done = four.prune("m", keep=Keep(last=1), endpoints=[str(endpoint)])
        assert done.models[0].gone == (2,)
        assert [row.version for row in four.show("m").versions] == [4, 3, 1]


def test_an_endpoint_that_does_not_answer_stops_the_prune(four: OpenRepository) -> None:
    with pytest.raises(EndpointUnreachable, match="so nothing was pruned"):
        four.prune("m", keep=Keep(last=1), endpoints=[f"127.0.0.1:{free_port()}"])
    assert len(four.show("m").versions) == 4


def test_a_promotion_prunes_when_it_is_done(four: OpenRepository, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run5", offset=5.0)
    done = four.promote(run, model="m", smoke=False, keep=Keep(last=1))
    assert done.pruned is not None
    assert done.pruned.models[0].gone == (3, 2, 1)
    assert done.prune_failed == ""


def label_two(repo: OpenRepository) -> None:
    repo.label_set("m@2", "stable")


CASES: tuple[tuple[Any, int, dict[str, Any]], ...] = (
    (lambda _repo: None, 5, {}),
    (lambda _repo: None, 5, {"serve": False}),
    (lambda _repo: None, 1, {}),
    (lambda _repo: None, 1, {"serve": True}),
    (lambda repo: repo.hold("m"), 5, {}),
    (lambda repo: repo.rollback("m"), 5, {}),
    (lambda repo: repo.unserve("m"), 5, {"serve": False}),
    (label_two, 5, {}),
    (label_two, 1, {"serve": True}),
    (lambda _repo: None, 5, {"model": "new"}),
)


@pytest.mark.parametrize(("before", "offset", "options"), CASES)
def test_a_dry_run_says_exactly_what_the_prune_after_the_promotion_would_take(
    four: OpenRepository,
    tmp_path: Path,
    before: Callable[[OpenRepository], object],
    offset: int,
    options: dict[str, Any],
) -> None:
    before(four)
    run = run_with(tmp_path / f"run{offset}", offset=float(offset))
    promote = partial(four.promote, run, **{"model": "m", "smoke": False, **options})
    files = {path: path.read_bytes() for path in four.root.rglob("*") if path.is_file()}
    policies = (Keep(last=1), Keep(labelled=("gone",)), Keep(daily=1, last=2))
    promised = [promote(keep=keep, dry_run=True).pruned for keep in policies]
    assert files == {path: path.read_bytes() for path in four.root.rglob("*") if path.is_file()}
    promote()
    model = options.get("model", "m")
    assert promised == [four.prune(model, keep=keep, dry_run=True) for keep in policies]


def test_a_dry_run_says_why_the_prune_after_the_promotion_would_fail(
    four: OpenRepository, tmp_path: Path
) -> None:
    with four.value.layout.history.open("a") as history:
        history.write('{"model":"m"}\n')
    run = run_with(tmp_path / "run5", offset=5.0)
    dry = four.promote(run, model="m", smoke=False, keep=Keep(labelled=("x",)), dry_run=True)
    assert dry.pruned is None
    assert "history.jsonl" in dry.prune_failed
