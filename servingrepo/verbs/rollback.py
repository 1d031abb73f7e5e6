"""rollback: serves again the version that was served before. It moves a pointer and no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NothingToRollBack
from servingrepo.fleet.hooks import hooked
from servingrepo.fleet.plans import plan_rollback
from servingrepo.modelconfig import check_name
from servingrepo.repository.references import (
    Previous,
    Reference,
    find_previous,
    resolve,
    selector_of,
)
from servingrepo.repository.repository import need_state
from servingrepo.repository.snapshot import snapshot_to_change
from servingrepo.repository.transaction import writing
from servingrepo.verbs.change import Switched, carry_out, need_servable

if TYPE_CHECKING:
    from servingrepo.fleet.options import RollbackOptions
    from servingrepo.repository.repository import Repository


def rollback(repo: Repository, model: str, options: RollbackOptions) -> Switched:
    """Go back to the version served before, or to `to`. If history knows none, go to the next lower adopted version.

    In order: pin, prove, bad mark, history. Unless `mark_bad` is false, the version that clients leave is marked bad,
    so that no pipeline brings it back. A rollback needs neither TensorFlow nor space, and waits for no promotion.

    Raises:
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        NothingToRollBack: The history has no earlier good version, or that version is served already.
        NoSuchVersion, VersionBad, VersionDamaged: That version cannot be served.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    check_name(model)
    to = selector_of(model, str(options.to)) if options.to is not None else None

    def change(options: RollbackOptions) -> Switched:
        with writing(repo, dry_run=options.dry_run):
            return _rollback(repo, model, to, options)

    return hooked(options, "rollback", change)


def _rollback(
    repo: Repository, model: str, to: Reference | None, options: RollbackOptions
) -> Switched:
    """Do what `rollback` holds the lock for."""
    now = snapshot_to_change(repo, model)
    need_state(repo, model)
    previous = find_previous(repo, now) if to is None else Previous(resolve(repo, to))
    version = previous.version
    if version == now.top:
        raise NothingToRollBack(
            f"{model}@{version} is served already",
            hint=f"servingrepo history {model} shows what was served before; "
            f"servingrepo rollback {model} --to N names a version",
        )
    need_servable(repo, model, version)
    leaves = now.top if options.mark_bad else None
    switched = carry_out(
        repo,
        now,
        plan_rollback(now, version),
        options,
        action="rollback",
        marks_bad=leaves if leaves not in now.bad else None,
    )
    return msgspec.structs.replace(switched, marked_bad=leaves, by_number=previous.by_number)
