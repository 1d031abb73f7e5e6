"""restore, recover: bring a version back from the trash, and clean up after commands that died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import BadReference
from servingrepo.repository import pruning
from servingrepo.repository import recovery as changes
from servingrepo.repository.recovery import Recovered
from servingrepo.repository.references import parse_reference
from servingrepo.repository.repository import locked
from servingrepo.servers.sockets import sweep_folders

if TYPE_CHECKING:
    from servingrepo.repository.pruning import Restored
    from servingrepo.repository.repository import Repository
    from servingrepo.verbs.options import RestoreOptions


def restore(repo: Repository, reference: str, options: RestoreOptions) -> Restored:
    """Bring NAME@N back from the trash, and compare every byte with its record. This does not serve it.

    Raises:
        NoSuchVersion, VersionDamaged, NumberUsed, ConfigInvalid: As `servingrepo restore` says.
    """
    parsed = parse_reference(reference)
    if parsed.kind != "number":
        raise BadReference(
            f"{reference} does not name the version to restore",
            hint=f"servingrepo show {parsed.model} lists the trash; give a number, such as {parsed.model}@7",
        )
    return pruning.restore(
        repo,
        parsed.model,
        parsed.number,
        message=options.message,
        dry_run=options.dry_run,
        progress=options.progress,
    )


def recover(repo: Repository) -> tuple[Recovered, ...]:
    """Clean up after commands that died. Every command that writes does this first.

    Only `recover` also removes the folders that the servers of killed smoke tests left in the temporary directory.
    """
    with locked(repo):
        done = changes.recover(repo, reach=True, thorough=True)
    gone = sweep_folders()
    return (
        *done,
        *(Recovered("", "smoke", name, None, "folder of its server removed") for name in gone),
    )
