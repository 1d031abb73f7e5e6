"""rollback: the version that was served before is served again. A pointer moves, no data does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NothingToRollBack
from servingrepo.fleet.plans import plan_rollback
from servingrepo.repository.changes import writing
from servingrepo.repository.references import Reference, previous_version, resolve
from servingrepo.repository.repository import need_state
from servingrepo.repository.snapshot import snapshot_to_change
from servingrepo.verbs.change import Switched, carry_out, need_servable

if TYPE_CHECKING:
    from servingrepo.fleet.rules import Manner
    from servingrepo.repository.repository import Repository


def rollback(
    repo: Repository,
    model: str,
    *,
    to: Reference | None = None,
    mark_bad: bool = True,
    manner: Manner,
) -> Switched:
    """Go back to the version served before, or to `to`.

    In order: pin, prove, bad mark, history. The version that is left is marked bad, so that no pipeline brings
    it back, unless `mark_bad` is false. A rollback needs no TensorFlow and no space, and waits for no promotion.

    Raises:
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        NothingToRollBack: History knows no earlier good version, or that version is served already.
        NoSuchVersion, VersionBad, VersionDamaged: That version cannot be served.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    with writing(repo, dry_run=manner.dry_run):
        now = snapshot_to_change(repo, model)
        need_state(repo, model)
        version = previous_version(repo, now) if to is None else resolve(repo, to)
        if version == now.top:
            raise NothingToRollBack(
                f"{model}@{version} is what is served already",
                hint=f"servingrepo history {model} shows what was served before; "
                f"servingrepo rollback {model} --to N names a version",
            )
        need_servable(repo, model, version)
        leaves = now.top if mark_bad else None
        switched = carry_out(
            repo,
            now,
            plan_rollback(now, version),
            action="rollback",
            manner=manner,
            marks_bad=leaves if leaves not in now.bad else None,
        )
        return msgspec.structs.replace(switched, marked_bad=leaves)
