"""The Docker daemon: found as the docker command line finds it, asked what it is, its errors made ours.

Nothing here knows of models. The SDK is imported when a daemon is first wanted: 250 ms.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from servingrepo.errors import (
    EngineUnavailable,
    NoSpace,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
    UsageError,
)
from servingrepo.servers.engines.docker_contexts import locate
from servingrepo.servers.engines.docker_ssh import Tunnel, open_tunnel
from servingrepo.servers.sockets import listener_at
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.deadline import Deadline

__all__ = [
    "Daemon",
    "against_a_socket",
    "connect",
    "daemon_errors",
    "is_in_container",
    "own_networks",
]

_CALL_SECONDS = 60.0
_SHORTEST_CALL = 1.0
_FROM_DAEMON = "docker_daemon"
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # nosec B104 # noqa: S104 - the one way to a container of a daemon on another machine


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that answers.

    Attributes:
        client: The SDK's client.
        url: Where it is.
        host: The host that published ports are on, as seen from here.
        local: Whether it is reached by a socket of this file system, so that it may see our files.
        user: Whose process listens at that socket: root, or with a rootless daemon this user; None elsewhere.
        kernel: The release of the kernel that it runs on.
        architecture: What it runs natively, as images name it: amd64, arm64.
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
        """The address on the daemon's host on which ports are published for us, and for few others."""
        return LOOPBACK if self.host == LOOPBACK else EVERYWHERE

    def reach(self, port: int) -> Endpoint:
        """Return where a published port is from here.

        Raises:
            EngineUnavailable: The ssh connection does not forward it.
        """
        if self.tunnel is not None:
            return Endpoint.unix(self.tunnel.forward(port))
        return Endpoint(f"[{self.host}]" if ":" in self.host else self.host, port)

    def allow(self, seconds: float) -> None:
        """Set how long each of the next calls may be silent."""
        self.client.api.timeout = max(_SHORTEST_CALL, seconds)


@contextmanager
def connect(*, deadline: Deadline) -> Iterator[Daemon]:
    """Open the daemon that DOCKER_HOST or the current docker context names, for the block.

    What the SDK raises in the block becomes one of our errors.

    Raises:
        EngineUnavailable: There is none, or this user may not talk to it.
        ServerTimeout: It does not answer.
    """
    with ExitStack() as stack:
        place = locate()
        url = place.url
        with daemon_errors(url, while_opening=True):
            tunnel = None
            if url.startswith("ssh://"):
                tunnel = stack.enter_context(open_tunnel(url, deadline=deadline))
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
            # The Go name, which is what images have too.
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
            # Else REQUESTS_CA_BUNDLE, which is about the world's certificates, would replace the daemon's CA.
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
    """Connect to the daemon's socket and leave it; return whose it is. Where it is a port, do nothing.

    The SDK forgets to close a socket that does not connect, and tells of the failure four times over.

    Raises:
        EngineUnavailable: Nobody is there, or this user may not talk to it.
        ServerTimeout: Somebody is there and takes no more callers.
    """
    place = urlsplit(url)
    if not place.scheme.endswith("unix"):
        return None
    try:
        return listener_at(place.netloc + place.path, timeout=timeout).user
    except (TimeoutError, BlockingIOError) as error:  # the second: its queue of callers is full
        raise _silent(url) from error
    except OSError as error:
        raise _unreachable(url, error, while_opening=True) from error


def _host(url: str) -> str:
    """Return the host of a URL; every name of loopback is one to us."""
    host = urlsplit(url).hostname or LOOPBACK
    if host == "localhost":
        return LOOPBACK
    try:
        return LOOPBACK if ip_address(host).is_loopback else host
    except ValueError:
        return host


@contextmanager
def daemon_errors(url: str, *, while_opening: bool = False) -> Iterator[None]:
    """Turn what the SDK and its transport raise into our errors.

    A daemon that cannot be reached has never been there `while_opening`, and has gone later on.
    """
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except requests.exceptions.Timeout as error:
        raise _silent(url) from error
    except APIError as error:
        raise refused(url, error) from error
    # KeyError: it speaks HTTP and is no Docker daemon. A timeout while an answer is read is a ConnectionError.
    except (DockerException, requests.exceptions.RequestException, KeyError) as error:
        if "timed out" in str(error):
            raise _silent(url) from error
        raise _unreachable(url, error, while_opening=while_opening) from error


