"""servingrepo contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import change_lines
from servingrepo.cli.options import takes
from servingrepo.cli.subjects import taken_for_names
from servingrepo.errors import BreakingChange, UsageError
from servingrepo.options import Option
from servingrepo.verbs.options import ContractOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App
    from servingrepo.verbs.diff import Checked


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The action on the contract; without any it is shown."""

    write: Annotated[bool, Option(help="Pin the version's signatures: write the file.")] = False
    check: Annotated[
        str | None,
        Option(
            help="Compare a version or an export with the contract, or with the served version if none is pinned.",
            key="subject",
            metavar="REF|PATH",
        ),
    ] = None


@make(
    "contract",
    examples="""
    servingrepo contract ranker
    servingrepo contract ranker --write
    servingrepo contract ranker@7 --write --overwrite
    servingrepo contract ranker --check ./runs/2026_05_10_baseline""",
)
@click.argument("reference", metavar="NAME|REF")
@takes(options=ContractOptions, asked=Asked)
@click.pass_obj
def command(app: App, reference: str, options: ContractOptions, asked: Asked) -> None:
    """Show, pin or check a model's contract: the signatures that its clients rely on.

    A pinned contract is the file configs/NAME.contract.toml in the root. `promote` compares exports with it instead
    of with the served version. You may edit the file: it demands only what it names. Without a pinned contract, this
    shows the signatures of the version (of the served one if you give NAME alone).
    """
    subject, dry_run = asked.check, options.dry_run
    if asked.write and subject is not None:
        raise UsageError("--write and --check do not go together", hint="give one of them")
    if subject is not None:
        with taken_for_names(subject):
            checked = app.open().check_contract(reference.partition("@")[0], subject)
        _report(app, checked)
        return
    repo = app.open()
    if not asked.write:
        found = repo.contract(reference)
        if not found.pinned:
            app.note(f"not pinned: this is what {found.of} promises; --write writes {found.path}")
        app.result(found, found.text.splitlines(), bare=found.path if found.pinned else None)
        return
    done = repo.write_contract(reference, overwrite=options.overwrite, dry_run=dry_run)
    dry = "dry run, nothing was changed: " if dry_run else ""
    said = f"{dry}{done.path} " + (
        f"{'would say' if dry_run else 'says'} what {done.of} promises"
        if done.changed
        else f"says what {done.of} promises already"
    )
    app.result(
        done,
        [said, "  next      remove from it what no client uses; put it under version control"],
        bare=done.path,
    )


def _report(app: App, checked: Checked) -> None:
    """Print the result of a check.

    Raises:
        BreakingChange: Clients would break.
    """
    if checked.verdict == "breaking":
        raise BreakingChange(
            f"{checked.subject} would break clients of {checked.against}",
            problems=[one.message for one in checked.changes if one.breaking],
            hint="promote refuses it without --allow-breaking",
            details={"checked": checked},
        )
    said = checked.verdict or f"not checked: {checked.why}"
    head = f"{checked.subject} against {checked.against or 'nothing'}: {said}"
    app.result(
        checked,
        [head, *(f"  {line}" for line in change_lines(checked.changes))],
        bare=checked.verdict or "not checked",
    )
