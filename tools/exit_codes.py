"""The table of exit codes, for the README: made from the error classes, which own the numbers."""

from __future__ import annotations

from servingrepo.errors import every_error

__all__ = ["exit_code_table"]


def exit_code_table() -> str:
    """Return the exit codes as a Markdown table: code, name, meaning; ascending.

    The name is the `slug` that `--json` has.
    """
    rows = ["| code | name | meaning |", "| --- | --- | --- |", "| 0 | `ok` | done |"]
    rows += [f"| {one.exit_code} | `{one.slug}` | {one.summary} |" for one in every_error()]
    return "\n".join(rows) + "\n"
