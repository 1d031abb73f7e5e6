"""Read tar as a stream, from begin to end: pax, ustar, GNU's format and the oldest one.

Python's tarfile takes a damaged header for the end of the archive, and its bounds against hostile headers depend on
the release of Python. This reader reads only what a run needs: names, kinds, sizes and contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from servingrepo.errors import UnsafeExport
from servingrepo.runs.unpacking import CHUNK, Budget, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BrokenTar", "Read", "tar_entries"]

Read = Callable[[int], bytes]
"""A function that returns at most the given number of next bytes, and nothing at the end."""

_BLOCK = 512
_ZEROS = b"\0" * _BLOCK
_LONGEST_HEADER = 1 << 20
"""The most bytes of all extended headers of one entry."""
_MOST_RECORDS = 1_000_000
"""The most records of extended headers in an archive; tar writes at most some ten for an entry."""
_LONGEST_LENGTH = 8
_FILES = (b"0", b"\0", b"7")
_SPECIAL = (b"3", b"4", b"6")
_EMPTY = (b"1", b"2", b"5", *_SPECIAL)
"""Links, directories and devices."""
_PAX = (b"x", b"X")
_LONG = {b"L": b"path", b"K": b"linkpath"}
_FOR_ALL = b"g"
_OLD_SPARSE = b"S"
_NEGATIVE = 0xFF
_BINARY = (0x80, _NEGATIVE)


class BrokenTar(ValueError):
    """The stream is no tar archive, or is damaged; the message says how."""


def tar_entries(read: Read, budget: Budget) -> Iterator[Entry]:
    """Yield the entries of a tar archive. The content of an entry can be read until the next entry is taken.

    Raises:
        BrokenTar, EOFError: The archive is damaged, or ends too early.
        UnsafeExport: It has headers that no tar writes, or announces more bytes than the budget has.
    """
    said: dict[bytes, bytes] = {}
    longest = records = 0
    while (header := _exact(read, _BLOCK)) != _ZEROS:
        kind, size = header[156:157], _size(header, budget)
        if kind in _PAX or kind in _LONG or kind == _FOR_ALL:
            longest += _BLOCK + size
            if longest > _LONGEST_HEADER:
                raise UnsafeExport(
                    f"{budget.archive} has an entry with a header of more than {_LONGEST_HEADER:,} bytes"
                )
            data = _exact(read, size + -size % _BLOCK)[:size]
            if kind in _LONG:
                said[_LONG[kind]] = data.partition(b"\0")[0]
                continue
            found = _records(data)
            records += len(found)
            if records > _MOST_RECORDS:
                raise UnsafeExport(
                    f"{budget.archive} has more than {_MOST_RECORDS:,} records in headers"
                )
            if kind in _PAX:
                said |= found
            elif any(_decides(key) for key, _ in found):
                raise UnsafeExport(
                    f"{budget.archive} has a header that gives all entries one name or size"
                )
            continue
        yield from _entry(read, header, size, said, budget)
        said, longest = {}, 0


def _entry(
    read: Read, header: bytes, size: int, said: dict[bytes, bytes], budget: Budget
) -> Iterator[Entry]:
    """Yield the entry of a header; afterwards skip the rest of its content."""
    kind = header[156:157]
    if b"size" in said:
        size = _decimal(said[b"size"])
    name = said.get(b"path", _name(header))
    sparse = kind == _OLD_SPARSE or any(key.startswith(b"GNU.sparse.") for key in said)
    # These have no content, whatever size their headers have.
    content = _Content(read, 0 if kind in _EMPTY and not sparse else size)
    if sparse:
        more = kind == _OLD_SPARSE and header[482]
        while more:
            more = _exact(read, _BLOCK)[504]
        yield Entry(name=name, kind="refused", target=b"a sparse file")
    elif kind in _FILES and not name.endswith(b"/"):
        budget.expect(size)
        yield Entry(name=name, kind="file", read=content.read)
    elif kind == b"5" or kind in _FILES:
        yield Entry(name=name, kind="directory")
    elif kind in {b"1", b"2"}:
        target = said.get(b"linkpath", _text(header[157:257]))
        yield Entry(name=name, kind="link" if kind == b"2" else "hard link", target=target)
    elif kind in _SPECIAL:
        yield Entry(name=name, kind="refused", target=b"a device or FIFO")
    else:
        why = f"an entry of a kind that is not known, {ascii(kind)[1:]}"
        yield Entry(name=name, kind="refused", target=why.encode())
    content.finish()


class _Content:
    """The content of one entry in the stream."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._padding = -size % _BLOCK

    def read(self, size: int) -> bytes:
        data = self._read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise EOFError("it ends in the middle of a file")
        self._left -= len(data)
        return data

    def finish(self) -> None:
        """Skip to the next header."""
        while self.read(CHUNK):
            pass
        _exact(self._read, self._padding)


def _exact(read: Read, size: int) -> bytes:
    """Read exactly `size` bytes; all of them fit into memory."""
    parts = []
    while size:
        data = read(size)
        if not data:
            raise EOFError("it ends without tar's mark of the end")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _size(header: bytes, budget: Budget) -> int:
    """Check a header, and return the size in it."""
    rest = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(rest)
    # Some old tars computed the checksum with signed bytes.
    if _number(header[148:156]) not in {unsigned, unsigned - 256 * sum(one > 127 for one in rest)}:  # noqa: PLR2004
        raise BrokenTar("a header of tar is missing or damaged")
    size = _number(header[124:136])
    if size < 0:
        raise UnsafeExport(
            f"{budget.archive} has an entry of {size:,} bytes", hint="find out who made it"
        )
    return size


def _number(field: bytes) -> int:
    """Read a number in octal digits, or in binary if it is too large for them (GNU, star)."""
    if field[0] in _BINARY:
        below = 256 ** (len(field) - 1) if field[0] == _NEGATIVE else 0
        return int.from_bytes(field[1:]) - below
    digits = _text(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise BrokenTar("a header has text in the place of a number")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:  # noqa: PLR2004 - as 64 bits have
        raise BrokenTar("a header has a size that is no number of 64 bits")
    return int(text)


def _name(header: bytes) -> bytes:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + _text(header[:100]) if prefix else _text(header[:100])


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decides(key: bytes) -> bool:
    return key in {b"path", b"linkpath", b"size"} or key.startswith(b"GNU.sparse.")


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Read the records of a pax header. Each is its length in decimal, a space, key=value and a newline."""
    found = []
    at = 0
    while at < len(data) and data[at]:
        length, space, _ = data[at : at + _LONGEST_LENGTH].partition(b" ")
        end = at + int(length) if space and length.isdigit() else 0
        key, equals, value = data[at + len(length) + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise BrokenTar("an extended header is damaged")
        found.append((key, value))
        at = end
    return found
