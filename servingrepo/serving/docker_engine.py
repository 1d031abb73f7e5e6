"""The docker engine: a TensorFlow Serving container for one version, and no container afterwards.

The code path is one for every image that speaks the official image's language: entrypoint, ports and flags of
tensorflow/serving. Files are mounted where the daemon sees our files, and copied into the container where it
does not (a remote daemon, a CI job that is itself a container, docker-in-docker).
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import (
    EndpointUnreachable,
    EngineUnavailable,
    RequestRefused,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
)
from servingrepo.modelconfig import EMPTY, pin, render
from servingrepo.serving.client import ServingClient
from servingrepo.serving.docker_daemon import Daemon, connect, own_networks
from servingrepo.serving.docker_images import ImageFacts, find_image
from servingrepo.serving.processes import RunningServer, tail, why_it_ended
from servingrepo.serving.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.serving.deadline import Deadline

DEFAULT_IMAGE = "tensorflow/serving:2.19.1"
GRPC_PORT = "8500/tcp"
OWNER_LABEL = "servingrepo.owner"
TXID_LABEL = "servingrepo.txid"
EXPIRES_LABEL = "servingrepo.expires"
CONFIG_FOLDER = "/servingrepo"
_EXPIRES_MARGIN = 300.0
_OUT_OF_MEMORY = 137
_NOT_RUNNABLE = (126, 127)


class DockerEngine(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a container.

    Attributes:
        image: By tag or digest.
        pull: Whether an image that is not there may be pulled.
        platform: `linux/arm64` and the like; None is the daemon's own.
        gpus: "all", a number, or nothing.
        memory: As docker takes it: "2g".
        network: The Docker network that the container joins; `none` talks through a socket in a mount.
        user: Who the server runs as in the container: "1000:1000".
        arguments: More flags for the server.
    """

    image: str = DEFAULT_IMAGE
    pull: bool = False
    platform: str | None = None
    gpus: str | None = None
    memory: str | None = None
    network: str | None = None
    user: str | None = None
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What records call this engine."""
        return "docker"

    @contextmanager
    def serve(
        self, *, model: str, version: int, export: Path, deadline: Deadline, txid: str = ""
    ) -> Iterator[RunningServer]:
        """Serve `export` in a container as that version of the model, for the block.

        Whatever ends the block, the container is removed, and its log is part of the error.

        Raises:
            EngineUnavailable: There is no daemon, image, or permission; the image is for another machine.
            LoadFailed: The server refused the model; the message has its own words.
            ServerDied: The container ended otherwise, or somebody removed it.
            ServerTimeout: The model was not loaded by the deadline.
            NoSpace: The daemon has no room for the copy.
        """
        with (
            connect(deadline=deadline) as daemon,
            tempfile.TemporaryDirectory(prefix="servingrepo-engine-") as folder,
        ):
            reap_expired(daemon)
            image = find_image(
                daemon, self.image, pull=self.pull, platform=self.platform, deadline=deadline
            )
            config = Path(folder, "config")
            _write_config(config, model, version)
            box = _Container(
                self,
                daemon,
                image,
                model=model,
                version=version,
                deadline=deadline,
                txid=txid,
            )
            try:
                box.create(export, config)
                endpoint = box.start(config)
                yield RunningServer(
                    endpoint=endpoint,
                    engine=self.name,
                    server=box.server_version(),
                    image=str(image),
                )
            except ServingRepoError as error:
                failure = box.explained(error)
                if failure is error:
                    raise
                raise failure from error
            finally:
                box.remove()


class _Container:
    """One container from create to remove."""

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
        self.model = model
        self.version = version
        self.deadline = deadline
        self.txid = txid
        self.networks = own_networks(daemon)
        self.container: Any = None
        self.log = ""

    @property
    def what(self) -> str:
        return f"{self.model}@{self.version}"

    def create(self, export: Path, config: Path) -> None:
        """Create the container with the files mounted; where the daemon does not see them, copied."""
        from docker.errors import APIError

        target = f"/models/{self.model}/{self.version}"
        try:
            self.container = self._create({target: export, CONFIG_FOLDER: config})
        except APIError as error:
            if "bind source path does not exist" not in (error.explanation or ""):
                raise
            if self.engine.network == "none":
                raise EngineUnavailable(
                    f"the Docker daemon at {self.daemon.url} does not see our files, so a container without "
                    "a network cannot be talked to",
                    hint="leave --docker-network none out",
                ) from error
            self.container = self._create({})
            self._copy({target: export, CONFIG_FOLDER: config})

    def _create(self, binds: dict[str, Path]) -> Any:
        from docker.types import DeviceRequest, Mount

        engine = self.engine
        mounts = [
            Mount(
                target,
                str(source.resolve()),
                type="bind",
                read_only=not (target == CONFIG_FOLDER and engine.network == "none"),
            )
            for target, source in binds.items()
        ]
        options: dict[str, Any] = {}
        if engine.gpus:
            count = -1 if engine.gpus == "all" else int(engine.gpus)
            options["device_requests"] = [DeviceRequest(count=count, capabilities=[["gpu"]])]
        if network := self._network():
            options["network"] = network
        if network != "none":
            # Loopback of the daemon's host; a daemon elsewhere is reached by its host's address.
            address = "127.0.0.1" if self.daemon.local else "0.0.0.0"  # noqa: S104
            options["ports"] = {GRPC_PORT: (address, None)}
        return self.daemon.client.containers.create(
            self.image.id,
            command=[
                f"--model_config_file={CONFIG_FOLDER}/models.config",
                "--max_num_load_retries=0",
                "--allow_version_labels_for_unavailable_models=true",
                *([f"--grpc_socket_path={CONFIG_FOLDER}/grpc.sock"] if network == "none" else []),
                *engine.arguments,
            ],
            mounts=mounts,
            init=True,
            labels={
                OWNER_LABEL: f"{os.uname().nodename}:{os.getpid()}",
                TXID_LABEL: self.txid,
                EXPIRES_LABEL: str(int(time.time() + self.deadline.left + _EXPIRES_MARGIN)),
            },
            platform=engine.platform,
            mem_limit=engine.memory,
            user=engine.user,
            **options,
        )

    def _network(self) -> str | None:
        """Return the network to join: the one asked for, else one that we are in ourselves."""
        return self.engine.network or next(iter(self.networks), None)

    def _copy(self, files: dict[str, Path]) -> None:
        """Copy trees into the container, as a tar stream of constant memory."""
        reading, writing = os.pipe()
        trouble: list[BaseException] = []

        def pack() -> None:
            try:
                with (
                    os.fdopen(writing, "wb") as stream,
                    tarfile.open(fileobj=stream, mode="w|", dereference=True) as archive,
                ):
                    for target, source in files.items():
                        archive.add(source, arcname=target.lstrip("/"), filter=_for_anybody)
            except BaseException as error:  # noqa: BLE001 - told to the caller below
                trouble.append(error)

        packer = threading.Thread(target=pack, name="packer")
        packer.start()
        try:
            with os.fdopen(reading, "rb") as stream:
                self.container.put_archive("/", stream)
        finally:
            packer.join()
        if trouble:
            raise EngineUnavailable(
                f"{self.what} cannot be copied into a container: {trouble[0]}"
            ) from trouble[0]

    def start(self, config: Path) -> Endpoint:
        """Start the server and wait until it answers: then its model has loaded (server.cc).

        Raises:
            ServerDied, LoadFailed, ServerTimeout: As they say.
        """
        self.container.start()
        while True:
            self._check_alive()
            for endpoint in self._endpoints(config):
                if self._answers(endpoint):
                    return endpoint
            if self.deadline.passed:
                raise ServerTimeout(
                    f"the container had not loaded {self.what} after {self.deadline.seconds:.3g} s",
                    hint="give it longer with --timeout SECONDS, or look at its log below",
                )
            self.deadline.pause(0.05)

    def _endpoints(self, config: Path) -> list[Endpoint]:
        """Return where the server may be reached from here, likeliest first."""
        network = self._network()
        if network == "none":
            return [Endpoint.unix(config / "grpc.sock")]
        settings = self.container.attrs["NetworkSettings"]
        inside = (settings["Networks"].get(network or "") or {}).get("IPAddress")
        found = [Endpoint(inside, 8500)] if inside and network in self.networks else []
        bindings = (settings["Ports"] or {}).get(GRPC_PORT) or []
        found += [Endpoint(self.daemon.host, int(one["HostPort"])) for one in bindings[:1]]
        if inside and network not in self.networks:
            found.append(Endpoint(inside, 8500))
        return found

    def _answers(self, endpoint: Endpoint) -> bool:
        # Docker's proxy accepts connections before the server listens, so only an answer counts.
        try:
            with ServingClient(endpoint) as client:
                client.status(self.model, timeout=1.0)
        except (EndpointUnreachable, ServerTimeout):
            return False
        except RequestRefused as refused:
            raise EngineUnavailable(
                f"what answers in the container of {self.image.name} is no TensorFlow Serving: {refused.text}",
                hint="give an image with tensorflow/serving's entrypoint, ports and flags",
            ) from refused
        return True

    def _check_alive(self) -> None:
        """See that the container still runs.

        Raises:
            LoadFailed, ServerDied: It does not.
        """
        from docker.errors import NotFound

        try:
            self.container.reload()
        except NotFound as error:
            self.container = None
            raise ServerDied(
                f"the container that served {self.what} was removed by somebody else",
                hint="find out who removes containers on this daemon, then try again",
            ) from error
        state = self.container.attrs["State"]
        if state["Status"] in {"created", "running", "restarting"}:
            return
        self._save_log()
        code = int(state["ExitCode"])
        if state.get("OOMKilled") or code == _OUT_OF_MEMORY:
            raise ServerDied(
                f"the container ended with exit code {code} while loading {self.what}: it was killed, "
                "most likely because it ran out of memory",
                hint="give it more with --memory, or serve a smaller model",
                log=tail(self.log),
            )
        if code in _NOT_RUNNABLE:
            raise EngineUnavailable(
                f"the image {self.image.name} could not run its entrypoint (exit code {code})",
                hint="give an image with tensorflow/serving's entrypoint, ports and flags",
                log=tail(self.log),
            )
        raise why_it_ended(code, self.log, self.what)

    def server_version(self) -> str:
        """Ask the server in the container for its version; the image's name where it does not say."""
        result = self.container.exec_run(["tensorflow_model_server", "--version"])
        if result.exit_code != 0:
            return f"unknown version, image {self.image.name}"
        lines = result.output.decode(errors="replace").splitlines()
        return "; ".join(line.strip() for line in lines[:2] if line.strip())

    def explained(self, error: ServingRepoError) -> ServingRepoError:
        """Return the error with the log; one that says what ended the container, if that is the cause."""
        if self.container is not None and isinstance(error, EndpointUnreachable):
            try:
                self._check_alive()
            except ServingRepoError as cause:
                return cause
        if error.log is None and self.container is not None:
            self._save_log()
            error.log = tail(self.log) or None
        return error

    def _save_log(self) -> None:
        """Keep the log: it goes with the container."""
        from docker.errors import DockerException

        with suppress(DockerException, OSError):
            self.log = self.container.logs().decode(errors="replace")

    def remove(self) -> None:
        """Remove the container, however its entrypoint takes signals."""
        from docker.errors import NotFound

        if self.container is not None:
            with suppress(NotFound):
                self.container.remove(force=True, v=True)


