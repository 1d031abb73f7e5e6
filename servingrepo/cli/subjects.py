"""Subjects of commands that take a version or a path: what is said where a path was taken for a model's name."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import BadName, BadReference, NoRepository, NoSuchVersion

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def taken_for_names(*subjects: str) -> Iterator[None]:
    """Let an error of the block say which subject is there as a file or directory, and how to name that.

    What has no slash in it is a model's name, whatever lies in the current directory: a command must not mean
    something else because of that.
    """
    try:
        yield
    except (BadName, BadReference, NoRepository, NoSuchVersion) as error:
        found = [one for one in subjects if one and "/" not in one and Path(one).exists()]
        if found:
            paths = " and ".join(f"./{one}" for one in found)
            error.hint = f"a path needs a slash: {paths} is here; {error.hint}".rstrip("; ")
        raise
