"""Every phase of a switch with one server of two in trouble: the fleet ends in the old or the new state.

The command is the real one, in a process of its own. A failpoint stops it at a step, the trouble begins, and it goes
on. SERVINGREPO_PHASES=all is the whole table: make phases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest

from servingrepo.errors import EndpointUnreachable, NotConverged, ServingRepoError, SwitchFailed
from servingrepo.modelconfig import entry
from servingrepo.repository.config import read_config
from servingrepo.servers.client import ServingClient
from tests.fleet.trouble import Proxy, busy, hung, slowed, stuttering
from tests.support import command, new_repository, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf

STEPS = (
    "intent.done",
    "switch.gathered",
    "switch.stage-told",
    "switch.stage-proven",
    "switch.stage-loaded",
    "switch.before-c2",
    "switch.after-c2",
    "switch.drop-told",
    "switch.dropped",
)
"""The phases of a change on live servers, in their order."""

Serves = tuple[int, int, frozenset[int]]
"""What a server serves: the version that answers without a label, that under the label, and all that are loaded."""


class Change(msgspec.Struct, frozen=True):
    """One command: where it starts, what it asks for, where it ends if all goes well, and its steps."""

    arguments: tuple[str, ...]
    old: int
    new: int
    steps: tuple[str, ...] = STEPS


CHANGES = {
    "up": Change(("label", "set", "half@2", "stable", "--serve"), old=1, new=2),
    "down": Change(("rollback", "half", "--to", "1", "--no-mark-bad"), old=2, new=1),
    "down in stages": Change(
        ("rollback", "half", "--to", "1", "--no-mark-bad", "--first", "{b}"),
        old=2,
        new=1,
        # The other server's stage comes after the troubled one's.
        steps=(
            *STEPS[:5],
            "switch.stage-dropped",
            *(f"{step}@2" for step in STEPS[2:5]),
            "switch.stage-dropped@2",
            *STEPS[5:],
        ),
    ),
    "up, and back": Change(
        ("label", "set", "half@3", "stable", "--serve"), old=1, new=1, steps=("switch.going-back",)
    ),
}
"""The changes; the last one asks for a version that no server can load."""

TROUBLES = ("killed", "hung", "hung for a while", "stuttering", "slow", "too slow", "busy")
"""What may happen to one server, `Fleet.trouble` does it."""

WHOLE = os.environ.get("SERVINGREPO_PHASES") == "all"
MINUTE = 60.0 if WHOLE else 2.0
"""How long a request is in flight."""

WAIT = 8 if WHOLE else 4
"""Seconds that the servers have for a change."""

SHORT = [
    ("up", "switch.stage-told", "busy"),
    ("up", "switch.drop-told", "slow"),
    ("up", "switch.after-c2", "hung for a while"),
    ("down in stages", "switch.stage-dropped@2", "killed"),
]
ALL = [
    (change, step, trouble)
    for change, one in CHANGES.items()
    for step in one.steps
    for trouble in TROUBLES
    if change in {"up", "up, and back"} or trouble in {"killed", "hung for a while", "slow"}
]


class Fleet:
    """Two servers of one repository: one is well, and one, reached through a proxy, gets into trouble."""

    def __init__(self, folder: Path, slow: Path) -> None:
        self.repo, self._folder = _three_versions(folder, slow), folder
        self._stack, self._logs = ExitStack(), 0

    def __enter__(self) -> Self:
        self.well, _ = self._start(None)
        self.troubled, self.process = self._start(None)
        self.proxy = self._stack.enter_context(Proxy(self.troubled.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        """Where clients reach both."""
        return self.well, self.proxy.endpoint

    def _start(self, port: int | None) -> tuple[Endpoint, subprocess.Popen[bytes]]:
        self._logs += 1
        log = self._folder / f"{self._logs}.log"
        return self._stack.enter_context(running_server(self.repo, log=log, port=port))

    def heal(self) -> None:
        """Start the troubled server again if it is dead, with what models.config says."""
        if self.process.poll() is not None:
            self.troubled, self.process = self._start(self.troubled.port)

    def begin(self, version: int) -> None:
        """Have file and servers at a version, with its label."""
        self.heal()
        self.repo.serve(f"half@{version}")
        self.repo.label_set(f"half@{version}", "stable")
        self.repo.reload(endpoints=self.endpoints, wait=30)
        assert self.serve() == [_all(version)] * 2

    def config(self) -> int | None:
        """Return what models.config pins, if it is one version with its label."""
        found = entry(read_config(self.repo.value).config, "half")
        assert found is not None
        (version,) = {*found.versions, *found.labels.values()}
        return version

    def serve(self) -> list[Serves | None]:
        """Return what both serve; None for one that does not answer."""
        return [_serves(one) for one in self.endpoints]

    def run(self, *arguments: str, step: str) -> subprocess.Popen[str]:
        """Start a command on both, and wait until it has stopped at a step."""
        number = step if "@" in step else f"{step}@1"
        b = str(self.proxy.endpoint)
        endpoints = [part for one in self.endpoints for part in ("--endpoint", str(one))]
        process = subprocess.Popen(
            [sys.executable, "-m", "servingrepo", "--json", "--root", str(self.repo.root)]
            + [one.format(b=b) for one in arguments]
            + endpoints
            + ["--wait", str(WAIT)],
            env={**os.environ, "SERVINGREPO_FAILPOINTS": f"{number}=stop"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 60
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.fail(f"did not stop at {step}: {process.communicate()}")
            time.sleep(0.02)
        return process

    @contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        """Bring trouble over one server for the block."""
        with ExitStack() as stack:
            match name:
                case "killed":
                    self.process.kill()
                    self.process.wait()
                case "hung":
                    stack.enter_context(hung(self.process, seconds=600))
                case "hung for a while":
                    stack.enter_context(hung(self.process, seconds=WAIT + 2))
                case "stuttering":
                    stack.enter_context(stuttering(self.process))
                case "slow":
                    stack.enter_context(slowed(self.proxy, delay=0.05))
                case "too slow":
                    # A reload is some 300 bytes: half a minute.
                    stack.enter_context(slowed(self.proxy, delay=0.5, size=5))
                case _:
                    stack.enter_context(busy(self.proxy.endpoint, seconds=MINUTE))
            yield


def _three_versions(folder: Path, slow: Path) -> OpenRepository:
    """Publish two versions that take as long as they are asked to, and one that no server can load."""
    repo = new_repository(folder / "serving")
    for number in (1, 2, 3):
        run = folder / f"run{number}"
        subprocess.run(["cp", "-r", slow, run], check=True)
        (run / "assets.extra").mkdir(exist_ok=True)
        (run / "assets.extra" / "number").write_text(str(number))
        repo.promote(run, model="half", smoke=False, serve=number == 1)
    graph = repo.value.layout.version("half", 3) / "saved_model.pb"
    graph.write_bytes(bytes(len(graph.read_bytes())))
    return repo


def _all(version: int) -> Serves:
    return version, version, frozenset({version})


def _serves(endpoint: Endpoint) -> Serves | None:
    try:
        with ServingClient(endpoint) as client:
            states = client.status("half", timeout=3)
            return (
                client.metadata("half", timeout=3).version,
                client.metadata("half", label="stable", timeout=3).version,
                frozenset(one.version for one in states if one.state == "AVAILABLE"),
            )
    except ServingRepoError:
        return None


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, conformance: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("phases"), conformance / "corpus" / "slow") as fleet:
        yield fleet


@pytest.mark.parametrize("change", [*CHANGES] if WHOLE else ["down in stages"])
def test_the_table_has_every_step_that_a_switch_takes(two: Fleet, change: str) -> None:
    one = CHANGES[change]
    two.begin(one.old)
    record = two.repo.root / "steps"
    record.unlink(missing_ok=True)
    endpoints = [part for each in two.endpoints for part in ("--endpoint", str(each))]
    command(
        "--root",
        two.repo.root,
        *(part.format(b=two.proxy.endpoint) for part in one.arguments),
        *endpoints,
        env={"SERVINGREPO_FAILPOINTS": f"record={record}"},
    )
    reached = [step.removesuffix("@1") for step in record.read_text().split()]
    steps = [step for step in reached if step.startswith("switch.") or step == "intent.done"]
    if change == "up, and back":
        assert steps == ["intent.done", "switch.gathered", "switch.stage-told", *one.steps]
    else:
        assert steps == list(one.steps)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("change", "step", "trouble"), ALL if WHOLE else SHORT)
def test_a_server_in_trouble_in_a_phase_leaves_the_fleet_old_or_new_and_that_is_said(
    two: Fleet, change: str, step: str, trouble: str
) -> None:
    one = CHANGES[change]
    two.begin(one.old)
    process = two.run(*one.arguments, step=step)
    with two.trouble(trouble):
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=150)
        assert "Traceback" not in err, err
        said = msgspec.json.decode(out)
        _judge(two, one, said, code=process.returncode, last=step == STEPS[-1])
    if trouble == "hung for a while" and process.returncode == SwitchFailed.exit_code:
        assert said["error"]["details"]["put_back"], "it woke up in time to be put back"
    two.heal()
    _converges(two)


def _judge(two: Fleet, change: Change, said: Any, *, code: int, last: bool) -> None:
    """See that file and servers are all old or all new, and that who differs is named."""
    well, troubled = two.serve()
    troubled_name = str(two.proxy.endpoint)
    if code == 0:
        assert two.config() == change.new
        assert well == _all(change.new)
        assert troubled == _all(change.new) or (last and troubled is None) or _unloads(said)
        return
    assert code in {EndpointUnreachable.exit_code, SwitchFailed.exit_code}, said
    told = " ".join([said["error"]["message"], *said["error"].get("problems", ())])
    assert two.config() == change.old, told
    assert well == _all(change.old), told
    if troubled != _all(change.old):
        assert troubled_name in told
        if code == SwitchFailed.exit_code and "in its own time" not in told:
            assert "may disagree" in told, troubled
            assert not said["error"]["details"]["put_back"]
    elif code == SwitchFailed.exit_code and said["error"]["details"]["put_back"]:
        assert f"back where it was: half serves {change.old}" in told


def _unloads(said: Any) -> bool:
    """Tell whether the command said that a server drops the old version in its own time."""
    return any("in its own time" in one["outcome"] for one in said["result"]["endpoints"])


def _converges(two: Fleet) -> None:
    """See that status tells of every difference, and that reload ends them all."""
    arguments = [part for one in two.endpoints for part in ("--endpoint", str(one))]
    status = command("--root", two.repo.root, "--json", "status", "half", *arguments)
    version = two.config()
    assert version is not None
    if status.code == 0:
        assert two.serve() == [_all(version)] * 2
    else:
        assert status.code == NotConverged.exit_code, status
        drift = status.json["error"]["details"]["status"]["models"][0]["drift"]
        assert {one["endpoint"] for one in drift} == {str(two.proxy.endpoint)}, drift
    reloaded = command("--root", two.repo.root, "reload", *arguments, "--wait", "40")
    assert reloaded.code == 0, reloaded.err
    waited = command("--root", two.repo.root, "status", *arguments, "--wait", "20")
    assert waited.code == 0, waited.err
    assert two.serve() == [_all(version)] * 2
