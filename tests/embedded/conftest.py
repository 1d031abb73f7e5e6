"""A server core that tests drive step by step: real files, a fake runtime, no TensorFlow, no threads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.embedded.config import ModelEntry, ServerConfig
from servingrepo.embedded.core import ServerCore, Settings
from servingrepo.embedded.harness import Retries
from servingrepo.embedded.manager import Manager
from servingrepo.embedded.runtime import ModelLoader
from servingrepo.embedded.states import Event, EventBus, Waiter
from servingrepo.embedded.status import Code, Status
from tests.embedded.server_process import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from servingrepo.embedded.source import VersionSource
    from servingrepo.embedded.versions import VersionPolicy

ROUNDS = 30


class HangsError(Exception):
    """The server would wait for ever."""


class FakeSession:
    """What the fake runtime loads: the text of the version's saved_model.pb."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = False
        self.signatures: dict[str, Any] = {}

    def decode(self, proto: Any) -> Any:
        return proto

    def run(self, feeds: Any, fetches: Any, *, timeout_ms: int) -> Status:
        return Status(Code.UNIMPLEMENTED, f"{feeds} {fetches} {timeout_ms}")

    def close(self) -> None:
        self.closed = True


class FakeRuntime:
    """Loads a text; one that starts with `broken` fails to load."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.sessions: list[FakeSession] = []

    def load(self, path: str, tags: Sequence[str]) -> FakeSession | Status:
        assert list(tags) == ["serve"]
        text = Path(path, "saved_model.pb").read_text()
        self.attempts.append("/".join(path.split("/")[-2:]))
        if text.startswith("broken"):
            return Status(Code.DATA_LOSS, text)
        self.sessions.append(FakeSession(text))
        return self.sessions[-1]


class Bench:
    """One server core and its disk; `turn` is what a second does to it."""

    def __init__(
        self, base: Path, *, retries: int = 0, labels_for_unavailable: bool = False
    ) -> None:
        self.base = base
        self.runtime = FakeRuntime()
        self.events: list[Event] = []
        self.sleeps: list[Callable[[], object]] = []
        self.slept = 0
        self.before_wait: Callable[[], object] = lambda: None
        self.source: VersionSource | None = None
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.manager = Manager(
            ModelLoader(self.runtime), bus, retries=Retries(retries, 60.0, self._sleep)
        )
        settings = Settings(
            wait=self._wait,
            start_polling=self._start_polling,
            initial_load_threads=0,
            labels_for_unavailable=labels_for_unavailable,
        )
        self.core = ServerCore(self.manager, bus, settings)

    def entry(self, name: str, *, policy: VersionPolicy | None = None, **fields: Any) -> ModelEntry:
        fields = {"platform": "tensorflow", "base_path": str(self.base / name)} | fields
        if policy is not None:
            fields["policy"] = policy
        return ModelEntry(name=name, **fields)

    def reload(self, *models: str | ModelEntry) -> Status:
        entries = [self.entry(one) if isinstance(one, str) else one for one in models]
        return self.core.reload(ServerConfig("list", tuple(entries)))

    def put(self, path: str, text: str = "good") -> None:
        (self.base / path).mkdir(parents=True, exist_ok=True)
        (self.base / path / "saved_model.pb").write_text(text)

    def delete(self, path: str) -> None:
        shutil.rmtree(self.base / path)

    def poll(self) -> None:
        assert self.source is not None
        self.source.poll()

    def turn(self, number: int = 1) -> None:
        """Poll, then tick until nothing is left to do; as often as `number` says."""
        for _ in range(number):
            self.poll()
            self.settle()

    def settle(self) -> None:
        """Tick until nothing is left to do: ticks come ten times as often as polls."""
        for _ in range(ROUNDS):
            if self.manager.tick() is None:
                return
        raise HangsError

    def states(self, name: str) -> dict[int, str]:
        return {event.id.version: event.state.name for event in self.core.monitor.versions(name)}

    def failure(self, name: str, version: int) -> Status:
        event = self.core.monitor.version(name, version)
        assert event is not None
        return event.health

    def answers(self, name: str, version: int | None = None) -> int | None:
        """Return the version that answers, or None."""
        found = self.core.find(name, version=version)
        if isinstance(found, Status):
            assert found.code is Code.NOT_FOUND
            return None
        with found as handle:
            return handle.id.version

    def history(self, name: str) -> list[tuple[int, str]]:
        return [(one.id.version, one.state.name) for one in self.events if one.id.name == name]

    def _start_polling(self, source: VersionSource) -> Callable[[], None]:
        self.source = source
        return lambda: None

    def _wait(self, waiter: Waiter) -> None:
        self.before_wait()
        for _ in range(ROUNDS):
            if waiter.done:
                return
            self.settle()
            if not waiter.done:
                self.poll()
        raise HangsError

    def _sleep(self, seconds: float) -> None:
        assert seconds == 60.0
        self.slept += 1
        if self.sleeps:
            self.sleeps.pop(0)()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(**options: Any) -> Bench:
        return Bench(tmp_path, **options)

    return make


@pytest.fixture
def hangs() -> type[HangsError]:
    return HangsError


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*models: str, flags: tuple[str, ...] = (), rest: bool = False) -> Server:
        started.append(Server(tmp_path, *models, flags=flags, rest=rest))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
