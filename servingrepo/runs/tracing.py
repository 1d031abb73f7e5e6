"""The origin of a version that is being promoted, for its record."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.masking import free_name, mask_command, mask_start, mask_text
from servingrepo.runs.configuration import read_configuration
from servingrepo.runs.origin import Origin
from servingrepo.runs.pipeline import pipeline_ids
from servingrepo.runs.worktree import code_of

if TYPE_CHECKING:
    from servingrepo.runs import RunScan
    from servingrepo.runs.listing import Listing
    from servingrepo.runs.mlflow import MlflowRun
    from servingrepo.runs.reading import FilesRead

__all__ = ["Context", "place_of", "trace"]

_LONGEST_COMMAND = 2000
_LONGEST_PARAMETER = 200
_LONGEST_FACT = 500


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that only the caller knows: the command that promotes, where it was typed, and the environment."""

    command: tuple[str, ...] = ()
    working_directory: Path | None = None
    environment: dict[str, str] = {}
    archive: str = ""
    """The archive that the run was unpacked from."""


def place_of(path: str, scan: RunScan, context: Context) -> str:
    """Return a path in a run for the record: within its archive, if it was unpacked from one."""
    if not context.archive:
        return path
    below = Path(path).relative_to(scan.run).as_posix()
    return context.archive if below == "." else f"{context.archive}:{below}"


def trace(
    seen: Listing, tracked: MlflowRun | None, context: Context, *, reads: FilesRead
) -> Origin:
    """Return what is known of where a run's SavedModel comes from, secrets masked.

    Args:
        seen: The names in the run.
        tracked: What MLflow knows of the run.
        context: What the caller knows.
        reads: Reads files of configuration, and remembers them.
    """
    found = read_configuration(seen, reads=reads)
    config = found.values
    if tracked is not None:
        for name, one in tracked.params.items():
            key = free_name(f"params/{mask_text(name)}", config)
            config[key] = mask_start(name, one, longest=_LONGEST_PARAMETER)
    # What an archive unpacked to may have a .git of anybody's.
    code = code_of(Path(seen.run), of="run") if not context.archive else None
    if code is None and context.working_directory is not None:
        code = code_of(context.working_directory, of="working directory")
    command = mask_text(shlex.join(mask_command(context.command)))
    return Origin(
        config=config,
        config_files=found.files,
        config_unread=found.unread,
        code=code,
        command=command.encode("utf-8", "backslashreplace").decode()[:_LONGEST_COMMAND],
        mlflow={
            name: mask_start(name, one, longest=_LONGEST_FACT)
            for name, one in (tracked.facts if tracked is not None else {}).items()
        },
        pipeline=pipeline_ids(context.environment),
    )
