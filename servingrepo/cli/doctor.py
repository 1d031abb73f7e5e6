"""servingrepo doctor."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from click.core import ParameterSource

from servingrepo.cli.app import App, Bar
from servingrepo.cli.command import command as make
from servingrepo.cli.kinds import RunPath
from servingrepo.cli.options import takes
from servingrepo.errors import every_error
from servingrepo.texts import plural
from servingrepo.verbs.options import DoctorOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.verbs.doctor import Examination
    from servingrepo.verbs.doctor_rules import Finding

MOST_OF_A_RULE = 5
"""Findings of one rule that are shown without -v."""


@make(
    "doctor",
    examples="""
    servingrepo doctor /srv/serving
    servingrepo doctor /srv/models --config /etc/serving/models.config
    servingrepo doctor --compose docker-compose.yml
    servingrepo doctor /srv/models --endpoint localhost:8500 --deep""",
)
@click.argument("path", required=False, type=RunPath(path_type=Path))
@takes(options=DoctorOptions)
@click.pass_obj
def command(app: App, path: Path | None, options: DoctorOptions) -> None:
    """Say what is wrong with models that anybody put there, what happens at the next restart, and the fix.

    PATH is a directory with models/ in it, or the models directory itself. Without it, the root is examined, or what
    the compose file mounts. It need not be a repository. Nothing is changed or locked, and read access is enough. The
    worst comes first, and what was not looked at is listed as not checked. The exit code is that of the worst error;
    it is 0 if there are only warnings and notes.
    """
    from servingrepo.verbs.doctor import doctor

    named = path or (app.root if _names_a_root(app) or options.compose is None else None)
    with Bar(app, "reading") as bar:
        options = msgspec.structs.replace(
            options, variables={**os.environ}, sizes=bar.expect, progress=bar.advance
        )
        found = doctor(named, options)
    if not (found.exit_code and app.json):
        app.result(found, _lines(found, everything=app.verbosity > 0), bare=_bare(found))
    if found.exit_code:
        kind = next(one for one in every_error() if one.exit_code == found.exit_code)
        worst = found.findings[0]
        raise kind(
            f"{found.path}: {_counted(found)}; the worst is {worst.slug}",
            hint=worst.fix,
            details=msgspec.structs.asdict(found),
        )


def _names_a_root(app: App) -> bool:
    return app.sources.get("root", ParameterSource.DEFAULT) is not ParameterSource.DEFAULT


def _bare(found: Examination) -> str:
    return "\n".join(f"{one.severity} {one.slug} {one.path}" for one in found.findings) or "ok"


def _counted(found: Examination) -> str:
    counts = ((found.count(one), one) for one in ("error", "warning", "note"))
    return (
        ", ".join(plural(count, one, f"{one}s") for count, one in counts if count) or "no findings"
    )


def _lines(found: Examination, *, everything: bool) -> Iterator[str]:
    """Yield the findings, the worst first, then what was not checked and what to type next."""
    there = f"{plural(found.models, 'model', 'models')}, {plural(found.versions, 'version', 'versions')}"
    yield f"examined {found.path}: {there}"
    for title, value in (
        ("config", found.config),
        ("service", ", ".join(found.services)),
        ("servers", ", ".join(found.endpoints)),
    ):
        if value:
            yield f"  {title:<8} {value}"
    totals = Counter(one.slug for one in found.findings)
    shown: Counter[str] = Counter()
    for one in found.findings:
        shown[one.slug] += 1
        if everything or shown[one.slug] <= MOST_OF_A_RULE:
            yield ""
            yield from _finding(one)
        more = totals[one.slug] - MOST_OF_A_RULE
        if not everything and more > 0 and shown[one.slug] == totals[one.slug]:
            yield f"  and {more} more of {one.slug}: -v shows them"
    yield ""
    for line in found.not_checked:
        yield f"not checked: {line}"
    yield f"{_counted(found)}" + ("" if found.findings else " in what was looked at")
    yield f"next: {found.next}"


def _finding(one: Finding) -> Iterator[str]:
    about = ", ".join(text for text in (one.model and f"model {one.model}", one.path) if text)
    yield f"{one.severity}: {one.slug}: {about}"
    yield f"  what  {one.what}"
    yield f"  then  {one.consequence}"
    yield f"  fix   {one.fix}"
