"""restore, recover: back from the trash, and back to order after commands that died."""

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
    """Bring NAME@N back from the trash, every byte compared with its record; it is not served.

    Raises:
        NoSuchVersion, VersionDamaged, NumberUsed, ConfigInvalid: As `servingrepo restore` says.
    """
    parsed = parse_reference(reference)
    if parsed.kind != "number":
        raise BadReference(
            f"{reference} does not say which version to restore",
            hint=f"servingrepo show {parsed.model} lists what is in the trash; name one: {parsed.model}@7",
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
    """Settle what dead commands left; every writing command does this first by itself.

    Only this one looks for folders of servers that killed smoke tests left in the directory for temporary files.
    """
    with locked(repo):
        done = changes.recover(repo, reach=True)
    gone = sweep_folders()
    return (
        *done,
        *(Recovered("", "smoke", name, None, "folder of its server removed") for name in gone),
    )
