"""Servers as processes of this machine: their start, the wait until they listen, and the reason of their end.

A TensorFlow Serving listens once each of its models has a version that loaded. Its standard output says why it could
not start (server.cc). That also holds in containers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.children import environment
from servingrepo.errors import (
    EndpointUnreachable,
    EngineUnavailable,
    LoadFailed,
    PortInUse,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
)
from servingrepo.modelconfig import EMPTY, pin, render
from servingrepo.servers.engines.options import refuse_unknown_flags
from servingrepo.servers.sockets import SOCKET, is_listening_at, listener_at, server_folder
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from servingrepo.deadline import Deadline

LOG_LINES = 15
"""The number of lines of a server's log in an error."""

LOADING_FLAGS = (
    "--max_num_load_retries=0",
    "--allow_version_labels_for_unavailable_models=true",
)
"""Flags for the one load of a version that an engine waits for."""

_STOP_SECONDS = 3.0
_ENDING_SECONDS = 2.0
_FAILED = "Failed to start server. Error: "


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers: each of its models has a version that loaded.

    `server` is the version that it prints, `image` the image of its container. `declared` is the image that the
    caller says it has, where nobody can see that.
    """

    endpoint: Endpoint
    engine: str
    server: str
    image: str = ""
    declared: str = ""


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A second export that a server has beside the first one, under a name of its own."""

    model: str
    version: int
    export: Path


@contextmanager
def serve_process(
    program: Sequence[str],
    *,
    arguments: Sequence[str],
    engine: str,
    server: str,
    model: str,
    version: int,
    export: Path,
    deadline: Deadline,
    beside: Beside | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[RunningServer]:
    """Run a server that serves `export` as a version, for the block, on a socket that only we can reach.

    Args:
        program: The beginning of the command line.
        arguments: Its end, after the flags that all engines set.
        engine: The engine's name in records.
        server: The server's version.
        model: The model's name.
        version: Its version.
        export: The version's directory.
        deadline: The time by which the model must have loaded.
        beside: A second export to serve.
        prepare: Called in the child before it becomes the server.

    Raises:
        LoadFailed: The server refused the model. This error and the next two have its last log lines.
        ServerDied: The server ended otherwise.
        ServerTimeout: The model did not load by the deadline.
        UsageError: The server does not know a flag.
        EngineUnavailable: Another process than ours answers.
        StorageFailed: There is no place for the socket.
    """
    what = f"{model}@{version}"
    with server_folder() as folder:
        first = Beside(model=model, version=version, export=export)
        config_file, log = folder / "models.config", folder / "server.log"
        config_file.write_text(_config(folder, [first, *([beside] if beside else [])]))
        endpoint = Endpoint.unix(folder / SOCKET)
        command = [
            *program,
            f"--grpc_socket_path={folder / SOCKET}",
            # The real server would open its port to the whole network (server.cc).
            "--port=0",
            f"--model_config_file={config_file}",
            *LOADING_FLAGS,
            *arguments,
        ]
        process = _spawn(command, folder, log, prepare)
        try:
            wait_until_open(process, endpoint, log=log, deadline=deadline, what=what)
            _refuse_others(process, folder / SOCKET)
            refuse_unknown_flags(read_log(log))
            yield RunningServer(endpoint=endpoint, engine=engine, server=server)
        except EndpointUnreachable as error:
            # The kernel closes a dying server's socket some time before the process has ended.
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_ENDING_SECONDS)
            code = process.returncode
            if code is None:
                error.log = error.log or last_lines(log)
                raise
            said = last_lines(log)
            raise ServerDied(
                f"the server {ended(code)} while it was sent requests for {what}",
                hint=f"a request to this model ends the server; {see_log(said)}",
                problems=error.problems,
                log=said,
            ) from error
        except ServingRepoError as error:
            error.log = error.log or last_lines(log)
            raise
        finally:
            stop(process)


def _config(folder: Path, served: Sequence[Beside]) -> str:
    """Return the text of a models.config that serves these exports."""
    config = EMPTY
    for number, one in enumerate(served):
        base = base_path_for(one.export, one.version, folder / f"base{number}")
        config = pin(config, name=one.model, base_path=str(base), versions=[one.version])
    return render(config)


def base_path_for(export: Path, version: int, folder: Path) -> Path:
    """Return a base path where `export` has its number: its parent, or `folder` with a link, which servers follow."""
    if export.name == str(version):
        return export.parent.absolute()
    folder.mkdir()
    (folder / str(version)).symlink_to(export.resolve())
    return folder


