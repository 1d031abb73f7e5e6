"""The server as a process: start, threads, gRPC, and an end within a second.

After model_servers/server.cc. The line on standard output is the real server's; our own go to standard error.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TextIO

from servingrepo.embedded import listening, startup
from servingrepo.embedded.capi import TensorFlowRuntime
from servingrepo.embedded.config import ServerConfig, single_model
from servingrepo.embedded.core import CustomConfigError, ServerCore, Settings
from servingrepo.embedded.flags import FAILED
from servingrepo.embedded.harness import Retries
from servingrepo.embedded.inference import Model, Options
from servingrepo.embedded.manager import Manager
from servingrepo.embedded.metrics import MeasuredRuntime, Metrics
from servingrepo.embedded.runtime import ModelLoader
from servingrepo.embedded.services import Parts
from servingrepo.embedded.states import Event, EventBus, State, Waiter
from servingrepo.embedded.status import OK, Status, invalid
from servingrepo.embedded.text_files import read_models
from servingrepo.embedded.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from socketserver import BaseServer

    import grpc

    from servingrepo.embedded.flags import Arguments
    from servingrepo.embedded.runtime import Session
    from servingrepo.embedded.source import VersionSource

__all__ = ["serve"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.1
PATIENCE_SECONDS = 5.0
STOP_SECONDS = 0.3
PARENT_POLL_SECONDS = 0.2
LOG_LINES = 12
LOG_BYTES = 16_384
STDERR = 2


def serve(arguments: Arguments) -> NoReturn:
    """Run the server until a signal ends it; end with 255 if it could not start."""
    started = _start(arguments)
    sys.stdout.write(f"Failed to start server. Error: {started}\n")
    # Threads of TensorFlow and ours may be busy, and nothing may wait for them.
    _exit(FAILED)


def _start(arguments: Arguments) -> Status:
    """Start and serve. Return only if the start fails."""
    try:
        log, own = _redirect(arguments.text("tensorflow_log"))
    except OSError as error:
        return invalid(f"cannot write TensorFlow's log: {error}")
    _log_to(own)
    if arguments.number("exit_with_parent"):
        _end_with(arguments.number("exit_with_parent"))
    startup.warn_of_ignored(arguments)
    checked = startup.check(arguments)
    if not checked.ok:
        return checked
    server = _Server(arguments, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    started = server.start()
    while started.ok:
        signal.pause()
    return started


class _TensorFlowLog:
    """The file that TensorFlow writes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._shown = 0

    def last_lines(self) -> list[str]:
        """Return the last lines since the last call, a dozen at most."""
        with self._lock:
            end = os.fstat(self._descriptor).st_size
            start = max(self._shown, end - LOG_BYTES)
            data = os.pread(self._descriptor, end - start, start)
            self._shown = end
        return data.decode(errors="replace").splitlines()[-LOG_LINES:]


class _Server:
    """What lives as long as the process."""

    def __init__(self, arguments: Arguments, log: _TensorFlowLog) -> None:
        self._arguments = arguments
        self._log = log
        self._grpc: grpc.Server | None = None
        self._rest: BaseServer | None = None
        self._metrics = Metrics()
        self._options = Options(
            check_method_name=arguments.truth("enable_signature_method_name_check"),
            tensor_content=arguments.truth("enable_serialization_as_tensor_content"),
        )
        bus = EventBus()
        bus.subscribe(self._log_event)
        self._manager = Manager(
            self._loader(),
            bus,
            retries=Retries(
                number=arguments.number("max_num_load_retries"),
                interval=arguments.number("load_retry_interval_micros") / 1e6,
                sleep=time.sleep,
            ),
            load_threads=max(arguments.number("num_load_threads"), 0),
            unload_threads=max(arguments.number("num_unload_threads"), 0),
            stale_available=arguments.truth("play_stale_available"),
        )
        settings = Settings(
            wait=_wait,
            start_polling=self._start_polling,
            initial_load_threads=4 * (os.cpu_count() or 1),
            labels_for_unavailable=arguments.truth("allow_version_labels_for_unavailable_models"),
        )
        self._core = ServerCore(self._manager, bus, settings)

    def start(self) -> Status:
        """Apply the first config, wait for its models, then listen."""
        config = self._read_config()
        if isinstance(config, Status):
            return config
        _every(TICK_SECONDS, self._manager.tick)
        applied = _reload_or_abort(self._core, config)
        if not applied.ok:
            return applied
        file = self._arguments.text("model_config_file")
        seconds = self._arguments.number("model_config_file_poll_wait_seconds")
        if file and seconds > 0:
            _every(seconds, partial(_reload_from_file, self._core, file))
        return self._listen()

    def stop(self, number: int, _frame: object) -> NoReturn:
        """Handle a signal: accept no new request, then end by the same signal, as the real server does."""
        logger.info("stopped by %s", signal.Signals(number).name)
        if self._rest is not None:
            self._rest.server_close()
        if self._grpc is not None:
            self._grpc.stop(STOP_SECONDS).wait(2 * STOP_SECONDS)
        sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        _exit(128 + number)

    def _loader(self) -> ModelLoader:
        session_config = startup.session_config(self._arguments)
        runtime = MeasuredRuntime(TensorFlowRuntime(session_config), self._metrics)
        tags = startup.tags(self._arguments)
        if not self._arguments.truth("enable_model_warmup"):
            return ModelLoader(runtime, tags)
        iterations = max(self._arguments.number("num_request_iterations_for_warmup"), 0) or 1

        def warm(session: Session, path: str) -> Status:
            return warm_up(
                Model(session, self._options), path, iterations=iterations, metrics=self._metrics
            )

        return ModelLoader(runtime, tags, warm)

    def _read_config(self) -> ServerConfig | Status:
        file = self._arguments.text("model_config_file")
        if file:
            return read_models(file)
        return single_model(
            self._arguments.text("model_name"), self._arguments.text("model_base_path")
        )

    def _start_polling(self, source: VersionSource) -> Callable[[], None]:
        seconds = self._arguments.number("file_system_poll_wait_seconds")
        if seconds > 0:
            return _every(seconds, source.poll)
        if seconds == 0:
            threading.Thread(target=source.poll, name="poll", daemon=True).start()
        return lambda: None

    def _listen(self) -> Status:
        parts = Parts(self._core, self._options, self._metrics)
        try:
            opened = listening.open_grpc(self._arguments, parts)
        except listening.SslConfigError as error:
            logger.critical(
                "--ssl_config_file cannot be read: %s. TensorFlow Serving aborts here, and so does this server",
                error,
            )
            os.abort()
        if isinstance(opened, Status):
            return opened
        self._grpc = opened
        rest = listening.open_rest(self._arguments, parts)
        if isinstance(rest, Status):
            return rest
        self._rest = rest
        return OK

    def _log_event(self, event: Event) -> None:
        version = f"version {event.id.version} of model {event.id.name}"
        match event.state:
            case State.LOADING:
                logger.info("loading %s", version)
            case State.AVAILABLE:
                logger.info("%s is available", version)
            case State.END if event.health.ok:
                logger.info("%s is unloaded", version)
            case State.END:
                logger.error("%s failed and will not be tried again: %s", version, event.health)
                for line in self._log.last_lines():
                    logger.error("  tensorflow: %s", line)
            case _:
                pass


