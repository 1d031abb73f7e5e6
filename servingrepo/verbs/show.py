"""show, history, report: models, versions, their runs and the events of the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.modelconfig import check_name
from servingrepo.repository import listing, lives
from servingrepo.repository.references import parse_reference, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.history import Event
    from servingrepo.repository.listing import Lineage, ModelDetails
    from servingrepo.repository.lives import Life
    from servingrepo.repository.records import VersionRecord
    from servingrepo.repository.repository import Repository


def show_model(repo: Repository, model: str) -> ModelDetails:
    """Return a model with its versions."""
    return listing.show_model(repo, check_name(model))


def show_version(repo: Repository, reference: str) -> VersionRecord:
    """Return the record of the version that a reference means."""
    parsed = parse_reference(reference)
    return listing.show_version(repo, parsed.model, resolve(repo, parsed))


def lineage(repo: Repository, reference: str | None = None) -> tuple[Lineage, ...]:
    """Return the run of each served version: of all models, of one model, or of one version."""
    if reference is None:
        return listing.lineage(repo)
    parsed = parse_reference(reference)
    if parsed.kind == "default":
        return listing.lineage(repo, check_name(parsed.model))
    return listing.lineage(repo, parsed.model, version=resolve(repo, parsed))


def history(
    repo: Repository, model: str | None = None, *, limit: int | None = None
) -> Iterator[Event]:
    """Yield the events of a model or of all models, oldest first; with a limit only the last of them."""
    return listing.list_events(repo, check_name(model) if model is not None else None, limit=limit)


def life(repo: Repository, model: str | None = None) -> tuple[Life, ...]:
    """Return the life of a model, or of all models: their versions, what happened to them, and when."""
    return lives.read_lives(repo, check_name(model) if model is not None else None)
