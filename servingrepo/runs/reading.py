"""Read a run's files whole, and find out later whether they have changed.

Gates judge a promotion by these files, and its record is made from them. If a file changed in between, the gates
would judge another run than the record describes.
"""

from __future__ import annotations

import hashlib
import os

import msgspec

from servingrepo.storage.beneath import opened_plain

__all__ = ["FilesRead"]

_SMALL = 1 << 20
"""Up to this size a file is compared by its content; a larger one is compared by size, time and inode."""


class FilesRead:
    """A reader that remembers the state of the files that it read."""

    def __init__(self) -> None:
        self._files: dict[str, _Read] = {}

    def whole(self, path: str, name: str, *, most: int, grows: bool = False) -> bytes:
        """Read a regular file whole.

        Args:
            path: The file, absolute and without links.
            name: Its name in messages.
            most: The most bytes that it may have.
            grows: Training may still append to it: later bytes are no change.

        Raises:
            ValueError: It has more bytes.
            OSError: It cannot be read, is no regular file, or its path has a link.
        """
        data, facts = _read(path, most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        self._remember(path, name, data, facts, grows=grows)
        return data

    def start(self, path: str, name: str, size: int) -> bytes:
        """Read at most `size` bytes from a regular file's start; return nothing if it cannot be read."""
        try:
            data, facts = _read(path, size)
        except OSError:
            return b""
        self._remember(path, name, data, facts)
        return data

    def changed(self) -> tuple[str, ...]:
        """Return the names of the files that have changed or are gone."""
        return tuple(sorted(one.name for path, one in self._files.items() if one.differs_at(path)))

    def _remember(
        self, path: str, name: str, data: bytes, facts: os.stat_result, *, grows: bool = False
    ) -> None:
        self._files[path] = _Read(
            name=name,
            length=len(data),
            digest=_digest(data) if len(data) <= _SMALL else "",
            facts=(facts.st_size, facts.st_mtime_ns, facts.st_dev, facts.st_ino),
            grows=grows,
        )


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a file when it was read; `length` is the number of bytes that were read."""

    name: str
    length: int
    digest: str
    facts: tuple[int, int, int, int]
    """Size, nanoseconds of its time, device, inode."""
    grows: bool

    def differs_at(self, path: str) -> bool:
        """Tell whether the file has changed since."""
        size, _, *same = self.facts
        try:
            data, facts = _read(path, self.length if self.digest else 0)
        except OSError:
            return True
        if self.digest:
            longer = facts.st_size > size and not self.grows
            return longer or facts.st_size < size or _digest(data) != self.digest
        if self.grows:
            return facts.st_size < size or [facts.st_dev, facts.st_ino] != same
        return (facts.st_size, facts.st_mtime_ns, facts.st_dev, facts.st_ino) != self.facts


def _read(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """Read at most `most` bytes of a regular file, and return them with its stat from before the read."""
    with opened_plain(path) as descriptor:
        facts = os.fstat(descriptor)
        pieces = []
        while most and (piece := os.read(descriptor, min(most, 1 << 20))):
            pieces.append(piece)
            most -= len(piece)
    return b"".join(pieces), facts


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
