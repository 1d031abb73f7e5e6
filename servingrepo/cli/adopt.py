"""servingrepo adopt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.app import App, Bar, pinned, versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import typed_for_smoke
from servingrepo.errors import UsageError
from servingrepo.options import Option
from servingrepo.texts import plural, sized, some
from servingrepo.verbs.options import AdoptOptions, ChangeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.verbs.adopt import Adopted, AdoptedModel, Undone

_POLICIES = {"default": "no policy, which is latest", "latest": "latest", "all": "all"}

_MOST_LEFT = 20


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an adoption is taken back."""

    undo: Annotated[
        bool,
        Option(
            help="Take the last adoption back: models.config gets the bytes that it had before, records go. Refused "
            "after any later change."
        ),
    ] = False


@make(
    "adopt",
    examples="""
    servingrepo adopt --all --dry-run
    servingrepo adopt ranker prices
    servingrepo adopt ranker --smoke
    servingrepo adopt --undo""",
)
@click.argument("models", metavar="[NAME]...", nargs=-1)
@takes(options=AdoptOptions, asked=Asked)
@click.pass_obj
def command(app: App, models: tuple[str, ...], options: AdoptOptions, asked: Asked) -> None:
    """Take models under management where they lie: nothing is copied, moved or reloaded.

    Every byte is hashed, every tensor checked, each export inspected, and a record written for each version. An entry
    with the policy latest or all becomes the pins that it means now; so what servers answer stays. What cannot be
    adopted is listed with its reason. Models that are named are adopted all or none.
    """
    from servingrepo.verbs.adopt import adopt, undo

    if asked.undo:
        if models or options.all:
            raise UsageError(
                "--undo takes the last adoption back as a whole", hint="servingrepo adopt --undo"
            )
        change = ChangeOptions(message=options.message, dry_run=options.dry_run)
        undone = undo(app.open().value, change)
        app.result(undone, _undone_lines(undone), bare="\n".join(undone.models))
        return
    _refuse_unsmoked(smoke=options.smoke)
    repo = app.open()
    with Bar(app, "reading") as bar:
        options = msgspec.structs.replace(
            options,
            notice=app.note,
            sizes=bar.expect if bar.shows and not options.dry_run else None,
            progress=bar.advance,
        )
        done = adopt(repo.value, models, options)
    app.result(done, _lines(done), bare="\n".join(one.model for one in done.models) or None)


def _refuse_unsmoked(*, smoke: bool) -> None:
    """Refuse options of the smoke test on a command line without one.

    Raises:
        UsageError: There are such options; the error names all.
    """
    typed = typed_for_smoke()
    if typed and not smoke:
        means = "means" if len(typed) == 1 else "mean"
        raise UsageError(
            f"{', '.join(typed)} {means} nothing without --smoke",
            hint="give --smoke, or leave the others out",
        )


def _lines(done: Adopted) -> Iterator[str]:
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    count = plural(len(done.models), "model", "models")
    versions = plural(sum(len(one.versions) for one in done.models), "version", "versions")
    if done.models:
        would = "would be adopted" if dry else "adopted"
        yield f"{dry}{count} {would} with {versions}, where they lie"
    else:
        yield f"{dry}nothing to adopt"
    for one in done.models:
        yield from _model_lines(one, dry=done.dry_run)
    if done.left:
        yield "not adopted:"
        yield from (f"  {one}" for one in done.left[:_MOST_LEFT])
    if len(done.left) > _MOST_LEFT:
        yield f"  and {len(done.left) - _MOST_LEFT} more: --json has all"
    if done.models:
        yield from _after(done)


def _model_lines(one: AdoptedModel, *, dry: bool) -> Iterator[str]:
    yield f"{one.model}"
    yield f"  versions     {versions_shown(one.versions)}; {sized(one.size)} in {one.path}/"
    serves = pinned(one.pins)
    match one.entry:
        case "new":
            serves += ": a new entry pins it, which a server without models.config serves"
        case "pinned":
            serves += f": pinned now, where the entry had {_POLICIES[one.policy]}"
        case "none":
            serves = (
                f"nothing: models.config has no entry of it (servingrepo serve {one.model}@latest)"
            )
        case _:
            serves += ", as before"
    yield f"  serves       {serves}"
    if one.labels:
        yield f"  labels       {', '.join(f'{label}={at}' for label, at in sorted(one.labels.items()))}"
    if dry:
        yield "  bytes        not checked: a dry run reads graphs and indexes only"
    yield from (f"  proof        {proof}" for proof in one.proofs)
    if not one.proofs:
        yield "  proof        not smoke-tested"
    yield from (f"  note         {note}" for note in one.notes)


def _after(done: Adopted) -> Iterator[str]:
    """Yield what is to be done afterwards."""
    if done.start_with:
        was = f"read {done.config}" if done.config else "were started without a models.config"
        yield f"  servers      that {was} are to be started once with"
        yield f"               {done.start_with[0]}"
        yield f"               {' '.join(done.start_with[1:])}"
    follows = [one.model for one in done.models if one.policy]
    if done.dry_run:
        yield "  next         servingrepo adopt, without --dry-run"
    elif follows:
        until = f"until then servers may follow the old policy of {some(follows)}"
        yield f"  next         servingrepo reload --endpoint HOST:PORT; {until}"
    else:
        yield "  next         servingrepo status"


def _undone_lines(done: Undone) -> Iterator[str]:
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    models = plural(len(done.models), "model", "models")
    versions = plural(done.versions, "version", "versions")
    would = "would be" if done.dry_run else "is"
    yield f"{dry}the adoption of {models} with {versions} {would} taken back; models.config {would} as before"
    yield "  next         servingrepo status"