def _spawn(
    arguments: Sequence[str], folder: Path, log: Path, prepare: Callable[[], None] | None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(  # nosec B603 # the engine's server, with flags that we build
            arguments,
            # Our own directory may be a run, whose files must not affect a server.
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C goes to the whole foreground group, and we stop the server ourselves.
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - the binary engine's way to die with its parent
        )


def _refuse_others(process: subprocess.Popen[bytes], socket_file: Path) -> None:
    """Check that our server listens, or a child of it if it is a script.

    Raises:
        EngineUnavailable: Another process listens.
        EndpointUnreachable: No process listens any more.
    """
    try:
        listener = listener_at(socket_file).pid
    except OSError as error:
        raise EndpointUnreachable(f"the server left {socket_file}: {error.strerror}") from error
    with suppress(ProcessLookupError):
        if listener and os.getsid(listener) == process.pid:
            return
    raise EngineUnavailable(
        f"process {listener or 'unknown'} answers at {socket_file}, and not the server that was started",
        hint="a script that starts the server must stay in its session: exec tensorflow_model_server …",
    )


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_open(
    process: subprocess.Popen[bytes],
    endpoint: Endpoint,
    *,
    log: Path,
    deadline: Deadline,
    what: str,
) -> None:
    """Wait until a server listens, which it does once every model has a version that loaded (server.cc).

    Raises:
        LoadFailed: It could not load the model, and ended.
        PortInUse: It could not listen, and ended.
        ServerDied: It ended for another reason.
        ServerTimeout: It does not listen by the deadline.
    """
    while True:
        code = process.poll()
        if code is not None:
            raise why_it_ended(code, read_log(log), what)
        if is_listening(endpoint):
            return
        if deadline.passed:
            said = last_lines(log)
            raise ServerTimeout(
                f"the server had not loaded {what} after {deadline.seconds:.3g} s",
                hint=f"give it longer with --timeout SECONDS; {see_log(said)}",
                log=said,
            )
        deadline.pause(0.02)


def is_listening(endpoint: Endpoint) -> bool:
    """Tell whether a server accepts connections there."""
    if endpoint.socket is not None:
        return is_listening_at(endpoint.socket)
    with socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((endpoint.host, endpoint.port)) == 0


def why_it_ended(code: int, text: str, what: str) -> ServingRepoError:
    """Return the error for a server that ended before it listened, from its exit code and log."""
    failed = [line for line in text.splitlines() if line.startswith(_FAILED)]
    reason = failed[-1].removeprefix(_FAILED) if failed else ""
    if "did not become available" in reason:
        reason = load_error(reason)
        return LoadFailed(
            f"the server could not load {what}: {reason}",
            hint=hint_for_load_error(reason),
            log=tail(text),
        )
    if "grpc_port is not set" in reason:
        return EngineUnavailable(
            f"the server cannot listen on a socket alone: {reason}",
            hint="TensorFlow Serving can since 2.5: use a newer one",
            log=tail(text),
        )
    if "Failed to BuildAndStart" in reason:
        return PortInUse(f"the server could not listen: {reason}", log=tail(text))
    return ServerDied(
        f"the server {ended(code)} while loading {what}" + (f": {reason}" if reason else ""),
        hint=f"{see_log(text)}; out of memory shows as SIGKILL",
        log=tail(text),
    )


def load_error(text: str) -> str:
    """Return the reason why a version did not load, out of the server's sentence (server_core.cc)."""
    return text.partition("due to error: ")[2].removesuffix("}, }") or text


def ended(code: int) -> str:
    """Return the words for the end of a process."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def hint_for_load_error(reason: str) -> str:
    """Return the hint for a load error, by the server's text."""
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


def see_log(text: str) -> str:
    """Return a hint to a server's log lines, or a note that there are none."""
    return "see its last log lines" if text.strip() else "it left no log lines"


def read_log(log: Path) -> str:
    """Return a log's text; empty without a log."""
    return log.read_text(errors="replace") if log.exists() else ""


def last_lines(log: Path) -> str:
    """Return the end of a log file, for an error."""
    return tail(read_log(log))


def tail(text: str) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-LOG_LINES:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children: first with SIGTERM, then with SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # The server may outlive its wrapper script. It is in the process group that we made.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
