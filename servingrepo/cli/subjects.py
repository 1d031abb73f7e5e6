"""Subjects of commands that take a version or a path: a hint if a path was taken for a model's name."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import BadName, BadReference, NoRepository, NoSuchVersion

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def taken_for_names(*subjects: str) -> Iterator[None]:
    """Add to an error of the block that a subject exists as a file or directory, and how to name it.

    A subject without a slash is always a model's name. Files in the current directory must not change the meaning
    of a command.
    """
    try:
        yield
    except (BadName, BadReference, NoRepository, NoSuchVersion) as error:
        found = [one for one in subjects if one and "/" not in one and Path(one).exists()]
        if found:
            paths = " and ".join(f"./{one}" for one in found)
            error.hint = f"a path needs a slash: {paths} is here; {error.hint}".rstrip("; ")
        raise
