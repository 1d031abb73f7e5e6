"""The files of a container: mounted if the daemon sees them, else copied as a stream."""

from __future__ import annotations

import base64
import json
import os
import stat
import tarfile
import threading
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from servingrepo.errors import EngineUnavailable
from servingrepo.modelconfig import EMPTY, pin, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servingrepo.servers.engines.docker_daemon import Daemon

__all__ = [
    "CONFIG_FOLDER",
    "SOCKET_FOLDER",
    "copy_into",
    "is_readable_for_all",
    "is_seen",
    "write_config",
]

CONFIG_FOLDER = "/servingrepo"
"""The folder of the config in the container."""
SOCKET_FOLDER = "/servingrepo-socket"
"""The folder of the server's socket in the container, if we see that here."""

_BLOCK = 1 << 20
_FOR_ALL = 0o777


def write_config(folder: Path, versions: Mapping[str, int]) -> tuple[Path, Path]:
    """Write the container's config, and make a folder for its socket; return both folders.

    Any user in the container may read the first and write the second. On this machine, only we can enter the folder
    around both; mounts do not go through it.

    Args:
        folder: The folder for both, which no other user may enter.
        versions: The version of each model to serve.
    """
    config, socket = folder / "config", folder / "socket"
    config.mkdir()
    config.chmod(0o755)
    file = config / "models.config"
    pinned = EMPTY
    for model, version in versions.items():
        pinned = pin(pinned, name=model, base_path=f"/models/{model}", versions=[version])
    file.write_text(render(pinned))
    file.chmod(0o644)
    socket.mkdir()
    socket.chmod(_FOR_ALL)
    return config, socket


def is_readable_for_all(tree: Path) -> bool:
    """Tell whether any user can read a whole tree, as published versions allow and a run's export may not."""
    paths = [tree, *tree.rglob("*")]
    wanted = ((path, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)) for path in paths)
    return all(path.stat().st_mode & bits == bits for path, bits in wanted)


def is_seen(daemon: Daemon, container: str, inside: str, source: Path) -> bool:
    """Tell whether the mount at `inside` is our `source`, and not another directory on the daemon's machine.

    It compares size and time of a file on both sides. The daemon returns them in a header (ContainerArchiveInfo): to
    get the archive itself takes eight times as long.
    """
    file = next((one for one in sorted(source.iterdir()) if one.is_file()), None)
    if file is None:
        return False
    api = daemon.client.api
    answer = api.head(
        f"{api.base_url}/v{api.api_version}/containers/{container}/archive",
        params={"path": f"{inside}/{file.name}"},
        timeout=api.timeout,
    )
    header = answer.headers.get("X-Docker-Container-Path-Stat", "")
    if not answer.ok or not header:
        return False
    seen = json.loads(base64.b64decode(header))
    ours = file.stat()
    written = datetime.fromtimestamp(int(ours.st_mtime), UTC).isoformat().removesuffix("+00:00")
    return bool(seen["size"] == ours.st_size and seen["mtime"].startswith(written))


def copy_into(container: Any, files: Mapping[str, Path], *, what: str) -> None:
    """Copy trees into a container before its start, in constant memory. Any user in the container can read them.

    Raises:
        EngineUnavailable: A file cannot be read here. The SDK raises the daemon's errors.
    """
    reading, writing = os.pipe()
    trouble: list[OSError] = []

    def pack() -> None:
        try:
            with (
                os.fdopen(writing, "wb") as stream,
                tarfile.open(
                    fileobj=stream, mode="w|", dereference=True, bufsize=_BLOCK
                ) as archive,
            ):
                for inside, source in files.items():
                    archive.add(source, arcname=inside.lstrip("/"), filter=_for_all_users)
        except BrokenPipeError:
            pass  # the daemon stopped to read, and its answer says why
        except OSError as error:
            trouble.append(error)

    packer = threading.Thread(target=pack, name="packer", daemon=True)
    packer.start()
    try:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            # Blocks, because some versions of requests read a file line by line.
            blocks: Iterator[bytes] = iter(partial(stream.read, _BLOCK), b"")
            container.put_archive("/", blocks)
    finally:
        packer.join()
    if trouble:
        raise EngineUnavailable(
            f"{what} cannot be copied into a container: {trouble[0]}",
            hint="can this user read all of the export?",
        ) from trouble[0]


def _for_all_users(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
