"""servingrepo verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.app import App, Bar
from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import demand_lines
from servingrepo.cli.fingerprints import fingerprint_lines, tensor_lines
from servingrepo.cli.options import takes
from servingrepo.cli.signatures import signature_lines
from servingrepo.cli.subjects import taken_for_names
from servingrepo.errors import DamagedExport, UsageError, VersionDamaged
from servingrepo.options import Option
from servingrepo.texts import as_path, is_path, plural, sized, some
from servingrepo.verbs.options import VerifyOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.verification import Verification


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of time."""

    max_seconds: Annotated[
        float | None,
        Option(
            help="Stop after this time, at the end of a version; the next call continues with the rest.",
            metavar="SECONDS",
            kind="seconds",
            least=0,
        ),
    ] = None


@make(
    "verify",
    examples="""
    servingrepo verify
    servingrepo verify --max-seconds 600
    servingrepo verify ranker@served --deep
    servingrepo verify ranker@served ranker@previous --quick
    servingrepo verify ./runs/2026_05_10_baseline""",
)
@click.argument("subjects", nargs=-1, metavar="[REF|PATH]...")
@takes(options=VerifyOptions, asked=Asked)
@click.pass_obj
def command(app: App, subjects: tuple[str, ...], options: VerifyOptions, asked: Asked) -> None:
    """Compare versions with their records, byte by byte, and list extra, missing and changed files.

    Every tensor is compared with its checksum, and the graph with its fingerprint. Where the record says that all
    tensors were right, it vouches for them in equal bytes, and --deep compares them again. Without arguments every
    version is verified; NAME alone means all its versions. A path has a slash in it. The export there has no record,
    so it is compared with its own checksums, and the output lists what has none.
    """
    from servingrepo.repository.verification import verify_path
    from servingrepo.verbs.verify import verify

    quick = options.quick
    paths = [one for one in subjects if is_path(one)]
    if asked.max_seconds is not None:
        if paths:
            raise UsageError(
                "--max-seconds is for versions, not for paths",
                hint=f"servingrepo verify {paths[0]} reads all of it",
            )
        _sitting(app, subjects, asked.max_seconds, options)
        return
    if subjects and len(paths) == len(subjects):
        found = tuple(verify_path(as_path(one, "path"), quick=quick) for one in subjects)
    else:
        with taken_for_names(*subjects):
            repo = app.open()
            with Bar(app, "verifying", lambda: 0 if quick else repo.size(*subjects)) as bar:
                options = msgspec.structs.replace(options, progress=bar.advance)
                found = verify(repo.value, subjects, options)
    _report(app, found, found)


def _sitting(app: App, subjects: tuple[str, ...], seconds: float, options: VerifyOptions) -> None:
    """Verify for some seconds, and print which versions are left."""
    from servingrepo.verbs.verify import verify_for

    repo = app.open()
    with Bar(app, "verifying", lambda: 0 if options.quick else repo.size(*subjects)) as bar:
        options = msgspec.structs.replace(options, progress=bar.advance)
        done = verify_for(repo.value, subjects, seconds, options)
    if done.before:
        app.note(f"{len(done.before)} versions were found whole by earlier calls")
    if done.left:
        app.note(f"{len(done.left)} versions are left: {', '.join(done.left[:10])}")
    _report(app, done, done.verified, known=done.damaged)


def _report(
    app: App, result: object, found: tuple[Verification, ...], *, known: tuple[str, ...] = ()
) -> None:
    """Print the results, and fail if a version is not whole, or was not whole in an earlier call."""
    bad = [one for one in found if not one.ok]
    if not (bad or known) or not app.json:
        app.result(result, (line for one in found for line in _lines(one, app)), bare=_bare(found))
    if bad:
        kind = VersionDamaged if any(one.against for one in bad) else DamagedExport
        raise kind(
            f"{len(bad)} of {len(found)} verified are not whole: "
            + ", ".join(one.subject for one in bad),
            problems=[
                *(f"{one.subject}: {line}" for one in bad for line in one.problems),
                *(f"{one}: not whole in an earlier call" for one in known),
            ],
            hint="versions are never repaired in place: serve another one, and promote the run again",
            details={"verified": result},
        )
    if known:
        raise VersionDamaged(
            f"earlier calls found {plural(len(known), 'version', 'versions')} not whole: {some(known)}",
            problems=known,
            hint="servingrepo verify NAME@N shows the problems of a version; there was no time to read it again",
            details={"verified": result},
        )
    if not found:
        app.note("there is no version to verify")


def _bare(found: tuple[Verification, ...]) -> str:
    return "ok" if found and all(one.ok for one in found) else ""


def _lines(one: Verification, app: App) -> Iterator[str]:
    state = "ok" if one.ok else "DAMAGED"
    if one.against is None:
        against = "no record: compared with its own checksums"
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
    yield from (f"  {line}" for line in tensor_lines(one.tensors, vouched=one.vouched))
    yield from (f"  {line}" for line in fingerprint_lines(one.inspection.fingerprint))
    if one.model is None or app.verbosity > 0 or one.ok:
        yield from (f"  {line}" for line in signature_lines(one.inspection.signatures))
        yield from (f"  {line}" for line in demand_lines(one.inspection.demands))
    yield from (f"  note      {note}" for note in one.inspection.notes)
    yield from (f"  not checked: {line}" for line in one.not_checked)
