"""Servers as processes of this machine: started, watched until they listen, explained when they end.

What is true of any server is here: a TensorFlow Serving listens once each of its models has a version that
loaded, and says on stdout why it could not start (server.cc).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
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
    from pathlib import Path

    from servingrepo.deadline import Deadline

LOG_LINES = 15
"""How much of a server's log an error shows."""

_STOP_SECONDS = 3.0
_FAILED = "Failed to start server. Error: "


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers: each of its models has a version that loaded.

    `server` is its version as it says itself, `image` what it runs from if that is a container.
    """

    endpoint: Endpoint
    engine: str
    server: str
    image: str = ""


@contextmanager
def serve_process(
    command: Callable[[Path, Path], Sequence[str]],
    *,
    engine: str,
    server: str,
    model: str,
    version: int,
    export: Path,
    deadline: Deadline,
    prepare: Callable[[], None] | None = None,
) -> Iterator[RunningServer]:
    """Run a server that serves `export` as a version, for the block, on a socket that only we can reach.

    Args:
        command: Makes the argument list from the paths of the socket and of a config file.
        engine: What records call the engine.
        server: The server's version.
        model: The model's name.
        version: Its version.
        export: The version's directory.
        deadline: When the model must have loaded.
        prepare: Called in the child before it becomes the server.

    Raises:
        LoadFailed, ServerDied, ServerTimeout: As they say; with the server's last log lines.
        UsageError: The server does not know one of its flags.
        EngineUnavailable: Another process answers than the one that was started.
        StorageFailed: There is no place for the socket.
    """
    what = f"{model}@{version}"
    with server_folder() as folder:
        base = base_path_for(export, version, folder)
        config = pin(EMPTY, name=model, base_path=str(base), versions=[version])
        config_file, log = folder / "models.config", folder / "server.log"
        config_file.write_text(render(config))
        endpoint = Endpoint.unix(folder / SOCKET)
        process = _spawn(command(folder / SOCKET, config_file), folder, log, prepare)
        try:
            wait_until_open(process, endpoint, log=log, deadline=deadline, what=what)
            _refuse_others(process, folder / SOCKET)
            refuse_unknown_flags(read_log(log))
            yield RunningServer(endpoint=endpoint, engine=engine, server=server)
        except EndpointUnreachable as error:
            code = process.poll()
            if code is None:
                error.log = error.log or last_lines(log)
                raise
            said = last_lines(log)
            raise ServerDied(
                f"the server {ended(code)} while it was sent requests for {what}",
                hint=f"a request to this model ends the server; {see_log(said)}",
                log=said,
            ) from error
        except ServingRepoError as error:
            error.log = error.log or last_lines(log)
            raise
        finally:
            stop(process)


def base_path_for(export: Path, version: int, folder: Path) -> Path:
    """Return a base path in which `export` has its number; TF Serving follows a link there."""
    if export.name == str(version):
        return export.parent.absolute()
    base = folder / "base"
    base.mkdir()
    (base / str(version)).symlink_to(export.resolve())
    return base


def _spawn(
    arguments: Sequence[str], folder: Path, log: Path, prepare: Callable[[], None] | None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(  # nosec B603 # the engine's server, with flags that we build
            arguments,
            # Not where we are: that may be a run, whose files mean nothing to a server.
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C goes to the whole foreground group; the server is ours to stop.
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - the binary engine's way to die with its parent
        )


def _refuse_others(process: subprocess.Popen[bytes], socket_file: Path) -> None:
    """See that the server that was started is who listens, or a child of a script that starts it.

    Raises:
        EngineUnavailable: It is somebody else.
        EndpointUnreachable: Nobody does any more.
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
    """Tell whether something accepts connections there."""
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
    """Return why a version did not load, out of the sentence that the server wraps it in (server_core.cc)."""
    return text.partition("due to error: ")[2].removesuffix("}, }") or text


def ended(code: int) -> str:
    """Say how a process ended."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


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


def see_log(text: str) -> str:
    """Say where a server's own words are, or that it left none: an error must not point to what is not there."""
    return "see its last log lines" if text.strip() else "it left no log lines"


def read_log(log: Path) -> str:
    """Return a log's text; nothing where there is none."""
    return log.read_text(errors="replace") if log.exists() else ""


def last_lines(log: Path) -> str:
    """Return the end of a log file, for an error."""
    return tail(read_log(log))


def tail(text: str) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-LOG_LINES:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server: politely, then for good. The whole group goes, should it have children."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # A wrapper script may leave the server itself behind: it is in the group that we made for it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
