"""The Docker daemon: where it is, the connection to it, and its errors as ours.

Nothing here knows of models. The SDK takes 250 ms to import, so that waits until a daemon is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from servingrepo.errors import (
    EngineUnavailable,
    NoSpace,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
    UsageError,
)
from servingrepo.servers.security import address_of
from servingrepo.servers.sockets import listener_at, server_folder
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.deadline import Deadline

__all__ = [
    "Daemon",
    "DaemonSilent",
    "DaemonUnreachable",
    "Refusal",
    "against_a_socket",
    "connect",
    "daemon_errors",
    "is_in_container",
    "is_silence",
    "own_networks",
    "refusal_of",
    "removed",
    "text_of",
]

_DEFAULT = "unix:///var/run/docker.sock"
_CALL_SECONDS = 60.0
_SHORTEST_CALL = 1.0
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # nosec B104 # noqa: S104 - the only way to a container on another machine
_UNSAFE = re.compile(r"^-|[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}]")
"""What a user's and a host's name may not begin with, or contain.

ssh would read a leading - as an option (-oProxyCommand=… runs a command), and hand the other characters to a shell if
its configuration has a ProxyCommand or Match exec. OpenSSH refuses these itself since 9.6.
"""
_PREFIX = "servingrepo-ssh-"
_FORWARD_SECONDS = 15.0
_END_SECONDS = 2.0


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that answers.

    Attributes:
        client: The SDK's client.
        url: Where it is.
        host: The host that published ports are on, as seen from here.
        local: Whether it is reached by a socket of this file system, so that it may see our files.
        user: Whose process listens at that socket: root, or with a rootless daemon this user; None elsewhere.
        kernel: The release of the kernel that it runs on.
        architecture: Its machine's, as images name it: amd64, arm64.
        tunnel: The ssh connection to it, if it is reached by ssh.
    """

    client: Any
    url: str
    host: str
    local: bool
    user: int | None
    kernel: str
    architecture: str
    tunnel: Tunnel | None = None

    @property
    def publish_on(self) -> str:
        """The address of the daemon's host on which it publishes ports for us: loopback if that is here."""
        return LOOPBACK if self.host == LOOPBACK else EVERYWHERE

    def reach(self, port: int) -> Endpoint:
        """Return the endpoint here of a published port.

        Raises:
            EngineUnavailable: The ssh connection does not forward it.
        """
        if self.tunnel is not None:
            return Endpoint.unix(self.tunnel.forward(port))
        return Endpoint(f"[{self.host}]" if ":" in self.host else self.host, port)

    def allow(self, seconds: float) -> None:
        """Set the time-out of each of the next calls."""
        self.client.api.timeout = max(_SHORTEST_CALL, seconds)


@contextmanager
def connect(*, deadline: Deadline) -> Iterator[Daemon]:
    """Open the daemon that DOCKER_HOST or the current docker context names, for the block.

    What the SDK raises in the block becomes one of our errors.

    Raises:
        EngineUnavailable: There is no daemon, or this user may not talk to it.
        ServerTimeout: It does not answer.
    """
    with ExitStack() as stack:
        place = _locate()
        url = place.url
        with daemon_errors(url, while_opening=True):
            tunnel = None
            if url.startswith("ssh://"):
                tunnel = stack.enter_context(_open_tunnel(url, deadline=deadline))
            reached = tunnel.url if tunnel is not None else url
            user = _knock(reached, timeout=_patience(deadline))
            client, version = _open(reached, place.tls, deadline)
            stack.callback(client.close)
        local = tunnel is None and url.startswith(("unix://", "http+unix://"))
        stack.enter_context(daemon_errors(url))
        yield Daemon(
            client=client,
            url=url,
            host=LOOPBACK if local or tunnel is not None else _host(url),
            local=local,
            user=user,
            kernel=version.get("KernelVersion", ""),
            # The name in Go, as in images.
            architecture=version.get("Arch", ""),
            tunnel=tunnel,
        )


