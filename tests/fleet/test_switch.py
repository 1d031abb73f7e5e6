from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import (
    ConfigInvalid,
    EndpointUnreachable,
    NotConverged,
    NothingToRollBack,
    RequestRefused,
    ServerTimeout,
    SwitchFailed,
    VersionBad,
    VersionDamaged,
)
from servingrepo.modelconfig import pin
from servingrepo.repository.config import pins, read_config, write_config
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.processes import free_port
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import Served
from tests.support import ask, command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf


def two_versions(tmp_path: Path) -> OpenRepository:
    """Publish x/2+2 as version 1, served, and x/2+3 as version 2, not served."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False, serve=False)
    return repo


def loaded(endpoint: Endpoint) -> set[int]:
    with ServingClient(endpoint) as client:
        states = client.status("half", timeout=5)
    return {one.version for one in states if one.state == "AVAILABLE"}


def test_serve_and_rollback_with_an_endpoint_switch_it_and_the_file(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        assert ask(endpoint) == (1, 2.0)
        up = repo.serve("half@2", endpoints=[endpoint], wait=30)
        assert (up.before, up.after) == ((1,), (2,))
        assert ask(endpoint) == (2, 3.0)
        assert loaded(endpoint) == {2}
        down = repo.rollback("half", endpoints=[str(endpoint)], wait=30, message="off")
        assert (down.served_before, down.served_after, down.marked_bad) == (2, 1, 2)
        assert ask(endpoint) == (1, 2.0)
        assert loaded(endpoint) == {1}
        assert repo.status(endpoints=[endpoint]).ok
    assert pins(read_config(repo.value).config, "half") == (1,)
    with pytest.raises(VersionBad):
        repo.serve("half@2")


def test_a_switch_under_constant_requests_fails_none_and_answers_old_or_new(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        answers: list[tuple[int, float]] = []
        failures: list[BaseException] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    answers.append(ask(endpoint))
                except BaseException as error:  # noqa: BLE001 - any failure is the test's
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            repo.serve("half@2", endpoints=[endpoint], wait=30)
            repo.rollback("half", endpoints=[endpoint], wait=30, mark_bad=False)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
    assert not failures
    assert set(answers) == {(1, 2.0), (2, 3.0)}


def test_serve_when_the_server_cannot_load_it_puts_everything_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    variables = run_with(tmp_path / "c", offset=4.0, assets={"words.txt": b"a\n"})
    repo.promote(variables, model="half", smoke=False, serve=False)
    # What a server sees may differ from what was verified: here the bytes change, the sizes stay.
    graph = tmp_path / "serving/models/half/3/saved_model.pb"
    graph.write_bytes(bytes(len(graph.read_bytes())))
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(SwitchFailed, match="back where it was: half serves 1") as failed:
            repo.serve("half@3", endpoints=[endpoint], wait=30)
        assert failed.value.details["put_back"] is True
        assert ask(endpoint) == (1, 2.0)
        assert loaded(endpoint) == {1}
        assert repo.status(endpoints=[endpoint]).ok
    assert pins(read_config(repo.value).config, "half") == (1,)
    assert [event.action for event in repo.history("half")] == ["promote"] * 3


def test_serve_when_the_endpoint_is_down_changes_nothing(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    text = repo.value.layout.config.read_bytes()
    with pytest.raises(EndpointUnreachable, match="no TensorFlow Serving answers"):
        repo.serve("half@2", endpoints=[f"127.0.0.1:{free_port()}"], wait=3)
    assert repo.value.layout.config.read_bytes() == text
    assert not list(repo.value.layout.journal.iterdir())


def test_reload_when_the_server_does_not_see_a_base_path_ends_in_time_and_says_so(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        # Not below our server root, so not to be checked from here: as when mounts differ.
        config = pin(
            read_config(repo.value).config,
            name="other",
            base_path=str(tmp_path / "nowhere"),
            versions=[1],
        )
        write_config(repo.value, config)
        begun = time.monotonic()
        with pytest.raises(ServerTimeout, match="may still carry it out later"):
            repo.reload(endpoints=[endpoint], wait=2)
        assert time.monotonic() - begun < 15
        assert ask(endpoint) == (1, 2.0)


def test_rollback_moves_the_labels_of_the_version_it_leaves(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    config = pin(
        read_config(repo.value).config,
        name="half",
        base_path=repo.value.base_path("half"),
        versions=[1, 2],
        labels={"canary": 2, "stable": 1},
    )
    write_config(repo.value, config)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        assert ask(endpoint, label="canary")[0] == 2
        done = repo.rollback("half", to=1, endpoints=[endpoint], wait=30)
        assert done.labels == {"canary": 1, "stable": 1}
        assert done.after == (1,)
        assert ask(endpoint) == (1, 2.0)
        assert ask(endpoint, label="canary")[0] == 1
        assert ask(endpoint, label="stable")[0] == 1


def test_unserve_with_an_endpoint_unloads_the_model(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        done = repo.unserve("half", endpoints=[endpoint], wait=30)
        assert (done.before, done.after) == ((1,), ())
        with pytest.raises(RequestRefused, match="Servable not found"):
            ask(endpoint)
        back = repo.serve("half@1", endpoints=[endpoint], wait=30)
        assert back.after == (1,)
        assert ask(endpoint) == (1, 2.0)


def test_promote_with_an_endpoint_ends_with_the_new_version_answering(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        done = repo.promote(
            run_with(tmp_path / "c", offset=4.0),
            model="half",
            engine="embedded",
            endpoints=[endpoint],
            wait=30,
        )
        assert (done.version, done.before, done.after) == (3, (1,), (3,))
        assert ask(endpoint) == (3, 4.0)
    assert list(repo.history("half"))[-1].endpoints == (str(endpoint),)


def test_reload_brings_a_server_that_drifted_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        repo.serve("half@2")
        status = repo.status(endpoints=[endpoint])
        assert not status.ok
        assert status.next == f"servingrepo reload --endpoint {endpoint}"
        repo.reload(endpoints=[endpoint], wait=30)
        assert ask(endpoint) == (2, 3.0)
        assert repo.status(endpoints=[endpoint], wait=5).ok


def test_status_explains_a_version_that_failed_on_the_server(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        graph = tmp_path / "serving/models/half/2/saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:50])
        config = pin(
            read_config(repo.value).config,
            name="half",
            base_path=repo.value.base_path("half"),
            versions=[2],
        )
        write_config(repo.value, config)
        with ServingClient(endpoint) as client:
            client.reload(config.proto, timeout=10)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            status = repo.status(endpoints=[endpoint])
            if any("failed to load" in str(line) for row in status.models for line in row.drift):
                break
            time.sleep(0.2)
        assert any("failed to load" in str(line) for row in status.models for line in row.drift)
        assert status.next.startswith("servingrepo rollback half")
        shown = command("--root", repo.root, "status", "--endpoint", str(endpoint))
        assert shown.code == NotConverged.exit_code
        assert "failed to load" in shown.err


def test_rollback_passes_over_bad_and_missing_versions(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number in range(1, 5):
        repo.promote(
            run_with(tmp_path / f"r{number}", offset=float(number)), model="half", smoke=False
        )
    repo.mark_bad("half@3")
    (tmp_path / "serving/models/half/2").rename(tmp_path / "gone")
    done = repo.rollback("half")
    assert (done.served_before, done.served_after) == (4, 1)
    with pytest.raises(NothingToRollBack):
        repo.rollback("half")


def test_rollback_when_the_target_lost_a_file_is_refused(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(
        run_with(tmp_path / "a", offset=2.0, assets={"words.txt": b"a\n"}),
        model="half",
        smoke=False,
    )
    repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False)
    (tmp_path / "serving/models/half/1/assets/words.txt").unlink()
    with pytest.raises(VersionDamaged) as refused:
        repo.rollback("half")
    assert refused.value.problems == ("missing: assets/words.txt",)
    assert pins(read_config(repo.value).config, "half") == (2,)


def test_rollback_twice_without_bad_marks_goes_there_and_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    assert repo.rollback("half", mark_bad=False).served_after == 1
    assert repo.rollback("half", mark_bad=False).served_after == 2


def test_smoke_of_a_version_with_a_bad_signature_names_it(tmp_path: Path) -> None:
    run = run_with(
        tmp_path / "a",
        offset=2.0,
        signatures=[Served(), Served(key="broken", fault="uninitialized")],
    )
    done = command("smoke", f"{run}/", "--engine", "embedded")
    assert done.code == 70
    assert "broken" in done.err
    assert "serving_default: passed" in done.out


def with_fault(repo: OpenRepository, plan: str) -> OpenRepository:
    """Open the repository so that a step of its next command fails."""
    return servingrepo.open(repo.root, disk=Disk(faults=Faults.parse(plan)))


@pytest.mark.parametrize("step", ["c2.after-rename@1", "switch.after-c2"])
def test_a_fault_after_the_file_changed_puts_file_server_and_label_back(
    tmp_path: Path, step: str
) -> None:
    repo = two_versions(tmp_path)
    config = pin(
        read_config(repo.value).config,
        name="half",
        base_path=repo.value.base_path("half"),
        versions=[2],
        labels={"stable": 2},
    )
    write_config(repo.value, config)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(SwitchFailed, match="back where it was: half serves 2"):
            with_fault(repo, f"{step}=EIO").rollback("half", to=1, endpoints=[endpoint], wait=30)
        assert pins(read_config(repo.value).config, "half") == (2,)
        assert ask(endpoint) == (2, 3.0)
        assert ask(endpoint, label="stable") == (2, 3.0)
        assert repo.status(endpoints=[endpoint], wait=5).ok
    assert repo.show("half").versions[0].bad is None


def test_a_promotion_whose_switch_failed_is_finished_when_it_is_repeated(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    run = run_with(tmp_path / "c", offset=4.0)
    down = f"127.0.0.1:{free_port()}"
    with pytest.raises(EndpointUnreachable, match="but not served") as caught:
        repo.promote(run, model="half", smoke=False, endpoints=[down], wait=2)
    assert not any("published" in one for one in caught.value.problems), "it is said once"
    with pytest.raises(EndpointUnreachable):
        repo.promote(run, model="half", smoke=False, endpoints=[down], wait=2)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        done = repo.promote(run, model="half", smoke=False, endpoints=[endpoint], wait=30)
        assert (done.version, done.same_as, done.served, done.after) == (3, 3, True, (3,))
        assert ask(endpoint) == (3, 4.0)


def test_serve_with_an_endpoint_is_refused_when_another_entry_would_hang_the_server(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        config = pin(
            read_config(repo.value).config,
            name="other",
            base_path=repo.value.base_path("other"),
            versions=[1],
        )
        write_config(repo.value, config)
        with pytest.raises(ConfigInvalid, match="would refuse the config"):
            repo.serve("half@2", endpoints=[endpoint], wait=5)
        assert ask(endpoint) == (1, 2.0)
