"""Engines start a server for one version of one model, and take it away again.

An engine is just a gRPC endpoint to everybody else. Here is the embedded one: servingrepo's own server in a
child process, with TensorFlow in that child only. Its output goes to a log, which is part of every failure.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    EngineUnavailable,
    LoadFailed,
    PortInUse,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
    UsageError,
)
from servingrepo.modelconfig import EMPTY, pin, render
from servingrepo.serving.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.serving.deadline import Deadline

LOG_LINES = 15
"""How much of a server's log an error shows."""

_STOP_SECONDS = 3.0
_FAILED = "Failed to start server. Error: "
_PORT_ATTEMPTS = 3


class RunningServer(msgspec.Struct, frozen=True):
    """A server that has opened its port: so each of its models has a version that loaded."""

    endpoint: Endpoint
    engine: str
    server: str
    log: Path
    pid: int


class EmbeddedEngine(msgspec.Struct, frozen=True):
    """servingrepo's own server, for machines without Docker or a tensorflow_model_server."""

    python: str = sys.executable

    @property
    def name(self) -> str:
        """What records call this engine."""
        return "embedded"

    def server_version(self) -> str:
        """Say which TensorFlow the server has, without starting it.

        Raises:
            EngineUnavailable: TensorFlow is not installed.
        """
        try:
            return f"TensorFlow {importlib.metadata.version('tensorflow')}"
        except importlib.metadata.PackageNotFoundError as error:
            raise EngineUnavailable(
                "the embedded engine needs TensorFlow, which is not installed here",
                hint="pip install tensorflow, or promote with --no-smoke (the record will say so)",
            ) from error

    @contextmanager
    def serve(
        self, *, model: str, version: int, base_path: Path, deadline: Deadline
    ) -> Iterator[RunningServer]:
        """Serve `base_path/<version>` as that version of the model on a loopback port, for the block.

        Raises:
            EngineUnavailable: TensorFlow is not installed.
            LoadFailed: The server refused the model; the message has its own words.
            ServerDied: The server ended otherwise; the error has its last log lines.
            ServerTimeout: The model was not loaded by the deadline.
        """
        facts = self.server_version()
        config = pin(EMPTY, name=model, base_path=str(base_path), versions=[version])
        with tempfile.TemporaryDirectory(prefix="servingrepo-engine-") as folder:
            config_file = Path(folder, "models.config")
            config_file.write_text(render(config))
            log = Path(folder, "server.log")
            process, endpoint = self._start(config_file, log, deadline, f"{model}@{version}")
            try:
                yield RunningServer(endpoint, self.name, facts, log, process.pid)
            except ServingRepoError as error:
                if error.log is None:
                    error.log = last_lines(log)
                raise
            finally:
                stop(process)

    def _start(
        self, config: Path, log: Path, deadline: Deadline, what: str
    ) -> tuple[subprocess.Popen[bytes], Endpoint]:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            endpoint = Endpoint("127.0.0.1", free_port())
            process = self._spawn(config, log, endpoint)
            try:
                wait_until_open(process, endpoint, log=log, deadline=deadline, what=what)
            except PortInUse:
                # Somebody was faster between our look for a free port and the server's bind.
                stop(process)
                if attempt == _PORT_ATTEMPTS:
                    raise
            except BaseException:
                stop(process)
                raise
            else:
                return process, endpoint
        raise AssertionError

    def _spawn(self, config: Path, log: Path, endpoint: Endpoint) -> subprocess.Popen[bytes]:
        arguments = [
            self.python,
            "-m",
            "servingrepo.serving.embedded",
            f"--port={endpoint.port}",
            f"--model_config_file={config}",
            "--max_num_load_retries=0",
            "--allow_version_labels_for_unavailable_models=true",
            f"--exit_with_parent={os.getpid()}",
        ]
        with log.open("ab") as output:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the whole foreground group; the server is ours to stop.
                start_new_session=True,
            )


def choose_engine(name: str) -> EmbeddedEngine:
    """Return the engine of that name; `auto` is the best one this machine has.

    Raises:
        UsageError: There is no such engine.
    """
    if name in {"auto", "embedded"}:
        return EmbeddedEngine()
    raise UsageError(f"there is no engine {name!r}", hint="engines: auto, embedded")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_open(
    process: subprocess.Popen[bytes],
    endpoint: Endpoint,
    *,
    log: Path,
    deadline: Deadline,
    what: str,
) -> None:
    """Wait until a server listens: it does so once every model has a version that loaded (server.cc).

    Raises:
        LoadFailed: It ended because it could not load the model.
        PortInUse: It ended because it could not listen.
        ServerDied: It ended for another reason.
        ServerTimeout: The deadline came first.
    """
    while True:
        code = process.poll()
        if code is not None:
            raise why_it_ended(code, log, what)
        if is_listening(endpoint):
            return
        if deadline.passed:
            raise ServerTimeout(
                f"the server had not loaded {what} after {deadline.seconds:.3g} s",
                hint="give it longer with --timeout SECONDS, or look at its log below",
                log=last_lines(log),
            )
        deadline.pause(0.02)


def is_listening(endpoint: Endpoint) -> bool:
    """Tell whether something accepts connections there."""
    with socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((endpoint.host, endpoint.port)) == 0


def why_it_ended(code: int, log: Path, what: str) -> ServingRepoError:
    """Return the error for a server that ended before it listened."""
    text = log.read_text(errors="replace") if log.exists() else ""
    failed = [line for line in text.splitlines() if line.startswith(_FAILED)]
    reason = failed[-1].removeprefix(_FAILED) if failed else ""
    if "did not become available" in reason:
        reason = reason.partition("due to error: ")[2].removesuffix("}, }") or reason
        return LoadFailed(
            f"the server could not load {what}: {reason}",
            hint=hint_for_load_error(reason),
            log=last_lines(log),
        )
    if "Failed to BuildAndStart" in reason or "in use" in reason:
        return PortInUse(f"the server could not listen: {reason}", log=last_lines(log))
    killed = code < 0
    ended = f"was killed by {signal.Signals(-code).name}" if killed else f"ended with code {code}"
    return ServerDied(
        f"the server {ended} while loading {what}" + (f": {reason}" if reason else ""),
        hint="its last log lines are below; out of memory shows as SIGKILL",
        log=last_lines(log),
    )


def hint_for_load_error(reason: str) -> str:
    """Say what to do about a load error, by what the server says."""
    if "Op type not registered" in reason or "No OpKernel was registered" in reason:
        return (
            "the model uses an operation that this server does not have: a custom one, one that was removed "
            "from TensorFlow, or a newer one; export it again with today's TensorFlow and standard operations"
        )
    if "device" in reason and ("GPU" in reason or "gpu" in reason):
        return "the model is pinned to a GPU; export it without tf.device, or with soft placement"
    if "matching supplied tags" in reason:
        return "the SavedModel has no MetaGraph with exactly the tag serve; export it for serving"
    return "export the model again; nothing was published"


def last_lines(log: Path, *, count: int = LOG_LINES) -> str:
    """Return the end of a log."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server: politely, then for good. The whole group goes, should it have children."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