def _open(url: str, tls: Any, deadline: Deadline) -> tuple[Any, dict[str, Any]]:
    """Make the SDK's client; return it and what the daemon says of its version."""
    import docker
    from docker.constants import MINIMUM_DOCKER_API_VERSION
    from requests.utils import get_environ_proxies

    make: Any = docker.DockerClient  # its stubs know whole seconds only
    timeout = _patience(deadline)

    def client(version: str) -> Any:
        made = make(base_url=url, tls=tls, timeout=timeout, version=version)
        if tls:
            # Else REQUESTS_CA_BUNDLE, which is for public hosts, would replace the daemon's CA.
            made.api.proxies = get_environ_proxies(made.api.base_url)
            made.api.trust_env = False
        return made

    first = client(MINIMUM_DOCKER_API_VERSION)
    try:
        version = first.api.version(api_version=False)
    finally:
        first.close()
    return client(version["ApiVersion"]), version


def _patience(deadline: Deadline) -> float:
    return max(_SHORTEST_CALL, deadline.at_most(_CALL_SECONDS))


def _knock(url: str, *, timeout: float) -> int | None:
    """Connect to the daemon's socket, close it, and return its user. Do nothing if the daemon is at a port.

    The SDK leaks a socket that does not connect, and repeats its error four times.

    Raises:
        DaemonUnreachable: Nothing listens there, or this user may not talk to it.
        DaemonSilent: It accepts no more connections.
    """
    place = urlsplit(url)
    if not place.scheme.endswith("unix"):
        return None
    try:
        return listener_at(place.netloc + place.path, timeout=timeout).user
    except (TimeoutError, BlockingIOError) as error:  # the second: its queue of callers is full
        raise DaemonSilent(url) from error
    except OSError as error:
        raise _unreachable(url, error, while_opening=True) from error


def _host(url: str) -> str:
    """Return the host of a URL; 127.0.0.1 for every name of loopback."""
    host = urlsplit(url).hostname or LOOPBACK
    address = address_of(host)
    here = host == "localhost" or (address is not None and address.is_loopback)
    return LOOPBACK if here else host


@contextmanager
def daemon_errors(url: str, *, while_opening: bool = False) -> Iterator[None]:
    """Turn what the SDK and its transport raise into our errors.

    Without a connection, the daemon was never there `while_opening`, and stopped later on.
    """
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise _refused(url, error) from error
    # KeyError: it speaks HTTP and is no Docker daemon.
    except (DockerException, requests.exceptions.RequestException, KeyError) as error:
        if is_silence(error):
            raise DaemonSilent(url) from error
        raise _unreachable(url, error, while_opening=while_opening) from error


class DaemonSilent(ServerTimeout):
    """The daemon does not answer in time: more questions to it would wait as long."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"the Docker daemon at {url} did not answer in time",
            hint="is it overloaded or stopped? docker info tells",
            details={"docker_daemon": url},
        )


class DaemonUnreachable(EngineUnavailable):
    """There is no connection to the daemon, or none any more."""

    def __init__(self, url: str, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint, details={"docker_daemon": url})


def is_silence(error: Exception) -> bool:
    """Tell whether an error of the SDK's transport is a time-out.

    A time-out while requests reads an answer is a ConnectionError, and only its text says more.
    """
    from requests.exceptions import Timeout

    return isinstance(error, Timeout) or "timed out" in str(error)


def _unreachable(url: str, error: Exception, *, while_opening: bool) -> DaemonUnreachable:
    """Return the error for a failed connection. Only the text of the SDK's error says why it failed."""
    text, daemon = str(error), f"the Docker daemon at {url}"
    if "Permission denied" in text or "PermissionError" in text:
        message = f"this user may not talk to {daemon}"
        hint = "join the group docker (or run as root), or use --engine embedded"
    elif "certificate" in text.lower() or "SSL" in text or "HTTPS" in text:
        message = f"{daemon} and this machine do not agree on TLS: {text}"
        hint = "check DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and the certificates in it"
    elif while_opening:
        message = f"there is no Docker daemon at {url}: {text}"
        hint = "start Docker, set DOCKER_HOST, or use --engine embedded"
    else:
        message = f"{daemon} stopped answering: {text}"
        hint = "start it again, and check its log"
    return DaemonUnreachable(url, message, hint=hint)


