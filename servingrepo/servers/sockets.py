"""Folders for servers of our own, and the Unix sockets in them: no other user can connect, or listen in our place."""

from __future__ import annotations

import re
import socket
import struct
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import StorageFailed
from servingrepo.storage.scratch import scratch, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "PREFIX",
    "SOCKET",
    "Listener",
    "is_listening_at",
    "listener_at",
    "server_folder",
    "sweep_folders",
]

PREFIX = "servingrepo-server-"
"""How the names of engines' folders begin."""
SOCKET = "grpc.sock"
_LONGEST_NAME = "socket-grpc.sock"
"""As long as any path below such a folder may be."""

_SHORTEST = Path("/tmp")  # nosec B108 # noqa: S108 - the folder in it is made by mkdtemp
# gRPC takes an address for a URI, in which other characters are escapes or ends.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_CONNECT_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


@contextmanager
def server_folder(prefix: str = PREFIX) -> Iterator[Path]:
    """Make a folder for the block that nobody else may enter, and in which a server can listen.

    It is locked, so that the next one removes what killed processes left. It lies below TMPDIR, or in /tmp where no
    socket can be made there: its path may have 107 bytes (unix(7)), and not every file system has sockets.

    Raises:
        StorageFailed: There is no place for it.
    """
    with ExitStack() as stack:
        yield _folder(stack, prefix)


def sweep_folders() -> tuple[str, ...]:
    """Remove the folders of servers that killed processes of this user left, and return their names."""
    return tuple(name for place in dict.fromkeys(_places()) for name in sweep(place, PREFIX))


def _folder(stack: ExitStack, prefix: str) -> Path:
    problems = []
    for parent in dict.fromkeys(_places()):
        with ExitStack() as tried:
            try:
                folder = tried.enter_context(scratch(parent, prefix))
                _try_socket(folder / _LONGEST_NAME)
            except OSError as error:
                problems.append(f"{parent}: {error}")
                continue
            stack.push(tried.pop_all())
            return folder
    raise StorageFailed(
        "there is no folder for a server's socket",
        problems=problems,
        hint="set TMPDIR to a directory with a short path, on a local disk with space",
    )


def _places() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # it tries more places than TMPDIR, and none can be written
        yield Path(tempfile.gettempdir())
    yield _SHORTEST


def _try_socket(path: Path) -> None:
    """Make a socket there, and remove it.

    Raises:
        OSError: It cannot be done.
    """
    if not _PLAIN.fullmatch(str(path)):
        raise OSError("gRPC cannot be told of a path with such characters")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.unlink()


class Listener(msgspec.Struct, frozen=True):
    """Who listens, as the kernel knows it: a process, 0 if it cannot be seen from here, and its user."""

    pid: int
    user: int


def listener_at(path: str | Path, *, timeout: float = _CONNECT_SECONDS) -> Listener:
    """Connect to a socket, leave it, and return who listens there.

    Raises:
        OSError: Nobody does, or not for us.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(said)
    return Listener(pid, user)


def is_listening_at(path: Path) -> bool:
    """Tell whether somebody accepts connections there."""
    try:
        listener_at(path)
    except OSError:
        return False
    return True
