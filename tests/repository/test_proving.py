"""What a proof says of its server, and when."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import servingrepo
from servingrepo.errors import EngineUnavailable, ServerTimeout
from servingrepo.repository.proving import Trial, prove, smoking
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.servers.engines.binary import BinaryEngine
from servingrepo.servers.engines.docker import DockerEngine
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.servers.engines.processes import free_port
from servingrepo.servers.engines.remote import RemoteEngine
from servingrepo.servers.states import Endpoint
from servingrepo.storage.lock import hold_lock, this_process
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servingrepo.servers.engines.choice import Engine
    from servingrepo.servers.engines.processes import RunningServer


def _written_by(path: Path, version: bytes) -> Path:
    export = write_export(path)
    graph = export / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"2.19.1", version))
    return export


def _prove(engine: Engine, export: Path, heard: list[str]) -> None:
    prove(
        engine,
        Trial(model="m", version=1, export=export, inspection=inspect_export(export)),
        timeout=30,
        time="",
        notice=heard.append,
    )


@pytest.mark.tf
def test_prove_when_the_export_is_newer_than_the_server_says_so_and_goes_on(tmp_path: Path) -> None:
    heard: list[str] = []
    _prove(EmbeddedEngine(), _written_by(tmp_path / "export", b"2.99.1"), heard)
    assert len(heard) == 1
    assert "TensorFlow 2.99.1 wrote it" in heard[0]
    heard.clear()
    _prove(EmbeddedEngine(), _written_by(tmp_path / "old", b"2.11.1"), heard)
    assert heard == []


def test_prove_says_it_before_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    heard: list[str] = []
    with pytest.raises(EngineUnavailable):
        _prove(
            DockerEngine(image="tensorflow/serving:2.12.1"),
            _written_by(tmp_path / "export", b"2.19.1"),
            heard,
        )
    assert len(heard) == 1
    assert "the server has 2.12" in heard[0]


def test_expected_version_is_none_where_nothing_tells(tmp_path: Path) -> None:
    assert DockerEngine(image="tensorflow/serving@sha256:00").expected_version() is None
    nobody = Endpoint.parse("localhost:1")
    remote: Engine = RemoteEngine(endpoint=nobody, models=tmp_path, server_root="/models")
    assert remote.expected_version() is None


def test_expected_version_of_a_binary_is_what_it_says(tmp_path: Path) -> None:
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(
        "#!/bin/sh\necho TensorFlow ModelServer: 2.18.1-rc1\necho TensorFlow Library: 2.18.0\n"
    )
    binary.chmod(0o755)
    assert BinaryEngine(path=str(binary)).expected_version() == (2, 18)


def test_a_smoke_test_settles_nothing_while_another_holds_the_lock(tmp_path: Path) -> None:
    """What it may have left on a server of somebody's own is written down under the lock, and settled under it."""
    opened, _ = servingrepo.init(tmp_path / "serving")
    opened.promote(write_export(tmp_path / "run"), model="m", smoke=False, serve=False)
    repo = msgspec.structs.replace(opened.value, lock_wait=0.0)
    nobody: Engine = RemoteEngine(
        endpoint=Endpoint("127.0.0.1", free_port()), models=tmp_path, server_root="/models"
    )
    layout = repo.layout
    with hold_lock(layout.lock, this_process("a test"), wait=0, what="it"):
        with smoking(repo, "m", 1, nobody) as txid:
            assert txid == "", "nothing can be written down, and the smoke test goes on"
        assert list(layout.journal.iterdir()) == []
    with (  # noqa: PT012 - the lock is taken in between
        hold_after(layout.lock) as hold,
        pytest.raises(ZeroDivisionError),
        smoking(repo, "m", 1, nobody),
    ):
        hold()
        raise ZeroDivisionError
    (left,) = layout.journal.iterdir()
    assert opened.recover()[0].command == "smoke"
    assert not left.exists()


@contextmanager
def hold_after(lock: Path) -> Iterator[Callable[[], object]]:
    """Give what takes the lock when it is called, and let go of it at the end of the block."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(
            hold_lock(lock, this_process("a test"), wait=0, what="it")
        )


class SlowToStop(EmbeddedEngine, frozen=True):
    """A server that takes its time to be taken down."""

    @contextmanager
    def serve(self, **how: Any) -> Iterator[RunningServer]:
        try:
            with EmbeddedEngine.serve(self, **how) as server:
                yield server
        finally:
            time.sleep(2.2)


def test_a_smoke_test_says_what_its_time_limit_does_not_count(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    with pytest.raises(ServerTimeout) as late:
        prove(
            SlowToStop(),
            Trial(model="m", version=1, export=export, inspection=inspect_export(export)),
            timeout=0.1,
            time="",
        )
    assert any("which --timeout does not count" in one for one in late.value.problems)
