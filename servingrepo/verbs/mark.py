"""hold, release-hold, mark-bad: marks that keep promotions and rollbacks from serving a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.modelconfig import check_name
from servingrepo.repository import marks
from servingrepo.repository.references import parse_reference, resolve

if TYPE_CHECKING:
    from servingrepo.repository.history import Event
    from servingrepo.repository.repository import Repository
    from servingrepo.verbs.options import ChangeOptions, MarkOptions


def hold(repo: Repository, model: str, options: ChangeOptions) -> Event:
    """Keep promotions from changing what a model serves."""
    return marks.hold(repo, check_name(model), reason=options.message, dry_run=options.dry_run)


def release_hold(repo: Repository, model: str, options: ChangeOptions) -> Event:
    """Let promotions change again what a model serves."""
    return marks.release_hold(
        repo, check_name(model), reason=options.message, dry_run=options.dry_run
    )


def mark_bad(repo: Repository, reference: str, options: MarkOptions) -> Event:
    """Mark a version bad, or remove the mark."""
    parsed = parse_reference(reference)
    version = resolve(repo, parsed)
    change = marks.clear_bad if options.clear else marks.mark_bad
    return change(repo, parsed.model, version, reason=options.message, dry_run=options.dry_run)
