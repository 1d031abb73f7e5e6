"""The docker engine: a TensorFlow Serving container for one version, removed afterwards.

It works with every image that has the entrypoint, ports and flags of tensorflow/serving.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EndpointUnreachable,
    EngineUnavailable,
    LoadFailed,
    RequestRefused,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
    UsageError,
)
from servingrepo.servers.engines.docker_daemon import (
    DaemonSilent,
    DaemonUnreachable,
    Refusal,
    against_a_socket,
    connect,
    daemon_errors,
    is_in_container,
    own_networks,
    refusal_of,
    removed,
)
from servingrepo.servers.engines.docker_files import (
    CONFIG_FOLDER,
    SOCKET_FOLDER,
    copy_into,
    is_readable_for_all,
    is_seen,
    write_config,
)
from servingrepo.servers.engines.docker_images import GRPC_PORT, ImageFacts, find_image
from servingrepo.servers.engines.docker_reaping import labels, reap_left
from servingrepo.servers.engines.options import ContainerOptions, refuse_unknown_flags
from servingrepo.servers.engines.processes import (
    LOADING_FLAGS,
    Beside,
    RunningServer,
    free_port,
    tail,
    why_it_ended,
)
from servingrepo.servers.engines.server_versions import of_image
from servingrepo.servers.sockets import SOCKET, server_folder
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from servingrepo.servers.engines.docker_daemon import Daemon
    from servingrepo.servers.engines.server_versions import Version

__all__ = ["DEFAULT_IMAGE", "DockerEngine"]

T = TypeVar("T")

DEFAULT_IMAGE = "tensorflow/serving:2.19.1"
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?([bkmg]b?)?", re.IGNORECASE)
_GPUS = re.compile(r"all|[1-9][0-9]*")
_POLL_SECONDS = 0.02
_POLLS_PER_QUESTION = 5
"""Polls for the server's answer between two questions to the daemon, whether the container still runs.

A question takes 5 ms of processor time, which the server needs to load the model.
"""
_CALL_SECONDS = 60.0
_VERSION = ["tensorflow_model_server", "--version"]
_VERSION_SECONDS = 10.0
_LAST_WORDS_SECONDS = 5.0
_REMOVE_SECONDS = 20.0
_CONFLICT_SECONDS = 10.0
_NOT_FOUND = 404
_CONFLICT = 409
_BEGIN_SECONDS = 1.0
_REMOVE_SECONDS_IF_SILENT = 2.0
_LOG_LINES = 1000
_KILLED = 137
_NOT_RUNNABLE = (126, 127)
_IMAGE_HINT = "give an image with tensorflow/serving's entrypoint, ports and flags"


class DockerEngine(ContainerOptions, frozen=True, kw_only=True):
    """A container for one version, run as its options say."""

    image: str = DEFAULT_IMAGE

    @property
    def name(self) -> str:
        """Its name in records."""
        return "docker"

    def expected_version(self) -> Version | None:
        """Return the TensorFlow that the image's tag names."""
        return of_image(self.image)

    @contextmanager
    def serve(
        self,
        *,
        model: str,
        version: int,
        export: Path,
        deadline: Deadline,
        txid: str = "",
        beside: Beside | None = None,
    ) -> Iterator[RunningServer]:
        """Serve `export` in a container as that version of the model, for the block.

        The end of the block removes the container; an error has its log and exit code. After a kill of this process,
        the next command that uses Docker removes it, or `reap` does.

        Raises:
            EngineUnavailable: There is no daemon, image, or permission; the image is for another machine, or is
                no TensorFlow Serving.
            LoadFailed: The server refused the model; the message has its own words.
            ServerDied: The container ended otherwise, or another program removed it.
            ServerTimeout: The model was not loaded by the deadline, or the daemon is silent.
            NoSpace: The daemon has no room for the copy.
            UsageError: An option cannot be used, or the server does not know an argument.
        """
        self._check()
        with connect(deadline=deadline) as daemon, server_folder() as folder:
            reap_left(daemon)
            image = find_image(
                daemon, self.image, pull=self.pull, platform=self.platform, deadline=deadline
            )
            both = [Beside(model=model, version=version, export=export)]
            both += [beside] if beside is not None else []
            config, socket = write_config(folder, {one.model: one.version for one in both})
            container = _Container(
                self, daemon, image, model=model, version=version, deadline=deadline, txid=txid
            )
            try:
                with daemon_errors(daemon.url):
                    container.create(both, config, socket)
                    endpoint = container.start()
                    if self.arguments:
                        refuse_unknown_flags(container.printed())
                    yield RunningServer(
                        endpoint=endpoint,
                        engine=self.name,
                        server=container.server_version(),
                        image=str(image),
                    )
            except ServingRepoError as error:
                failure = container.explained(error)
                failure.problems = (*failure.problems, *container.remove())
                if failure is error:
                    raise
                raise failure from error
            except BaseException:
                container.remove()
                raise
            if left := container.remove():
                raise EngineUnavailable(
                    left[0], hint="servingrepo recover, or docker rm -f, removes it"
                )

    def _check(self) -> None:
        """Check the options before anything starts.

        Raises:
            UsageError: An option cannot be used.
        """
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise UsageError(
                f"--memory cannot be {self.memory!r}", hint="give it as docker takes it: 512m, 2g"
            )
        if self.gpus is not None and not _GPUS.fullmatch(self.gpus):
            raise UsageError(f"--gpus cannot be {self.gpus!r}", hint="give all or a number")


