"""serve: a version that is already published becomes the one that unlabelled clients get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.fleet.plans import plan_serve
from servingrepo.repository.changes import writing
from servingrepo.repository.references import Reference, resolve
from servingrepo.repository.served import read_config_of, served_versions
from servingrepo.verbs.change import Switched, carry_out, need_servable

if TYPE_CHECKING:
    from servingrepo.fleet.rules import Manner
    from servingrepo.repository.repository import Repository


def serve(repo: Repository, reference: Reference, *, manner: Manner) -> Switched:
    """Serve a version: pin it in models.config after every endpoint answers with it.

    Raises:
        NoSuchVersion, VersionBad, VersionDamaged: The version cannot be served.
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    with writing(repo, dry_run=manner.dry_run):
        return serve_now(repo, reference, manner=manner)


def serve_now(repo: Repository, reference: Reference, *, manner: Manner) -> Switched:
    """Do what `serve` does, for a caller that holds the lock already."""
    model = reference.model
    config = read_config_of(repo, model)
    version = resolve(repo, reference, bare="latest")
    need_servable(repo, model, version)
    plan = plan_serve(
        config,
        model=model,
        version=version,
        base_path=repo.base_path(model),
        serving=served_versions(repo, config, model),
    )
    return carry_out(repo, plan, action="serve", manner=manner)