class Refusal(Enum):
    """Why the daemon refuses a call."""

    NO_SUCH_MOUNT = auto()
    CONTAINER_GONE = auto()
    NO_SPACE = auto()
    NO_GPU = auto()
    NO_NETWORK = auto()
    BAD_MEMORY = auto()
    NO_PROGRAM = auto()
    OTHER = auto()


def text_of(error: Any) -> str:
    """Return what the daemon says in a docker.errors.APIError."""
    text = error.explanation or str(error)
    if isinstance(text, bytes):  # the SDK does not decode the answer to put_archive
        text = text.decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["message"]
    return str(text)


def refusal_of(error: Any) -> Refusal:
    """Return why the daemon refuses, out of the text of a docker.errors.APIError: it has no other sign."""
    text = text_of(error)
    signs = {
        Refusal.NO_SUCH_MOUNT: "invalid mount config" in text,
        Refusal.CONTAINER_GONE: "No such container" in text or "marked for removal" in text,
        Refusal.NO_SPACE: "no space left on device" in text,
        Refusal.NO_GPU: "could not select device driver" in text,
        Refusal.NO_NETWORK: "network" in text and "not found" in text,
        Refusal.BAD_MEMORY: "memory limit" in text,
        Refusal.NO_PROGRAM: "exec" in text and "network" not in text,
    }
    return next((refusal for refusal, found in signs.items() if found), Refusal.OTHER)


def removed() -> ServerDied:
    """Return the error for a container that is not there any more."""
    return ServerDied(
        "another program removed the container while it was in use",
        hint="find out who removes containers on this daemon, then try again",
    )


def _refused(url: str, error: Any) -> ServingRepoError:
    """Return the error for a refusal, with the daemon's words (a docker.errors.APIError)."""
    text, daemon = text_of(error), f"the Docker daemon at {url}"
    match refusal_of(error):
        case Refusal.CONTAINER_GONE:
            return removed()
        case Refusal.NO_SPACE:
            return NoSpace(
                f"{daemon} has no space left: {text}",
                hint="docker system df shows what takes it; a model is copied into the container where the "
                "daemon does not see our files",
            )
        case Refusal.BAD_MEMORY:
            hint = "give it as docker takes it: 2g"
            return UsageError(f"--memory cannot be used: {text}", hint=hint)
        case Refusal.NO_GPU:
            what = "has no GPUs to give"
            hint = "install NVIDIA's container toolkit there, or leave --gpus out"
        case Refusal.NO_NETWORK:
            what, hint = "has no such network", "docker network ls shows them"
        case _:
            what, hint = "refused", "docker info and its log tell more"
    return EngineUnavailable(f"{daemon} {what}: {text}", hint=hint)


def is_in_container() -> bool:
    """Tell whether this process runs in a container, as Docker and Podman mark it."""
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def own_networks(daemon: Daemon) -> dict[str, str]:
    """Return the Docker networks of the container that we run in, by name, with our address in each.

    Empty outside of a container of this daemon. A container's host name is its id unless somebody set another;
    then its id is in /proc/self/mountinfo, where Docker mounts the container's own /etc/hostname.
    """
    from docker.errors import NotFound

    if not daemon.local or not is_in_container():
        return {}
    for name in (socket.gethostname(), _id_from_mounts()):
        if not name:
            continue
        try:
            own = daemon.client.api.inspect_container(name)
        except NotFound:
            continue
        networks = own["NetworkSettings"]["Networks"]
        return {
            network: facts["IPAddress"] for network, facts in networks.items() if facts["IPAddress"]
        }
    return {}


