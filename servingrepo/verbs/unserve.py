"""unserve: no version of the model is served any more. A verb of its own, so it has a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.fleet.plans import plan_unserve
from servingrepo.repository.changes import writing
from servingrepo.repository.repository import need_state
from servingrepo.repository.served import read_config_of, served_versions
from servingrepo.verbs.change import Switched, carry_out

if TYPE_CHECKING:
    from servingrepo.fleet.rules import Manner
    from servingrepo.repository.repository import Repository


def unserve(repo: Repository, model: str, *, manner: Manner) -> Switched:
    """Take a model out of models.config; its versions stay on disk.

    Raises:
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    with writing(repo, dry_run=manner.dry_run):
        config = read_config_of(repo, model)
        need_state(repo, model)
        plan = plan_unserve(config, model=model, serving=served_versions(repo, config, model))
        return carry_out(repo, plan, action="unserve", manner=manner)
