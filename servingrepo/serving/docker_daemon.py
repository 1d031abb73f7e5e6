"""The Docker daemon: found as the docker command line finds it, asked what it is, its errors made ours.

Nothing here knows of models. The SDK is imported when a daemon is first wanted: 250 ms.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from servingrepo.errors import EngineUnavailable, NoSpace, ServerTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.serving.deadline import Deadline

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_CALL_SECONDS = 60


class Daemon(msgspec.Struct, frozen=True):
    """A daemon that answers.

    Attributes:
        client: The SDK's client.
        url: Where it is.
        host: The host that published ports are on, as seen from here.
        local: Whether it is reached by a socket of this file system.
        architecture: What it runs natively, as images name it: amd64, arm64.
    """

    client: Any
    url: str
    host: str
    local: bool
    architecture: str


@contextmanager
def connect(*, deadline: Deadline) -> Iterator[Daemon]:
    """Open the daemon that DOCKER_HOST or the current docker context names, for the block.

    Raises:
        EngineUnavailable: There is none, or this user may not talk to it.
    """
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException

    timeout = int(max(1, deadline.at_most(_CALL_SECONDS)))
    url = os.environ.get("DOCKER_HOST", "")
    try:
        if url:
            client = docker.from_env(timeout=timeout, use_ssh_client=url.startswith("ssh://"))
        else:
            context = ContextAPI.get_current_context()
            url = (context.Host if context is not None else "") or "unix:///var/run/docker.sock"
            client = docker.DockerClient(
                base_url=url,
                tls=(context.TLSConfig or False) if context is not None else False,
                timeout=timeout,
                use_ssh_client=url.startswith("ssh://"),
            )
        try:
            info = client.info()
        except BaseException:
            client.close()
            raise
    except (DockerException, OSError, ValueError) as error:
        raise unavailable(url, error) from error
    machine = info.get("Architecture", "")
    local = url.startswith(("unix://", "http+unix://", "npipe://"))
    try:
        with daemon_errors(url):
            yield Daemon(
                client=client,
                url=url,
                host="127.0.0.1" if local else urlsplit(url).hostname or "127.0.0.1",
                local=local,
                architecture=_ARCHITECTURES.get(machine, machine),
            )
    finally:
        client.close()


@contextmanager
def daemon_errors(url: str) -> Iterator[None]:
    """Turn what the SDK and its transport raise into our errors."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except requests.exceptions.Timeout as error:
        raise ServerTimeout(
            f"the Docker daemon at {url} did not answer in time",
            hint="is the daemon overloaded or stopped? docker info tells; a container may be left behind: "
            "servingrepo recover removes it",
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise EngineUnavailable(
            f"the Docker daemon at {url} stopped answering: {error}",
            hint="start it again; a container may be left behind: servingrepo recover removes it",
        ) from error
    except APIError as error:
        text = error.explanation or str(error)
        if "no space left on device" in text:
            raise NoSpace(
                f"the Docker daemon at {url} has no space left: {text}",
                hint="docker system df shows what takes it; the model is copied into the container",
            ) from error
        raise EngineUnavailable(
            f"the Docker daemon at {url} refused: {text}", hint="docker info and its log tell more"
        ) from error
    except DockerException as error:
        raise unavailable(url, error) from error


def unavailable(url: str, error: Exception) -> EngineUnavailable:
    """Return the error for a daemon that cannot be used, by the cause at the bottom."""
    where = url or "unix:///var/run/docker.sock"
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnavailable(
            f"this user may not talk to the Docker daemon at {where}",
            hint="join the group docker (or run as root), or use --engine embedded",
        )
    return EngineUnavailable(
        f"there is no Docker daemon at {where}: {text}",
        hint="start Docker, set DOCKER_HOST, or use --engine embedded",
    )


def own_networks(daemon: Daemon) -> dict[str, str]:
    """Return the Docker networks of the container that we run in, by name, with our address in each.

    Empty outside of a container of this daemon. A container's host name is its id unless somebody set another;
    then its id is in /proc/self/mountinfo, where Docker mounts the container's own /etc/hostname.
    """
    from docker.errors import NotFound

    if not daemon.local or not Path("/.dockerenv").exists():
        return {}
    for name in (socket.gethostname(), _id_from_mounts()):
        if not name:
            continue
        try:
            own = daemon.client.containers.get(name)
        except NotFound:
            continue
        networks = own.attrs["NetworkSettings"]["Networks"]
        return {
            network: facts["IPAddress"] for network, facts in networks.items() if facts["IPAddress"]
        }
    return {}


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