class _Container:
    """One container: `create` it, `start` it, and `remove` it in any case."""

    def __init__(
        self,
        engine: DockerEngine,
        daemon: Daemon,
        image: ImageFacts,
        *,
        model: str,
        version: int,
        deadline: Deadline,
        txid: str,
    ) -> None:
        self.engine = engine
        self.daemon = daemon
        self.image = image
        self.networks = own_networks(daemon)
        self.model = model
        self.version = version
        self.what = f"{model}@{version}"
        self.deadline = deadline
        self.txid = txid
        # We choose the name, so that we can remove it even if the daemon's answer to its creation is lost.
        self.name = f"servingrepo-{uuid.uuid4().hex[:16]}"
        # The network to join: the user's choice, else a network of our own container.
        self.network = engine.network or next(iter(self.networks), None)
        self.socket: Path | None = None  # where the server listens; None if that is a port
        self.port = 0  # the server's port, if the container shares the network of the daemon's host
        self.container: Any = None
        self.exists = False
        self.silent = False
        self.log = ""
        self.last_answer = ""
        self._version: list[str] = []
        self._asking = threading.Thread(target=self._ask_version, name="version", daemon=True)

    def create(self, exports: Sequence[Beside], config: Path, socket: Path) -> None:
        """Create the container. Mount our files if the daemon sees them, else copy them.

        The server listens on a socket in a mounted folder if it can, because no other user reaches that; else on a
        port.

        Raises:
            EngineUnavailable: The container needs a network, and the user asked for none.
        """
        trees = {f"/models/{one.model}/{one.version}": one.export for one in exports}
        settings = {CONFIG_FOLDER: config}
        against = against_a_socket(self.daemon, self.engine.user)
        self.socket = None if against else socket / SOCKET
        if self.daemon.local:
            ours = settings if against else {**settings, SOCKET_FOLDER: socket}
            # The server's user must be able to read the exports, by their file modes.
            readable = self.engine.user is None or all(map(is_readable_for_all, trees.values()))
            if readable and self._create_mounted({**trees, **ours}):
                return
            if self.socket is not None and self._create_mounted(ours):
                self._copy(trees)
                return
        self.socket = None
        if self.network == "none":
            raise EngineUnavailable(
                "a container without a network is reached through a socket in a mounted folder, but "
                + (against or f"the Docker daemon at {self.daemon.url} does not see our files"),
                hint="leave --docker-network none out",
            )
        self._create({})
        self._copy({**trees, **settings})

    def _create_mounted(self, files: Mapping[str, Path]) -> bool:
        """Create the container with mounts; tell whether it sees our files there.

        The daemon refuses a path that its machine does not have. If we run in a container ourselves, its machine may
        have another directory at the export's path. The paths of config and socket are random.
        """
        from docker.errors import APIError

        try:
            self._create(files)
        except APIError as error:
            if refusal_of(error) is Refusal.NO_SUCH_MOUNT:
                return False
            raise
        if not is_in_container() or all(
            is_seen(self.daemon, self.name, inside, export)
            for inside, export in files.items()
            if inside not in {CONFIG_FOLDER, SOCKET_FOLDER}
        ):
            return True
        if left := self.remove():
            raise EngineUnavailable(left[0], hint="docker rm -f removes it")
        return False

    def _copy(self, files: Mapping[str, Path]) -> None:
        self.daemon.allow(self.deadline.left)
        copy_into(self.container, files, what=self.what)

    def _create(self, binds: Mapping[str, Path]) -> None:
        options = self._options(binds)
        self.daemon.allow(self.deadline.at_most(_CALL_SECONDS))

        def call() -> None:
            self.exists = True  # from here on it may
            self.container = self.daemon.client.containers.create(self.image.id, **options)

        _finish(call)

    def _options(self, binds: Mapping[str, Path]) -> dict[str, Any]:
        from docker.types import DeviceRequest, Mount

        engine, network = self.engine, self.network

        def mount(inside: str, source: Path) -> Any:
            read_only = inside != SOCKET_FOLDER
            return Mount(inside, str(source.resolve()), type="bind", read_only=read_only)

        options: dict[str, Any] = {
            "name": self.name,
            "command": self._command(),
            "mounts": [mount(*one) for one in binds.items()],
            "init": True,
            "labels": labels(txid=self.txid, deadline=self.deadline),
            "platform": engine.platform,
            "mem_limit": engine.memory,
            **self._user(),
        }
        if engine.gpus:
            count = -1 if engine.gpus == "all" else int(engine.gpus)
            options["device_requests"] = [DeviceRequest(count=count, capabilities=[["gpu"]])]
        if network == "host":
            options["network_mode"] = network
        elif network:
            options["network"] = network
        if self.socket is None and network != "host":
            options["ports"] = {GRPC_PORT: (self.daemon.publish_on, None)}
        return options

    def _command(self) -> list[str]:
        """Return the server's flags. They override those of the entrypoint, which stand before them."""
        flags = [
            f"--model_config_file={CONFIG_FOLDER}/models.config",
            *LOADING_FLAGS,
            "--rest_api_port=0",
        ]
        if self.socket is not None:
            flags += [f"--grpc_socket_path={SOCKET_FOLDER}/{SOCKET}", "--port=0"]
        elif self.network == "host":
            # Port 8500 of that machine may be in use.
            self.port = free_port()
            flags.append(f"--port={self.port}")
        return [*flags, *self.engine.arguments]

    def _user(self) -> dict[str, Any]:
        """Return the user of the container: a socket accepts its own user and root only, so that is us."""
        us = os.getuid()
        if self.engine.user is None and self.socket is not None and us not in {0, self.daemon.user}:
            return {
                "user": f"{us}:{os.getgid()}",
                "group_add": [str(group) for group in os.getgroups()],
            }
        return {"user": self.engine.user}

    def start(self) -> Endpoint:
        """Start the server and wait until it answers: its model has loaded then (server.cc).

        Raises:
            LoadFailed: The server refused the model.
            ServerDied: The container ended otherwise.
            ServerTimeout: The model did not load by the deadline.
            EngineUnavailable: The image cannot run, or is no TensorFlow Serving.
        """
        from docker.errors import APIError

        self.daemon.allow(self.deadline.at_most(_CALL_SECONDS))
        try:
            _finish(self.container.start)
        except APIError as error:
            if refusal_of(error) is not Refusal.NO_PROGRAM:
                raise
            message = f"the image {self.image.name} cannot be started: {error.explanation}"
            raise EngineUnavailable(message, hint=_IMAGE_HINT) from error
        self._asking.start()
        # gRPC, for `_answers`: it takes 70 ms to import, in which the server already loads.
        import servingrepo.servers.client  # noqa: F401

        while True:
            self._check_alive()
            for _ in range(_POLLS_PER_QUESTION):
                for endpoint in self._endpoints():
                    if self._answers(endpoint):
                        return endpoint
                if self.deadline.passed:
                    raise self._too_late()
                self.deadline.pause(_POLL_SECONDS)

    def _too_late(self) -> ServerTimeout:
        return ServerTimeout(
            f"the container had not loaded {self.what} after {self.deadline.seconds:.3g} s",
            hint="give it longer with --timeout SECONDS; if its log says that it serves, this machine does "
            "not reach it: --docker-network NAME puts it into a network that this machine reaches",
            problems=[text for text in (self.image.doubt, self.last_answer) if text],
        )

    def _endpoints(self) -> list[Endpoint]:
        """Return the addresses at which the server may answer, likeliest first.

        Raises:
            EngineUnavailable: The ssh connection does not forward a port.
        """
        network = self.network
        if self.socket is not None:
            # The server can put a link there, which would lead us elsewhere.
            is_there = self.socket.is_socket() and not self.socket.is_symlink()
            return [Endpoint.unix(self.socket)] if is_there else []
        if network == "host":
            return [self.daemon.reach(self.port)]
        settings = self.container.attrs["NetworkSettings"]
        inside = (settings["Networks"].get(network or "") or {}).get("IPAddress")
        found = [Endpoint(inside, 8500)] if inside and network in self.networks else []
        bindings = (settings["Ports"] or {}).get(GRPC_PORT) or []
        found += [self.daemon.reach(int(port["HostPort"])) for port in bindings[:1]]
        if inside and network not in self.networks and self.daemon.local:
            found.append(Endpoint(inside, 8500))
        return found

    def _answers(self, endpoint: Endpoint) -> bool:
        from servingrepo.servers.client import ServingClient, SpeaksNoGrpc

        # Docker's proxy accepts connections before the server listens, so only an answer counts.
        try:
            with ServingClient(endpoint) as client:
                client.status(self.model, timeout=max(0.1, self.deadline.at_most(1.0)))
        except SpeaksNoGrpc as error:
            raise self._no_serving(error.message) from error
        except (EndpointUnreachable, ServerTimeout) as error:
            self.last_answer = error.message
            return False
        except RequestRefused as error:
            raise self._no_serving(error.text) from error
        return True

    def _no_serving(self, text: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"what answers in the container of {self.image.name} is no TensorFlow Serving: {text}",
            hint=_IMAGE_HINT,
        )

    def server_version(self) -> str:
        """Return the version that the server printed, else the image's name."""
        self._asking.join(self.deadline.at_most(_VERSION_SECONDS))
        return self._version[0] if self._version else f"unknown version, image {self.image.name}"

    def _ask_version(self) -> None:
        """Ask for the version while the model loads, because the answer takes a while."""
        # The container may end meanwhile, or have no such program: then there is no version.
        with suppress(Exception):
            for command in (["nice", "-n", "19", *_VERSION], _VERSION):  # loading comes first
                result = self.container.exec_run(command)
                lines = result.output.decode(errors="replace").splitlines()
                found = [line.strip() for line in lines if line.startswith("TensorFlow")]
                if result.exit_code == 0 and found:
                    self._version.append("; ".join(found))
                    return

    def _check_alive(self) -> None:
        """Check that the container still runs.

        Raises:
            LoadFailed, ServerDied, EngineUnavailable: It does not, for this reason.
        """
        self.daemon.allow(self.deadline.at_most(_CALL_SECONDS))
        state = self._state()
        if state["Status"] in {"created", "running", "restarting", "paused"}:
            return
        if int(state["ExitCode"]) == _KILLED and not state.get("OOMKilled"):
            # During its removal a container looks killed for a moment.
            self.deadline.pause(0.3)
            state = self._state()
        self._save_log()
        code = int(state["ExitCode"])
        error = self._cause(code, out_of_memory=bool(state.get("OOMKilled")))
        error.add_details(exit_code=code, container=self.container.id)
        error.log = error.log or tail(self.log) or None
        raise error

    def _state(self) -> dict[str, Any]:
        """Ask for the container's state.

        Raises:
            ServerDied: Another program removed it.
        """
        from docker.errors import NotFound

        try:
            self.container.reload()
        except NotFound as error:
            self.exists = False
            raise removed() from error
        return dict(self.container.attrs["State"])

    def _cause(self, code: int, *, out_of_memory: bool) -> ServingRepoError:
        """Return the error for the end of the container."""
        image, architecture = self.image, self.daemon.architecture
        if out_of_memory:
            memory = self.engine.memory
            return ServerDied(
                f"the container ran out of memory while serving {self.what} (exit code {code})"
                + (f": it may have {memory}" if memory else ""),
                hint="give it more with --memory, or serve a smaller model",
            )
        if code == _KILLED:
            return ServerDied(
                f"the container of {self.what} was killed (exit code {code}): by a command, or because the machine "
                "ran out of memory",
                hint="check the machine's memory and its kernel log, then try again",
            )
        if "exec format error" in self.log.lower():
            return EngineUnavailable(
                f"the image {image.name} is for {image.architecture or 'another machine'}, which the Docker daemon's "
                f"machine ({architecture}) cannot run (exit code {code})",
                hint=f"use an image for {architecture}, or set up emulation there",
            )
        if code in _NOT_RUNNABLE:
            message = f"the image {image.name} could not run its entrypoint (exit code {code})"
            return EngineUnavailable(message, hint=_IMAGE_HINT)
        error = why_it_ended(code, self.log, self.what)
        if not isinstance(error, LoadFailed) and (code == 0 or image.doubt):
            return EngineUnavailable(
                f"the container of {image.name} ended with code {code} without serving anything",
                hint=_IMAGE_HINT,
                problems=[image.doubt] if image.doubt else (),
            )
        return error

    def explained(self, error: ServingRepoError) -> ServingRepoError:
        """Add the log to an error. Where the container's end caused it, return the error for that instead."""
        if isinstance(error, DaemonSilent | DaemonUnreachable):
            self.silent = True
            return error
        if self.container is None or not self.exists:
            return error
        self.daemon.allow(_LAST_WORDS_SECONDS)
        if isinstance(error, EndpointUnreachable | ServerTimeout):
            try:
                self._check_alive()
            except ServingRepoError as cause:
                cause.problems = (*error.problems, *cause.problems)
                return cause
            except Exception:  # noqa: BLE001 - the daemon went too: report what happened first
                self.silent = True
                return error
        if error.log is None:
            self._save_log()
            error.log = tail(self.log) or None
        return error

    def printed(self) -> str:
        """Return the server's standard output. It logs to standard error."""
        self.daemon.allow(self.deadline.left)
        return str(self.container.logs(stderr=False).decode(errors="replace"))

    def _save_log(self) -> None:
        """Keep the end of the log, which is lost with the container."""
        from docker.errors import DockerException

        with suppress(DockerException, OSError):
            self.log = self.container.logs(tail=_LOG_LINES).decode(errors="replace")

    def remove(self) -> tuple[str, ...]:
        """Remove the container. Return a note if that fails."""
        from docker.errors import APIError, DockerException

        if not self.exists:
            return ()
        self.daemon.allow(_REMOVE_SECONDS_IF_SILENT if self.silent else _REMOVE_SECONDS)

        patience = Deadline.after(_CONFLICT_SECONDS)

        def call() -> None:
            while True:
                try:
                    self.daemon.client.api.remove_container(self.name, force=True, v=True)
                except APIError as error:
                    if error.status_code == _NOT_FOUND:
                        return
                    # The daemon starts it, or another program removes it: both end soon.
                    if error.status_code != _CONFLICT or patience.passed:
                        raise
                    patience.pause(_POLL_SECONDS)
                else:
                    return

        try:
            _finish(call)
        except (DockerException, OSError) as error:
            left = f"the container {self.name} may be left behind, because it could not be removed: {error}"
            return (f"{left}; the next command that uses Docker removes it",)
        self.exists = False
        return ()


def _finish(call: Callable[[], T]) -> T:
    """Make a call to the daemon and wait for its end, even if a signal comes; raise what the signal raises then.

    The call runs in a thread, because Python runs signal handlers in the main thread only.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # Thread.join would take an interrupted thread for an ended one (CPython 3.11, threading.py).
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=run, name="call", daemon=True).start()
        ended.wait()
    except BaseException:
        # The signal may have come while the thread was being started.
        if begun.wait(_BEGIN_SECONDS):
            ended.wait(_REMOVE_SECONDS)
        raise
    if errors:
        raise errors[0]
    return results[0]
