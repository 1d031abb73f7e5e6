"""Folders for our own servers, and the Unix sockets in them, which no other user can reach or replace."""

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
    "is_listening_at",
    "listener_at",
    "server_folder",
    "sweep_folders",
]

PREFIX = "servingrepo-server-"
"""The beginning of the names of engines' folders."""
SOCKET = "grpc.sock"
_LONGEST_NAME = "socket-grpc.sock"
"""A name as long as the longest path below such a folder."""

_SHORTEST = Path("/tmp")  # nosec B108 # noqa: S108 - the folder in it is made by mkdtemp
# gRPC reads an address as a URI, in which other characters have a meaning.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_CONNECT_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


@contextmanager
def server_folder(prefix: str = PREFIX) -> Iterator[Path]:
    """Make a folder for the block that no other user may enter, and in which a server can listen.

    Its lock shows that it is in use: the next call removes folders of killed processes. It is below TMPDIR, or in
    /tmp if TMPDIR cannot hold a socket: a path may have 107 bytes (unix(7)), and not every file system has sockets.

    Raises:
        StorageFailed: There is no place for it.
    """
    problems = []
    with ExitStack() as stack:
        for parent in dict.fromkeys(_places()):
            with ExitStack() as tried:
                try:
                    folder = tried.enter_context(scratch(parent, prefix))
                    _try_socket(folder / _LONGEST_NAME)
                except OSError as error:
                    problems.append(f"{parent}: {error}")
                    continue
                stack.push(tried.pop_all())
            yield folder
            return
    raise StorageFailed(
        "there is no folder for a server's socket",
        problems=problems,
        hint="set TMPDIR to a directory with a short path, on a local disk with space",
    )


def sweep_folders() -> tuple[str, ...]:
    """Remove the folders of servers that killed processes of this user left, and return their names."""
    return tuple(name for place in dict.fromkeys(_places()) for name in sweep(place, PREFIX))


def _places() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # neither TMPDIR nor another place can be written
        yield Path(tempfile.gettempdir())
    yield _SHORTEST


def _try_socket(path: Path) -> None:
    """Make a socket at a path, and remove it.

    Raises:
        OSError: It cannot be done.
    """
    if not _PLAIN.fullmatch(str(path)):
        raise OSError("gRPC cannot use a path with such characters")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.unlink()


class Listener(msgspec.Struct, frozen=True):
    """A listener at a socket, from the kernel: its process, 0 if it is not visible here, and its user."""

    pid: int
    user: int


def listener_at(path: str | Path, *, timeout: float = _CONNECT_SECONDS) -> Listener:
    """Connect to a socket, disconnect, and return its listener.

    Raises:
        OSError: Nothing listens, or we may not connect.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(said)
    return Listener(pid, user)


def is_listening_at(path: Path) -> bool:
    """Tell whether a server accepts connections there."""
    with suppress(OSError):
        listener_at(path)
        return True
    return False
