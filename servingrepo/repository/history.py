"""Who changed what, when, why, from which run and with which proof: one JSON line per event.

The file only grows. A torn last line, which a crash can leave, is not an event: readers skip it and the next
writer cuts it off. `models.config` says what is served now; the history says what was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import NewerFormat
from servingrepo.repository.records import SCHEMA, damaged
from servingrepo.storage.disk import Disk, storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. `before` and `after` are the pinned versions of the model."""

    schema: int
    id: str
    time: str
    action: str
    model: str
    version: int | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    user: str
    host: str
    why: str = ""
    run: str = ""
    proof: str = ""
    marked_bad: int | None = None
    labels_before: dict[str, int] = {}
    labels_after: dict[str, int] = {}
    endpoints: tuple[str, ...] = ()
    recovered: bool = False

    @property
    def served_before(self) -> int | None:
        """The version that unlabelled clients got before: the highest pinned one."""
        return max(self.before, default=None)

    @property
    def served_after(self) -> int | None:
        """The version that unlabelled clients get afterwards."""
        return max(self.after, default=None)


def append(disk: Disk, path: Path, event: Event) -> None:
    """Append an event durably; the caller holds the lock."""
    disk.append_line(path, msgspec.json.encode(event), step="history")


def read(path: Path, *, model: str | None = None) -> Iterator[Event]:
    """Yield the events, oldest first, of one model or of all.

    Lines are looked at as bytes first: a history of 100,000 lines is not decoded for one model's events.

    Raises:
        NewerFormat: A newer servingrepo wrote a line.
        RepositoryDamaged: A whole line is not an event.
    """
    with storage_errors("read", path):
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return
    needle = b"" if model is None else b'"model":' + msgspec.json.encode(model)
    decoder = msgspec.json.Decoder(Event)
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n") or needle not in line:
                continue
            try:
                event = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise _unreadable(path, number, line, error) from error
            if event.schema > SCHEMA:
                raise _newer(path, number)
            yield event


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


def previous_served(
    events: Iterable[Event], *, current: int | None, usable: Callable[[int], bool]
) -> int | None:
    """Return the version served before `current`, according to history, that is still usable.

    Walks back over what unlabelled clients got; versions that are gone or marked bad are passed over. A
    `current` that history does not know (an edit by hand was taken over) comes after all that it knows.
    """
    served: list[int] = []
    for event in events:
        for version in (event.served_before, event.served_after):
            if version is not None and (not served or served[-1] != version):
                served.append(version)
    if current in served:
        while served[-1] != current:
            served.pop()
    for version in reversed(served):
        if version != current and usable(version):
            return version
    return None