def _reload_or_abort(core: ServerCore, config: ServerConfig) -> Status:
    try:
        return core.reload(config)
    except CustomConfigError:
        logger.critical(
            "custom_model_config: TensorFlow Serving aborts here, and so does this server"
        )
        os.abort()


def _reload_from_file(core: ServerCore, file: str) -> None:
    config = read_models(file)
    if isinstance(config, Status):
        logger.error("the config file is left alone: %s", config.message)
        return
    outcome = _reload_or_abort(core, config)
    if not outcome.ok:
        logger.error("the config file could not be applied: %s", outcome.message)


def _wait(waiter: Waiter) -> None:
    if not waiter.wait(PATIENCE_SECONDS):
        logger.warning(
            "still waiting for a first version of each of: %s. It may be loading. But for a base path that is "
            "missing or has no version the wait has no limit, and later reloads queue behind it (as with "
            "TensorFlow Serving, server_core.cc)",
            ", ".join(waiter.names),
        )
        waiter.wait()


def _every(seconds: float, act: Callable[[], object]) -> Callable[[], None]:
    """Call `act` in a thread, now and then every `seconds`; return a function that ends that.

    After a call that took longer than the period, the next one follows at once (util/periodic_function.cc).
    """
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            begun = time.monotonic()
            try:
                act()
            except Exception:
                logger.exception("this is a bug of servingrepo")
            ended.wait(max(0.0, seconds - (time.monotonic() - begun)))

    threading.Thread(target=loop, name=getattr(act, "__name__", "periodic"), daemon=True).start()
    return ended.set


def _log_to(stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(__package__).setLevel(logging.INFO)


def _end_with(pid: int) -> None:
    """End this process as soon as process `pid` has ended, however that ends.

    PR_SET_PDEATHSIG would be simpler, but is about the thread that started this process (prctl(2)), and that may end
    before its process. A pidfd is about the process, even when its number is used again.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        _parent_ended()
    except (AttributeError, OSError):  # before Linux 5.3, and on other systems
        wait: Callable[[], object] = partial(_wait_by_polling, pid)
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        wait = poll.poll

    def end() -> None:
        wait()
        _parent_ended()

    threading.Thread(target=end, name="parent", daemon=True).start()


def _wait_by_polling(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        except PermissionError:
            pass
        time.sleep(PARENT_POLL_SECONDS)


def _parent_ended() -> NoReturn:
    logger.warning("the process that started this server has ended, so the server ends too")
    _exit(FAILED)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _redirect(path: str) -> tuple[_TensorFlowLog, TextIO]:
    """Point file descriptor 2, TensorFlow's log, to a file: its lines must not mix with ours.

    Args:
        path: The file; empty for a temporary one without a name, which leaves nothing behind.

    Returns:
        TensorFlow's log, and a stream to where the descriptor pointed before, which is `sys.stderr` from now on.

    Raises:
        OSError: The file cannot be written.
    """
    if path:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
    else:
        with tempfile.TemporaryFile(prefix="servingrepo-tensorflow-", mode="a+b") as file:
            descriptor = os.dup(file.fileno())
    sys.stderr.flush()
    own = os.fdopen(os.dup(STDERR), "w", buffering=1, errors="backslashreplace")
    os.dup2(descriptor, STDERR)
    sys.stderr = own
    return _TensorFlowLog(descriptor), own
