"""The cases of a smoke test: those that were named, else those that lie beside the model and in the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.runs.case_files import FOLDER, read_case_files
from servingrepo.smoke.files import Cases, cases_in, cases_of_model

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository
    from servingrepo.runs.listing import Listing
    from servingrepo.runs.reading import FilesRead

__all__ = ["cases_beside", "cases_in_run"]


def cases_beside(repo: Repository, model: str, given: Cases) -> Cases:
    """Return the cases that were named, else those in `configs/MODEL.cases.*` of the repository."""
    return given or Cases(sources=cases_of_model(repo.layout.contracts, model))


def cases_in_run(listing: Listing, reads: FilesRead) -> Cases:
    """Return the cases in the folder `smoke` of a run. They were read; nothing in them is executed.

    Raises:
        BadCase: A file cannot be read, or they are too large together.
    """
    return Cases(sources=cases_in(read_case_files(listing, reads), shown=f"{listing.run}/{FOLDER}"))
