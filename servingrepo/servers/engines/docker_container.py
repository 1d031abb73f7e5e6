"""One container from create to remove. Every call to the daemon that must not be cut in two is not."""

from __future__ import annotations

import os
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EndpointUnreachable,
    EngineUnavailable,
    RequestRefused,
    ServerTimeout,
    ServingRepoError,
)
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.docker_daemon import (
    against_a_socket,
    comes_from_daemon,
    is_in_container,
    removed,
)
from servingrepo.servers.engines.docker_endings import IMAGE_HINT, KILLED, why_container_ended
from servingrepo.servers.engines.docker_files import (
    CONFIG_FOLDER,
    SOCKET_FOLDER,
    copy_into,
    is_readable_for_all,
    is_seen,
)
from servingrepo.servers.engines.docker_images import GRPC_PORT, ImageFacts
from servingrepo.servers.engines.docker_reaping import labels
from servingrepo.servers.engines.processes import free_port, tail
from servingrepo.servers.sockets import SOCKET
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from servingrepo.servers.engines.docker import DockerEngine
    from servingrepo.servers.engines.docker_daemon import Daemon

__all__ = ["Container"]

T = TypeVar("T")

_POLL_SECONDS = 0.03
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
_NOT_GRPC = ("http1.x server", "Failed parsing HTTP/2")
"""What gRPC says of something that answers, and in another language."""


