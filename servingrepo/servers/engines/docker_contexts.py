"""Where the docker command would look for its daemon: DOCKER_HOST, else a context by name, else the socket.

Contexts are read from the docker command's own files (docker/cli, cli/context/store); the SDK finds them only
where there is a config.json beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from servingrepo.errors import EngineUnavailable

__all__ = ["Place", "locate"]

_DEFAULT = "unix:///var/run/docker.sock"


class Place(msgspec.Struct, frozen=True):
    """Where a daemon is, and the SDK's TLSConfig for it, or False."""

    url: str
    tls: Any = False


def locate() -> Place:
    """Return where the daemon is.

    Raises:
        EngineUnavailable: The settings of the docker command cannot be used.
    """
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        if url := os.environ.get("DOCKER_HOST"):
            return Place(url, kwargs_from_env().get("tls", False))
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        name = os.environ.get("DOCKER_CONTEXT") or _current(folder)
        return _read(folder, name) if name not in {"", "default"} else Place(_DEFAULT)
    except (DockerException, OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"the settings of the docker command cannot be used: {error}",
            hint="look at DOCKER_HOST, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY and docker context ls",
        ) from error


def _current(folder: Path) -> str:
    try:
        content = (folder / "config.json").read_bytes()
    except FileNotFoundError:
        return ""
    return str(json.loads(content).get("currentContext", ""))


def _read(folder: Path, name: str) -> Place:
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
        return Place(url)
    return Place(
        url,
        TLSConfig(
            client_cert=(str(cert), str(key)) if cert.exists() else None,
            ca_cert=str(ca) if ca.exists() else None,
            verify=not endpoint.get("SkipTLSVerify", False),
        ),
    )