def against_a_socket(daemon: Daemon, user: str | None) -> str:
    """Say why we cannot connect to a socket that a container makes in a mounted folder; empty if we can.

    Args:
        daemon: The container's daemon.
        user: The server's user in the container; None leaves the choice to us.
    """
    us = os.getuid()
    if not daemon.local or daemon.kernel != os.uname().release:
        return f"the Docker daemon at {daemon.url} is on another machine, if only a virtual one"
    if us == 0:
        return ""
    rootless = daemon.user == us  # then root in the container is us, and no other user is
    same = {"0", "root"} if rootless else {str(us)}
    if user is not None and user.partition(":")[0] not in same:
        return f"only root can connect to a socket of the user {user} in the container"
    if not rootless and "name=userns" in (daemon.client.info().get("SecurityOptions") or ()):
        return f"the Docker daemon at {daemon.url} gives users in containers other numbers"
    return ""


def _id_from_mounts() -> str:
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, found, after = line.partition("/containers/")
            if found and before and "/etc/hostname" in after:
                return after.split("/", 1)[0]
    return ""


class _Place(msgspec.Struct, frozen=True):
    """Where a daemon is, and the SDK's TLSConfig for it, or False."""

    url: str
    tls: Any = False


def _locate() -> _Place:
    """Return where the docker command would look for its daemon: DOCKER_HOST, a context by name, the socket.

    Contexts come from the docker command's own files (docker/cli, cli/context/store), because the SDK finds them
    only beside a config.json.

    Raises:
        EngineUnavailable: The settings of the docker command cannot be used.
    """
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        if url := os.environ.get("DOCKER_HOST"):
            return _Place(url, kwargs_from_env().get("tls", False))
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        name = os.environ.get("DOCKER_CONTEXT") or _current_context(folder)
        return _read_context(folder, name) if name not in {"", "default"} else _Place(_DEFAULT)
    except (DockerException, OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"the settings of the docker command cannot be used: {error}",
            hint="check DOCKER_HOST, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY and docker context ls",
        ) from error


