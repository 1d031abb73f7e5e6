"""serve: gives a published version to unlabelled clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.fleet.hooks import hooked
from servingrepo.fleet.plans import plan_serve
from servingrepo.repository.references import Reference, parse_reference, resolve
from servingrepo.repository.snapshot import snapshot_to_change
from servingrepo.repository.transaction import writing
from servingrepo.verbs.change import Switched, carry_out, need_servable

if TYPE_CHECKING:
    from servingrepo.fleet.options import LiveOptions, ServeOptions
    from servingrepo.repository.repository import Repository


def serve(repo: Repository, reference: str, options: ServeOptions) -> Switched:
    """Serve a version: pin it in models.config once every endpoint answers with it.

    Raises:
        NoSuchVersion, VersionBad, VersionDamaged: The version cannot be served.
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    meant = parse_reference(reference)

    def change(options: ServeOptions) -> Switched:
        with writing(repo, dry_run=options.dry_run):
            return serve_now(repo, meant, options)

    return hooked(options, "serve", change)


def serve_now(repo: Repository, reference: Reference, options: LiveOptions) -> Switched:
    """Serve a version for a caller that holds the lock already."""
    now = snapshot_to_change(repo, reference.model)
    version = resolve(repo, reference, bare="latest")
    need_servable(repo, reference.model, version)
    return carry_out(repo, now, plan_serve(now, version), options, action="serve")