class Container:
    """A server in a container. `create`, `start`, then `remove` in any case."""

    def __init__(
        self,
        engine: DockerEngine,
        daemon: Daemon,
        image: ImageFacts,
        *,
        networks: Mapping[str, str],
        model: str,
        version: int,
        deadline: Deadline,
        txid: str,
    ) -> None:
        self.engine = engine
        self.daemon = daemon
        self.image = image
        self.networks = networks
        self.model = model
        self.version = version
        self.deadline = deadline
        self.txid = txid
        # Named by us, so that it can be removed even where the answer to its creation was never read.
        self.name = f"servingrepo-{uuid.uuid4().hex[:16]}"
        self.socket: Path | None = None  # where it listens; None if that is a port
        self.port = 0  # on the daemon's host, where the container shares its network
        self.container: Any = None
        self.exists = False
        self.silent = False
        self.log = ""
        self.said = ""
        self._version: list[str] = []
        self._asking = threading.Thread(target=self._ask_version, name="version", daemon=True)

    @property
    def what(self) -> str:
        """The model and version that it is for."""
        return f"{self.model}@{self.version}"

    @property
    def network(self) -> str | None:
        """The network to join: the one asked for, else one that we are in ourselves."""
        return self.engine.network or next(iter(self.networks), None)

    # --- create ---------------------------------------------------------------------------------

    def create(self, export: Path, config: Path, socket: Path) -> None:
        """Create the container: with our files mounted where the daemon sees them, else with copies of them.

        Where it can listen on a socket in a mounted folder, nobody else on any machine reaches it; else on a port.

        Raises:
            EngineUnavailable: There is no way to do both what was asked and what is needed.
        """
        model = {f"/models/{self.model}/{self.version}": export}
        settings = {CONFIG_FOLDER: config}
        against = against_a_socket(self.daemon, self.engine.user)
        self.socket = None if against else socket / SOCKET
        if self.daemon.local:
            ours = settings if against else {**settings, SOCKET_FOLDER: socket}
            if self._may_mount(export) and self._create_mounted({**model, **ours}):
                return
            if self.socket is not None and self._create_mounted(ours):
                self._copy(model)
                return
        self.socket = None
        if self.network == "none":
            raise EngineUnavailable(
                "a container without a network is talked to through a socket in a mounted folder, but "
                + (against or f"the Docker daemon at {self.daemon.url} does not see our files"),
                hint="leave --docker-network none out",
            )
        self._create({})
        self._copy({**model, **settings})

    def _may_mount(self, export: Path) -> bool:
        """Tell whether whoever the server runs as can read the export, as far as its modes say."""
        return self.engine.user is None or is_readable_for_all(export)

    def _create_mounted(self, files: Mapping[str, Path]) -> bool:
        """Create the container with mounts; tell whether it sees our files there.

        A path that is not there is refused by the daemon. Those of config and socket are random; in a container of
        our own, a namesake of the export may be there instead of it.
        """
        from docker.errors import APIError

        try:
            self._create(files)
        except APIError as error:
            if "invalid mount config" in (error.explanation or ""):
                return False
            raise
        exports = [one for one in files.items() if one[0] not in {CONFIG_FOLDER, SOCKET_FOLDER}]
        if not is_in_container() or all(
            is_seen(self.daemon, self.name, target, export) for target, export in exports
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
            self.exists = True  # as far as we know, from here on
            self.container = self.daemon.client.containers.create(self.image.id, **options)

        _not_cut_in_two(call)

    def _options(self, binds: Mapping[str, Path]) -> dict[str, Any]:
        from docker.types import DeviceRequest, Mount

        engine, network = self.engine, self.network
        options: dict[str, Any] = {
            "name": self.name,
            "command": self._command(),
            "mounts": [
                Mount(
                    target,
                    str(source.resolve()),
                    type="bind",
                    read_only=target != SOCKET_FOLDER,
                )
                for target, source in binds.items()
            ],
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
        """Return the server's flags. The entrypoint puts its own before them, and the last one counts."""
        flags = [
            f"--model_config_file={CONFIG_FOLDER}/models.config",
            "--max_num_load_retries=0",
            "--allow_version_labels_for_unavailable_models=true",
            "--rest_api_port=0",
        ]
        if self.socket is not None:
            flags += [f"--grpc_socket_path={SOCKET_FOLDER}/{SOCKET}", "--port=0"]
        elif self.network == "host":
            # 8500 there is the machine's, and may well be in use.
            self.port = free_port()
            flags.append(f"--port={self.port}")
        return [*flags, *self.engine.arguments]

    def _user(self) -> dict[str, Any]:
        """Return who to run as: only its own user and root can connect to a socket, and we may be neither."""
        us = os.getuid()
        if self.engine.user is None and self.socket is not None and us not in {0, self.daemon.user}:
            return {
                "user": f"{us}:{os.getgid()}",
                "group_add": [str(one) for one in os.getgroups()],
            }
        return {"user": self.engine.user}

    # --- start ----------------------------------------------------------------------------------

    def start(self) -> Endpoint:
        """Start the server and wait until it answers: then its model has loaded (server.cc).

        Raises:
            ServerDied, LoadFailed, ServerTimeout: As they say.
            EngineUnavailable: The image cannot be run, or is no TensorFlow Serving.
        """
        from docker.errors import APIError

        self.daemon.allow(self.deadline.at_most(_CALL_SECONDS))
        try:
            _not_cut_in_two(self.container.start)
        except APIError as error:
            text = error.explanation or ""
            if "exec" not in text or "network" in text:
                raise
            raise EngineUnavailable(
                f"the image {self.image.name} cannot be started: {text}", hint=IMAGE_HINT
            ) from error
        self._asking.start()
        while True:
            self._check_alive()
            for endpoint in self._endpoints():
                if self._answers(endpoint):
                    return endpoint
            if self.deadline.passed:
                raise self._too_slow()
            self.deadline.pause(_POLL_SECONDS)

    def _endpoints(self) -> list[Endpoint]:
        """Return where the server may be reached from here, likeliest first.

        Raises:
            EngineUnavailable: Nowhere.
        """
        network = self.network
        if self.socket is not None:
            # The server may put there what it wants; a link would lead us elsewhere.
            is_there = self.socket.is_socket() and not self.socket.is_symlink()
            return [Endpoint.unix(self.socket)] if is_there else []
        if network == "host":
            return [self.daemon.reach(self.port)]
        settings = self.container.attrs["NetworkSettings"]
        inside = (settings["Networks"].get(network or "") or {}).get("IPAddress")
        found = [Endpoint(inside, 8500)] if inside and network in self.networks else []
        bindings = (settings["Ports"] or {}).get(GRPC_PORT) or []
        found += [self.daemon.reach(int(one["HostPort"])) for one in bindings[:1]]
        if inside and network not in self.networks and self.daemon.local:
            found.append(Endpoint(inside, 8500))
        return found

    def _answers(self, endpoint: Endpoint) -> bool:
        # Docker's proxy accepts connections before the server listens, so only an answer counts.
        try:
            with ServingClient(endpoint) as client:
                client.status(self.model, timeout=max(0.1, self.deadline.at_most(1.0)))
        except (EndpointUnreachable, ServerTimeout) as error:
            self.said = error.message
            if not any(words in error.message for words in _NOT_GRPC):
                return False
            raise self._no_serving(error.message) from error
        except RequestRefused as refused:
            raise self._no_serving(refused.text) from refused
        return True

    def _no_serving(self, text: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"what answers in the container of {self.image.name} is no TensorFlow Serving: {text}",
            hint=IMAGE_HINT,
        )

    def _too_slow(self) -> ServerTimeout:
        return ServerTimeout(
            f"the container had not loaded {self.what} after {self.deadline.seconds:.3g} s",
            hint="give it longer with --timeout SECONDS; where its log says that it serves, it is not reached from "
            "here: --docker-network NAME puts it where it is",
            problems=[one for one in (self.image.doubt, self.said) if one],
        )

    def server_version(self) -> str:
        """Return what the server said of its version; the image's name where it said nothing."""
        self._asking.join(self.deadline.at_most(_VERSION_SECONDS))
        return self._version[0] if self._version else f"unknown version, image {self.image.name}"

    def _ask_version(self) -> None:
        """Ask while the model is loading: it takes the server a while to say it."""
        # A container that ends meanwhile, or has no such program: then there is no answer.
        with suppress(Exception):
            for command in (["nice", "-n", "19", *_VERSION], _VERSION):  # loading comes first
                result = self.container.exec_run(command)
                lines = result.output.decode(errors="replace").splitlines()
                found = [line.strip() for line in lines if line.startswith("TensorFlow")]
                if result.exit_code == 0 and found:
                    self._version.append("; ".join(found))
                    return

    # --- end ------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        """See that the container still runs.

        Raises:
            LoadFailed, ServerDied, EngineUnavailable: It does not.
        """
        self.daemon.allow(self.deadline.at_most(_CALL_SECONDS))
        state = self._state()
        if state["Status"] in {"created", "running", "restarting", "paused"}:
            return
        if int(state["ExitCode"]) == KILLED and not state.get("OOMKilled"):
            # Being removed by somebody looks like being killed, for a moment.
            self.deadline.pause(0.3)
            state = self._state()
        self._save_log()
        raise self._why_it_ended(state)

    def _state(self) -> dict[str, Any]:
        """Ask for the container's state.

        Raises:
            ServerDied: Somebody removed it.
        """
        from docker.errors import NotFound

        try:
            self.container.reload()
        except NotFound as error:
            self.exists = False
            raise removed() from error
        state: dict[str, Any] = self.container.attrs["State"]
        return state

    def _why_it_ended(self, state: dict[str, Any]) -> ServingRepoError:
        code = int(state["ExitCode"])
        error = why_container_ended(
            code,
            out_of_memory=bool(state.get("OOMKilled")),
            log=self.log,
            what=self.what,
            image=self.image,
            memory=self.engine.memory,
            architecture=self.daemon.architecture,
        )
        error.details.update(exit_code=code, container=self.container.id)
        error.log = error.log or tail(self.log) or None
        return error

    def explained(self, error: ServingRepoError) -> ServingRepoError:
        """Return the error with the log; one that says what ended the container, if that is the cause."""
        if comes_from_daemon(error):
            self.silent = True
            return error
        if self.container is None or not self.exists:
            return error
        self.daemon.allow(_LAST_WORDS_SECONDS)
        if isinstance(error, EndpointUnreachable | ServerTimeout):
            try:
                self._check_alive()
            except ServingRepoError as cause:
                return cause
            except Exception:  # noqa: BLE001 - the daemon went too: what happened first is told
                self.silent = True
                return error
        if error.log is None:
            self._save_log()
            error.log = tail(self.log) or None
        return error

    def printed(self) -> str:
        """Return what the server has printed; its log is elsewhere."""
        self.daemon.allow(self.deadline.left)
        return str(self.container.logs(stderr=False).decode(errors="replace"))

    def _save_log(self) -> None:
        """Keep the end of the log: it goes with the container."""
        from docker.errors import DockerException

        with suppress(DockerException, OSError):
            self.log = self.container.logs(tail=_LOG_LINES).decode(errors="replace")

    def remove(self) -> tuple[str, ...]:
        """Remove the container, however its entrypoint takes signals; say so where it cannot be done."""
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
                    # It is being started, or being removed by somebody: either ends.
                    if error.status_code != _CONFLICT or patience.passed:
                        raise
                    patience.pause(_POLL_SECONDS)
                else:
                    return

        try:
            _not_cut_in_two(call)
        except (DockerException, OSError) as error:
            left = (
                f"the container {self.name} may be left behind, because it could not be removed: {error}; "
                "the next command that uses Docker removes it"
            )
            return (left,)
        self.exists = False
        return ()


def _not_cut_in_two(call: Callable[[], T]) -> T:
    """Make a call that goes on to its end when a signal comes; what the signal raises is raised after it.

    Python runs signal handlers in the main thread alone, between two of its steps.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # Not Thread.join: interrupted by a signal, it takes the thread for ended (CPython 3.11, threading.py).
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