def _current_context(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return str(json.loads((folder / "config.json").read_bytes()).get("currentContext", ""))
    return ""


def _read_context(folder: Path, name: str) -> _Place:
    from docker.tls import TLSConfig

    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        content = (folder / "contexts" / "meta" / digest / "meta.json").read_bytes()
    except FileNotFoundError as error:
        raise EngineUnavailable(
            f"there is no docker context {name}", hint="docker context ls shows them"
        ) from error
    endpoint = json.loads(content)["Endpoints"]["docker"]
    url = endpoint["Host"] or _DEFAULT
    files = folder / "contexts" / "tls" / digest / "docker"
    ca, cert, key = (files / f"{one}.pem" for one in ("ca", "cert", "key"))
    if not files.is_dir():
        return _Place(url)
    return _Place(
        url,
        TLSConfig(
            client_cert=(str(cert), str(key)) if cert.exists() else None,
            ca_cert=str(ca) if ca.exists() else None,
            verify=not endpoint.get("SkipTLSVerify", False),
        ),
    )


class Tunnel:
    """An open ssh connection to the daemon's machine; `url` is the daemon's socket on this side.

    The user's own ssh program makes it, with its configuration, keys and known hosts: the SDK's way needs another
    library and forwards no ports.
    """

    def __init__(self, *, url: str, control: Path, destination: list[str]) -> None:
        self.url = url
        self._control = control
        self._destination = destination
        self._forwarded: set[int] = set()

    def forward(self, port: int) -> Path:
        """Return a socket here that leads to a loopback port there, and that only we can open.

        Raises:
            EngineUnavailable: The other side does not allow it.
        """
        here = self._control.with_name(str(port))
        if port not in self._forwarded:
            wanted = f"{here}:127.0.0.1:{port}"
            command = ["ssh", "-S", str(self._control), "-O", "forward", "-L", wanted]
            done = subprocess.run(  # nosec B603 # as below
                [*command, *self._destination],
                capture_output=True,
                text=True,
                timeout=_FORWARD_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise EngineUnavailable(
                    f"ssh does not forward port {port} of {self._destination[-1]}: {done.stderr.strip()}",
                    hint="allow TCP forwarding in its sshd_config",
                )
            self._forwarded.add(port)
        return here


@contextmanager
def _open_tunnel(url: str, *, deadline: Deadline) -> Iterator[Tunnel]:
    """Connect to the host of ssh://USER@HOST:PORT, for the block; a path names another socket there.

    The connection ends with the block. It also ends with this process, because its remote command reads from us.

    Raises:
        EngineUnavailable: There is no ssh program, or it cannot log in without asking.
        ServerTimeout: The host does not answer.
    """
    if shutil.which("ssh") is None:
        raise EngineUnavailable(
            f"{url} needs the ssh program, which is not installed", hint="install openssh-client"
        )
    parts = urlsplit(url)
    destination = _destination(parts, url)
    remote = parts.path if parts.path.strip("/") else urlsplit(_DEFAULT).path
    with server_folder(_PREFIX) as folder:
        control, here, said = folder / "c", folder / "d", folder / "said"
        options = {
            "BatchMode": "yes",  # nobody can answer questions
            "ConnectTimeout": str(max(1, int(deadline.left))),
            "ControlMaster": "yes",
            "ControlPath": str(control),
            "ControlPersist": "no",
            "ExitOnForwardFailure": "yes",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        with said.open("wb") as errors:
            process = subprocess.Popen(  # nosec B603 B607 # the user's ssh; `_destination` refuses options
                ["ssh", "-T", *settings, "-L", f"{here}:{remote}", *destination, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C goes to the whole foreground group, and we need the connection to remove the container.
                start_new_session=True,
            )
        try:
            _wait_for_ssh(process, here, said, url, deadline)
            yield Tunnel(url=f"unix://{here}", control=control, destination=destination)
        finally:
            _end_ssh(process)


def _destination(parts: SplitResult, url: str) -> list[str]:
    """Return ssh's arguments for the host of a URL. No word after `--` is an option.

    Raises:
        EngineUnavailable: The URL has no usable host.
    """
    try:
        host, user, port = parts.hostname or "", parts.username or "", parts.port
    except ValueError as error:
        raise _no_host(url, str(error)) from None
    if not host:
        raise _no_host(url, "it names no host")
    for what, name in (("user", user), ("host", host)):
        if _UNSAFE.search(name) or _UNSAFE.search(unquote(name)):
            raise _no_host(url, f"{name!r} can be no {what}'s name")
    where = f"{user}@{host}" if user else host
    return [*(["-p", str(port)] if port else []), "--", where]


def _no_host(url: str, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"the Docker daemon at {url!r} cannot be reached: {why}",
        hint="DOCKER_HOST, or the docker context in use, says so: give ssh://USER@HOST, or HOST as ssh's own "
        "configuration has it",
    )


def _wait_for_ssh(
    process: subprocess.Popen[bytes], here: Path, said: Path, url: str, deadline: Deadline
) -> None:
    """Wait until ssh has logged in: it listens for us then."""
    while not here.exists():
        if process.poll() is not None:
            text = said.read_text(errors="replace").strip()
            raise EngineUnavailable(
                f"ssh cannot log in for {url}: {text}",
                hint="try the same host with ssh -o BatchMode=yes; keys and known hosts are ssh's own",
            )
        if deadline.passed:
            raise ServerTimeout(
                f"{url} did not answer within {deadline.seconds:.3g} s", hint="is the host up?"
            )
        time.sleep(0.02)


def _end_ssh(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
