"""Paths on the command line: which may be URLs of something that is no file system."""

from __future__ import annotations

from typing import Any

import click

from servingrepo.errors import UsageError
from servingrepo.texts import refuse_url

__all__ = ["LocalPath", "RunPath"]


class LocalPath(click.Path):
    """A path; a URL is refused before click makes a path of it, in which `//` is `/`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, if it is as the options of click.Path say."""
        self.refuse_url(value, param, ctx)
        return super().convert(value, param, ctx)

    def refuse_url(self, value: Any, param: Any, ctx: Any) -> None:
        """Refuse a URL, as a mistake of the option that it was given for."""
        try:
            refuse_url(value, "path")
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class RunPath(LocalPath):
    """A path that is not looked at while the command line is read: its file system may hang."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path as it is."""
        self.refuse_url(value, param, ctx)
        return self.coerce_path_result(value)
