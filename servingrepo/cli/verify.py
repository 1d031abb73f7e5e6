"""servingrepo verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, Bar, sized
from servingrepo.cli.command import command as make
from servingrepo.cli.fingerprints import fingerprint_lines, tensor_lines
from servingrepo.cli.signatures import signature_lines
from servingrepo.errors import DamagedExport, VersionDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.verification import Verification


@make(
    "verify",
    examples="""
    servingrepo verify
    servingrepo verify ranker@served ranker@previous
    servingrepo verify ./runs/2026_05_10_baseline/saved_model""",
)
@click.argument("subjects", nargs=-1, metavar="[REF|PATH]...")
@click.pass_obj
def command(app: App, subjects: tuple[str, ...]) -> None:
    """Compare versions with their records, byte by byte: what is extra, missing, changed.

    Without arguments every version is verified; NAME alone means all its versions. A path (with a slash in it)
    has no record: of it is checked what the SavedModel says of itself, and the output says so.
    """
    from pathlib import Path

    from servingrepo.api import is_path
    from servingrepo.repository.verification import verify_path

    if subjects and all(is_path(one) for one in subjects):
        found = tuple(verify_path(Path(one)) for one in subjects)
    else:
        repo = app.open()
        with Bar(app, "verifying", repo.size(*subjects)) as bar:
            found = repo.verify(*subjects, progress=bar.advance)
    bad = [one for one in found if not one.ok]
    if not bad or not app.json:
        app.result(found, (line for one in found for line in _lines(one, app)), bare=_bare(found))
    if bad:
        kind = VersionDamaged if any(one.against for one in bad) else DamagedExport
        raise kind(
            f"{len(bad)} of {len(found)} verified are not whole: "
            + ", ".join(one.subject for one in bad),
            problems=[f"{one.subject}: {line}" for one in bad for line in one.problems],
            hint="versions are never repaired in place: serve another one, and promote the run again",
            details={"verified": found},
        )
    if not found:
        app.note("there is no version to verify")


def _bare(found: tuple[Verification, ...]) -> str:
    return "ok" if found and all(one.ok for one in found) else ""


def _lines(one: Verification, app: App) -> Iterator[str]:
    state = "ok" if one.ok else "DAMAGED"
    if one.against is None:
        against = "no record: compared with what the SavedModel says of itself"
    elif one.ok and not one.quick:
        against = f"every byte as in {one.against}"
    else:
        against = f"compared with {one.against}"
    if one.run:
        yield f"{one.subject}: a run directory; its SavedModel is {one.path}"
    quick = " quickly" if one.quick else ""
    place = "; in the trash, restorable" if one.in_trash and one.ok else ""
    yield f"{one.subject}: {state}{quick}{place}; {one.files} files, {sized(one.size)}; {against}"
    for title, paths in (
        ("extra", one.differences.extra),
        ("missing", one.differences.missing),
        ("changed", one.differences.changed),
    ):
        for path in paths:
            yield f"  {title:<9} {path}"
    for defect in one.inspection.defects:
        yield f"  defect    {defect.message}"
    yield from (f"  {line}" for line in tensor_lines(one.tensors))
    yield from (f"  {line}" for line in fingerprint_lines(one.inspection.fingerprint))
    if one.model is None or app.verbosity > 0 or one.ok:
        yield from (f"  {line}" for line in signature_lines(one.inspection.signatures))
    yield from (f"  note      {note}" for note in one.inspection.notes)
    yield from (f"  not checked: {line}" for line in one.not_checked)