def reap(txids: frozenset[str], *, deadline: Deadline) -> tuple[str, ...]:
    """Remove the containers of dead commands; return their ids. Nothing is done without a daemon.

    Raises:
        EngineUnavailable: The daemon is there and refuses.
    """
    with connect(deadline=deadline) as daemon:
        found = [
            container
            for txid in sorted(txids)
            for container in _labelled(daemon, f"{TXID_LABEL}={txid}")
        ]
        _remove(found)
        return tuple(container.id for container in found)


def reap_expired(daemon: Daemon) -> None:
    """Remove containers of servingrepo that outlived the deadline of whoever started them."""
    now = time.time()
    _remove(
        [
            container
            for container in _labelled(daemon, EXPIRES_LABEL)
            if float(container.labels.get(EXPIRES_LABEL, "inf")) < now
        ]
    )


def _labelled(daemon: Daemon, label: str) -> list[Any]:
    found: list[Any] = daemon.client.containers.list(
        all=True, filters={"label": label}, ignore_removed=True
    )
    return found


def _remove(containers: list[Any]) -> None:
    from docker.errors import NotFound

    for container in containers:
        with suppress(NotFound):
            container.remove(force=True, v=True)


def _write_config(folder: Path, model: str, version: int) -> None:
    """Write the config as the container sees it, readable for any user in it."""
    config = pin(EMPTY, name=model, base_path=f"/models/{model}", versions=[version])
    folder.mkdir()
    folder.parent.chmod(0o755)
    folder.chmod(0o777)  # with --docker-network none, the server's user makes its socket here
    file = folder / "models.config"
    file.write_text(render(config))
    file.chmod(0o644)


def _for_anybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a copied file readable whoever runs the server."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