def comes_from_daemon(error: Exception) -> bool:
    """Tell whether an error says that the daemon is away or silent: it need not be asked anything more."""
    return bool(getattr(error, "details", {}).get(_FROM_DAEMON))


def _silent(url: str) -> ServerTimeout:
    return ServerTimeout(
        f"the Docker daemon at {url} did not answer in time",
        hint="is it overloaded or stopped? docker info tells",
        details={_FROM_DAEMON: url},
    )


def _unreachable(url: str, error: Exception, *, while_opening: bool) -> EngineUnavailable:
    """Return the error for a daemon that cannot be talked to, by the cause at the bottom."""
    text = str(error)
    details = {_FROM_DAEMON: url}
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnavailable(
            f"this user may not talk to the Docker daemon at {url}",
            hint="join the group docker (or run as root), or use --engine embedded",
            details=details,
        )
    if "certificate" in text.lower() or "SSL" in text or "HTTPS" in text:
        return EngineUnavailable(
            f"the Docker daemon at {url} and this machine do not agree on TLS: {text}",
            hint="look at DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and the certificates in it",
            details=details,
        )
    if not while_opening:
        return EngineUnavailable(
            f"the Docker daemon at {url} stopped answering: {text}",
            hint="start it again, and look at its log",
            details=details,
        )
    return EngineUnavailable(
        f"there is no Docker daemon at {url}: {text}",
        hint="start Docker, set DOCKER_HOST, or use --engine embedded",
        details=details,
    )


def removed() -> ServerDied:
    """Return the error for a container that is not there any more."""
    return ServerDied(
        "the container was removed by somebody else while it was in use",
        hint="find out who removes containers on this daemon, then try again",
    )


def refused(url: str, error: Any) -> ServingRepoError:
    """Return the error for what the daemon refused, with what it said (a docker.errors.APIError)."""
    text = error.explanation or str(error)
    if isinstance(text, bytes):  # the SDK leaves the answer to a copy as it came
        text = text.decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["message"]
    if "No such container" in text or "marked for removal" in text:
        return removed()
    if "no space left on device" in text:
        return NoSpace(
            f"the Docker daemon at {url} has no space left: {text}",
            hint="docker system df shows what takes it; a model is copied into the container where the "
            "daemon does not see our files",
        )
    if "could not select device driver" in text:
        return EngineUnavailable(
            f"the Docker daemon at {url} has no GPUs to give: {text}",
            hint="install NVIDIA's container toolkit there, or leave --gpus out",
        )
    if "network" in text and "not found" in text:
        return EngineUnavailable(
            f"the Docker daemon at {url} has no such network: {text}",
            hint="docker network ls shows them",
        )
    if "memory limit" in text:
        return UsageError(f"--memory cannot be used: {text}", hint="give it as docker takes it: 2g")
    return EngineUnavailable(
        f"the Docker daemon at {url} refused: {text}", hint="docker info and its log tell more"
    )


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
    """Say why we cannot connect to a socket that a user in a container makes in a mounted folder; empty if we can.

    Args:
        daemon: The container's daemon.
        user: Who the server runs as there; None leaves that to us.
    """
    us = os.getuid()
    if not daemon.local or daemon.kernel != os.uname().release:
        return f"the Docker daemon at {daemon.url} is on another machine, if only a virtual one"
    if us == 0:
        return ""
    rootless = daemon.user == us  # then its root is us, and all others are not
    same = {"0", "root"} if rootless else {str(us)}
    if user is not None and user.partition(":")[0] not in same:
        return f"only root can connect to a socket of the user {user} in the container"
    if not rootless and "name=userns" in (daemon.client.info().get("SecurityOptions") or ()):
        return f"the Docker daemon at {daemon.url} gives users in containers other numbers"
    return ""


def _id_from_mounts() -> str:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, found, after = line.partition("/containers/")
        if found and before and "/etc/hostname" in after:
            return after.split("/", 1)[0]
    return ""
