"""The live version that a candidate is compared with, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import ServingRepoError
from servingrepo.repository.proving import Live
from servingrepo.savedmodel.inspection import inspect_export, refuse_defects
from servingrepo.savedmodel.reading import ANYWHERE
from servingrepo.smoke.drift import Drift, DriftBudget

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository
    from servingrepo.repository.snapshot import Snapshot
    from servingrepo.smoke.files import Cases
    from servingrepo.verbs.options import PromoteOptions

__all__ = ["live_version"]


def live_version(
    repo: Repository, now: Snapshot, cases: Cases | None, options: PromoteOptions
) -> Live | Drift | None:
    """Return the live version to compare a candidate with, or a comparison that says why it cannot be compared.

    None means that nobody expects a comparison: nothing is served, or there are neither cases nor a budget.
    """
    if options.against == "none" or now.top is None:
        return None
    if not cases:
        why = "there are no cases"
        return Drift(live=now.top, why=why) if options.budget != DriftBudget() else None
    export = repo.layout.version(now.model, now.top)
    try:
        inspection = inspect_export(export, boundary=ANYWHERE)
        refuse_defects(inspection, export)
    except ServingRepoError as error:
        return Drift(live=now.top, why=error.message)
    return Live(version=now.top, export=export, inspection=inspection)
