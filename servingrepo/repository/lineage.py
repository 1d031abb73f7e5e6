"""Which run each served version came from: read from records, models.config and the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.repository import history
from servingrepo.repository.repository import load_record, model_names, need_state
from servingrepo.repository.served import read_config
from servingrepo.repository.snapshot import snapshot_of
from servingrepo.runs.origin import Origin

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository

__all__ = ["Lineage", "lineage"]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """One version that servers have, and where it came from.

    `run` is empty and `origin` None for a version that servingrepo has no record of. `since` is when history says
    that it was served last, as ISO 8601; empty if history does not know.
    """

    model: str
    version: int
    served: bool
    labels: tuple[str, ...]
    since: str
    run: str
    export: str
    created: str
    by: str
    origin: Origin | None


def lineage(
    repo: Repository, model: str | None = None, *, version: int | None = None
) -> tuple[Lineage, ...]:
    """Return where every pinned version came from, of a model or of all; or one version, served or not.

    Raises:
        NoSuchVersion: There is no such model.
    """
    config = read_config(repo).config
    rows: list[Lineage] = []
    for name in model_names(repo) if model is None else (model,):
        need_state(repo, name)
        now = snapshot_of(repo, name, config)
        since = {
            number: event.time
            for event in history.read(repo.layout.history, model=name)
            for number in event.after
            if number not in event.before
        }
        for number in (version,) if version is not None else now.pins:
            # The number of a version that is elsewhere may be that of a version of ours, too.
            ours = not now.elsewhere or number not in now.pins
            record = load_record(repo, name, number) if ours else None
            rows.append(
                Lineage(
                    model=name,
                    version=number,
                    served=number == max(now.pins, default=None),
                    labels=tuple(sorted(label for label, at in now.labels.items() if at == number)),
                    since=since.get(number, "") if number in now.pins else "",
                    run=record.source.run if record is not None else "",
                    export=record.source.export if record is not None else "",
                    created=record.created if record is not None else "",
                    by=f"{record.user}@{record.host}" if record is not None else "",
                    origin=record.origin if record is not None else None,
                )
            )
    return tuple(rows)
