"""The history: who changed what, when, why, from which run and with which proof, one JSON line per event.

The file only grows. A power loss can leave a torn last line, without a newline or with zeros in it, or zeros in the
lines of an adoption, which are written at once. Such lines are no events: readers skip them, and the next writer cuts
them off. `models.config` says what is served now; the history says what was served before.

A long history stays quick to read. Most questions are about its end, so it is read backwards. Lines of other models
are recognized by their bytes and are not decoded.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from servingrepo.errors import NewerFormat
from servingrepo.repository.records import SCHEMA, StageVerdict, damaged, without_secrets
from servingrepo.storage.disk import Disk, storage_errors, whole_lines_end

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

_BLOCK = 1 << 18
_MODEL = re.compile(rb'"model":"(?:[^"\\]|\\.)*"')


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. `before` and `after` are the pinned versions of the model.

    `versions` are those that a prune, a restore or an emptying of the trash moved. `allowed` lists the problems that
    would have stopped a promotion if they had not been allowed by name. `stages` are the verdicts of a roll-out in
    stages: a stopped roll-out is an event of its own, `stage-stopped`, if nothing else of the change has happened.
    """

    schema: int
    id: str
    time: str
    action: str
    model: str
    version: int | None = None
    versions: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    user: str
    host: str
    why: str = ""
    run: str = ""
    proof: str = ""
    code: str = ""
    marked_bad: int | None = None
    labels_before: dict[str, int] = {}
    labels_after: dict[str, int] = {}
    endpoints: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    stages: tuple[StageVerdict, ...] = ()
    recovered: bool = False

    @property
    def served_before(self) -> int | None:
        """The version that unlabelled clients got before: the highest pinned one."""
        return max(self.before, default=None)

    @property
    def served_after(self) -> int | None:
        """The version that unlabelled clients get afterwards."""
        return max(self.after, default=None)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an event that says what was served. Decoding it takes a third of the time of a whole event."""

    schema: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def served_before(self) -> int | None:
        """The version that unlabelled clients got before."""
        return max(self.before, default=None)

    @property
    def served_after(self) -> int | None:
        """The version that unlabelled clients get afterwards."""
        return max(self.after, default=None)


Kind = TypeVar("Kind", Event, Move)


def append(disk: Disk, path: Path, *events: Event) -> None:
    """Append events, durably and in one write; the caller holds the lock."""
    lines = [msgspec.json.encode(without_secrets(event)) for event in events]
    disk.append_lines(path, lines, step="history")


def read(path: Path, *, model: str | None = None) -> Iterator[Event]:
    """Yield the events of one model or of all, oldest first.

    Lines are compared as bytes first, so that one model's events do not cost the decoding of 100,000 lines.

    Raises:
        NewerFormat: A newer servingrepo wrote a line.
        RepositoryDamaged: A whole line is not an event.
    """
    needle = _needle(model)
    decoder = msgspec.json.Decoder(Event)
    with _whole_lines(path) as (descriptor, size):
        start, offset, rest = 0, 0, b""
        while start < size:
            block = os.pread(descriptor, min(_BLOCK, size - start), start)
            if not block:
                return
            start += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if needle in line:
                    yield _decode(decoder, line, path, offset)
                offset += len(line) + 1


def read_backwards(path: Path, *, model: str | None = None) -> Iterator[Event]:
    """Yield the events, newest first. The file is read only as far back as the caller asks for events.

    Raises:
        NewerFormat, RepositoryDamaged: As for `read`, for the lines that were reached.
    """
    decoder = msgspec.json.Decoder(Event)
    for line, offset in _lines_backwards(path, {_needle(model)}):
        yield _decode(decoder, line, path, offset)


def moves_backwards(path: Path, *, model: str) -> Iterator[Move]:
    """Yield what was served before and after each event, newest first; see `read_backwards`."""
    decoder = msgspec.json.Decoder(Move)
    for line, offset in _lines_backwards(path, {_needle(model)}):
        yield _decode(decoder, line, path, offset)


class Past:
    """The past of some models: the history is read backwards once for all of them, only as far as they need it.

    On the way to an event of one model the lines of the others are kept, and those of all other models are passed
    over. Each method raises NewerFormat and RepositoryDamaged as `read_backwards` does.
    """

    def __init__(self, path: Path, models: Collection[str]) -> None:
        self._path = path
        self._kept: dict[bytes, list[tuple[bytes, int]]] = {_needle(model): [] for model in models}
        self._lines = _lines_backwards(path, self._kept.keys())

    def moves(self, model: str) -> Iterator[Move]:
        """Yield what was served before and after each event of a model, newest first."""
        return self._decoded(model, msgspec.json.Decoder(Move))

    def events(self, model: str) -> Iterator[Event]:
        """Yield the events of a model, newest first."""
        return self._decoded(model, msgspec.json.Decoder(Event))

    def _decoded(self, model: str, decoder: msgspec.json.Decoder[Kind]) -> Iterator[Kind]:
        lines = self._kept[_needle(model)]
        number = 0
        while number < len(lines) or self._reads_on(lines):
            line, offset = lines[number]
            yield _decode(decoder, line, self._path, offset)
            number += 1

    def _reads_on(self, wanted: list[tuple[bytes, int]]) -> bool:
        """Read back to the next line of a model; return false if there is none."""
        before = len(wanted)
        for line in self._lines:
            for needle in {*_MODEL.findall(line[0])} & self._kept.keys():
                self._kept[needle].append(line)
            if len(wanted) > before:
                return True
        return False


def _lines_backwards(path: Path, needles: Collection[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the whole lines that contain a needle, last first, each with the offset at which it begins."""
    contain = _search(needles)
    with _whole_lines(path) as (descriptor, size):
        end, rest = size, b""
        while end > 0:
            start = max(0, end - _BLOCK)
            block = os.pread(descriptor, end - start, start) + rest
            # The bytes before the first newline may belong to a line that begins in the block before.
            first = block.find(b"\n") + 1 if start else 0
            rest, end = (block[:first], start) if first or not start else (block, start)
            if len(rest) < len(block) and contain(block):
                offset = start + len(block)
                for line in reversed(block[first:-1].split(b"\n")):
                    offset -= len(line) + 1
                    if contain(line):
                        yield line, offset


