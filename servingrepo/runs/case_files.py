"""Read the cases that lie in a run, in its folder `smoke`, into memory: nothing of a run is read twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import BadCase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servingrepo.runs.listing import Listing
    from servingrepo.runs.reading import FilesRead

__all__ = ["FOLDER", "read_case_files"]

FOLDER = "smoke"
LIMIT = 64 << 20
"""The most bytes of all files together."""
_HINT = "name the cases with --case, which may lie anywhere and be larger"


def read_case_files(listing: Listing, reads: FilesRead) -> Mapping[str, bytes]:
    """Return the files of the run's folder `smoke` by name; no links out of the run are followed.

    Args:
        listing: The names in the run.
        reads: What remembers the state of the files that were read.

    Raises:
        BadCase: A file cannot be read, or they are too large together.
    """
    outside = [path for path, _ in listing.links_out if path.startswith(f"{FOLDER}/")]
    if outside or FOLDER in {path for path, _ in listing.links_out}:
        named = outside[0] if outside else FOLDER
        raise BadCase(
            f"{listing.run}/{named} is a link out of the run, which is not followed", hint=_HINT
        )
    found = next((one for one in listing.folders if one.path == FOLDER), None)
    contents: dict[str, bytes] = {}
    left = LIMIT
    for name, path in sorted(found.files.items() if found is not None else ()):
        try:
            contents[name] = reads.whole(path, f"{FOLDER}/{name}", most=left)
        except ValueError:
            raise BadCase(
                f"the cases in {listing.run}/{FOLDER} have more than {LIMIT:,} bytes", hint=_HINT
            ) from None
        except OSError as error:
            why = error.strerror or error
            raise BadCase(f"{path} cannot be read: {why}", hint=_HINT) from error
        left -= len(contents[name])
    return contents
