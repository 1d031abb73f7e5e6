"""Constant load while servers are switched, and requests in flight."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pytest

import servingrepo
from servingrepo.errors import ServingRepoError, SwitchFailed
from servingrepo.protos import predict_pb2, types_pb2
from servingrepo.servers.client import ServingClient
from tests.fleet.test_switch import loaded
from tests.support import live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf

CHANGES = int(os.environ.get("SERVINGREPO_LOAD_CHANGES", "6"))
SHORT = CHANGES <= 6


class Load:
    """Clients that ask one server each, over and over, in three ways: unlabelled, pinned and by label."""

    def __init__(self, endpoints: list[Endpoint], *, clients: int) -> None:
        self.failures: list[str] = []
        self.wrong: list[str] = []
        self.answers = 0
        self.allowed: dict[str, set[int]] = {}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(endpoints[n % len(endpoints)], n), daemon=True)
            for n in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, endpoint: Endpoint, number: int) -> None:
        how = ("unlabelled", "stable", "pinned")[number % 3]
        with ServingClient(endpoint) as client:
            while not self._stop.is_set():
                # What may answer: what was allowed when the request left or when its answer came.
                before = self.allowed[how]
                try:
                    version, value = _ask(client, how)
                except ServingRepoError as error:
                    self.failures.append(f"{how}: {error.message}")
                    continue
                self.answers += 1
                if version not in before | self.allowed[how] or value != float(version):
                    self.wrong.append(f"{how}: version {version} said {value}, not {before}")


def _ask(client: ServingClient, how: str) -> tuple[int, float]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    if how == "stable":
        request.model_spec.version_label = "stable"
    if how == "pinned":
        request.model_spec.version.value = 1
    tensor = request.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(0.0)
    reply = client.predict(request, timeout=20)
    return reply.model_spec.version.value, reply.outputs["y"].float_val[0]


@pytest.mark.timeout(60 + 20 * CHANGES)
def test_no_request_fails_while_promotions_labels_and_rollbacks_go_on(tmp_path: Path) -> None:
    """Version N answers N, so every answer says by itself whether it is the right one.

    SERVINGREPO_LOAD_CHANGES=50 is the long form: make load.
    """
    repo = servingrepo.init(tmp_path / "serving", server_root=str(tmp_path / "serving" / "models"))[
        0
    ]
    repo.promote(run_with(tmp_path / "r1", offset=1.0), model="half", smoke=False)
    repo.label_set("half@1", "keep")
    repo.label_set("half@1", "stable")
    count = 2 if SHORT else 3
    with ExitStack() as stack:
        servers = [
            stack.enter_context(live_server(repo, log=tmp_path / f"log{n}")) for n in range(count)
        ]
        load = Load(servers, clients=8)
        load.allowed = {"unlabelled": {1}, "stable": {1}, "pinned": {1}}
        with load:
            for number in range(CHANGES):
                _change(repo, load, servers, number, tmp_path)
    assert not load.wrong, load.wrong[:5]
    assert not load.failures, load.failures[:5]
    assert load.answers > 50


def _change(
    repo: OpenRepository,
    load: Load,
    servers: list[Endpoint],
    number: int,
    folder: Path,
) -> None:
    """Promote, move the label, or roll back, and say to the load what may be answered meanwhile and after."""
    row = repo.status().models[0]
    served, stable = row.served or 0, row.labels["stable"]
    kind = ("promote", "label", "rollback")[number % 3]
    if kind == "promote":
        new = max(row.on_disk) + 1
        load.allowed["unlabelled"] = {served, new}
        repo.promote(
            run_with(folder / f"r{new}", offset=float(new)),
            model="half",
            smoke=False,
            endpoints=servers,
        )
        load.allowed["unlabelled"] = {new}
    elif kind == "label":
        load.allowed["stable"] = {stable, served}
        repo.label_set(f"half@{served}", "stable", endpoints=servers)
        load.allowed["stable"] = {served}
    else:
        lower = [one for one in row.on_disk if one < served]
        target = lower[number % len(lower)]
        load.allowed |= {"unlabelled": {served, target}, "stable": {stable, target}}
        repo.rollback("half", to=target, mark_bad=False, endpoints=servers)
        load.allowed |= {
            "unlabelled": {target},
            "stable": {target if stable == served or stable > target else stable},
        }


@pytest.mark.parametrize(("wait", "ends_with"), [(30, 2), (2, 1)])
def test_a_switch_with_a_long_request_in_flight_ends_in_new_or_old_and_the_request_is_answered(
    tmp_path: Path, conformance: Path, wait: int, ends_with: int
) -> None:
    """A request holds up loads and unloads (fast_read_dynamic_ptr.h): the new version stays in LOADING."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(conformance / "corpus" / "slow", model="half", smoke=False)
    other = run_with(tmp_path / "b", offset=3.0)
    repo.promote(other, model="half", smoke=False, serve=False, allow_breaking=True)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["seconds"].dtype = types_pb2.DT_DOUBLE
    request.inputs["seconds"].double_val.append(6)
    answered: list[int] = []
    with live_server(repo, log=tmp_path / "log") as endpoint, ServingClient(endpoint) as client:

        def run() -> None:
            reply = client.predict(request, timeout=60)
            answered.append(reply.model_spec.version.value)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        time.sleep(0.5)
        if ends_with == 1:
            with pytest.raises(SwitchFailed, match="back where it was: half serves 1"):
                repo.serve("half@2", endpoints=[endpoint], wait=wait)
        else:
            repo.serve("half@2", endpoints=[endpoint], wait=wait)
        thread.join(60)
        assert answered == [1]
        assert client.metadata("half", timeout=5).version == ends_with
        assert repo.status(endpoints=[endpoint], wait=10).ok
        assert loaded(endpoint) == {ends_with}