def _search(needles: Collection[bytes]) -> Callable[[bytes], bool]:
    """Return the search for needles in bytes: one is looked for by itself, as that is quickest."""
    if len(needles) == 1:
        (needle,) = needles
        return lambda data: needle in data
    wanted = frozenset(needles)
    return lambda data: not wanted.isdisjoint(_MODEL.findall(data))


def knows(path: Path, txid: str) -> bool:
    """Tell whether there is an event of this transaction, without decoding any other."""
    needle = b'"id":' + msgspec.json.encode(txid)
    with _whole_lines(path) as (descriptor, size):
        start, rest = 0, b""
        while start < size:
            block = os.pread(descriptor, min(_BLOCK, size - start), start)
            if not block:
                return False
            start += len(block)
            if needle in rest + block:
                return True
            rest = block[-len(needle) :]
    return False


def _needle(model: str | None) -> bytes:
    """Return the bytes that every line about a model contains; JSON escapes quotes, so no other text has them."""
    return b"" if model is None else b'"model":' + msgspec.json.encode(model)


@contextmanager
def _whole_lines(path: Path) -> Iterator[tuple[int, int]]:
    """Open the history and give the descriptor and the end of its whole lines now. Later lines are not read."""
    with storage_errors("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            yield -1, 0
            return
        try:
            yield descriptor, whole_lines_end(descriptor)
        finally:
            os.close(descriptor)


def _decode(decoder: msgspec.json.Decoder[Kind], line: bytes, path: Path, offset: int) -> Kind:
    try:
        event = decoder.decode(line)
    except msgspec.DecodeError as error:
        raise _unreadable(path, _number(path, offset), line, error) from error
    if event.schema > SCHEMA:
        raise _newer(path, _number(path, offset))
    return event


def _number(path: Path, offset: int) -> int:
    """Return the number of the line at an offset, for an error message."""
    with storage_errors("read", path):
        return path.read_bytes().count(b"\n", 0, offset) + 1


def _unreadable(path: Path, number: int, line: bytes, error: Exception) -> Exception:
    try:
        raw: Any = msgspec.json.decode(line)
    except msgspec.DecodeError:
        raw = None
    if isinstance(raw, dict) and isinstance(raw.get("schema"), int) and raw["schema"] > SCHEMA:
        return _newer(path, number)
    return damaged(path, f"line {number}: {error}")


def _newer(path: Path, number: int) -> NewerFormat:
    return NewerFormat(
        f"line {number} of {path} was written by a newer servingrepo",
        hint="use the servingrepo that wrote it, or a newer one; nothing was changed",
    )


def served_before(
    newest_first: Iterable[Event | Move],
    *,
    current: int | None,
    usable: Callable[[int], bool],
) -> int | None:
    """Return the usable version that was served before `current`, according to history.

    The walk goes back over what unlabelled clients got, and skips versions that are gone or marked bad. History does
    not know a `current` that came with an edit by hand: such a version counts as newer than all that it knows.
    """
    # The newest usable version, for a `current` that history does not know.
    latest: int | None = None
    came_to_current = False
    for event in newest_first:
        for version in (event.served_after, event.served_before):
            if version is None:
                continue
            came_to_current = came_to_current or version == current
            if version == current or not usable(version):
                continue
            if came_to_current or current is None:
                return version
            latest = version if latest is None else latest
    return None if came_to_current else latest
