"""unserve: stops serving a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.fleet.hooks import hooked
from servingrepo.fleet.plans import plan_unserve
from servingrepo.modelconfig import check_name
from servingrepo.repository.repository import need_state
from servingrepo.repository.snapshot import snapshot_to_change
from servingrepo.repository.transaction import writing
from servingrepo.verbs.change import Switched, carry_out

if TYPE_CHECKING:
    from servingrepo.fleet.options import LiveOptions
    from servingrepo.repository.repository import Repository


def unserve(repo: Repository, model: str, options: LiveOptions) -> Switched:
    """Take a model out of models.config; its versions stay on disk.

    Raises:
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    check_name(model)

    def change(options: LiveOptions) -> Switched:
        with writing(repo, dry_run=options.dry_run):
            now = snapshot_to_change(repo, model)
            need_state(repo, model)
            return carry_out(repo, now, plan_unserve(now), options, action="unserve")

    return hooked(options, "unserve", change)
