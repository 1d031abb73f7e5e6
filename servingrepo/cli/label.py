"""servingrepo label set and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import Group
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.switches import print_switch
from servingrepo.fleet.options import LabelOptions, LiveOptions
from servingrepo.modelconfig.paths import WITHOUT_LABELS_FLAG

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@click.group(
    "label",
    cls=Group,
    epilog="""\b
Examples:
  servingrepo label set ranker@7 stable
  servingrepo label remove ranker canary""",
)
def command() -> None:
    """Set or remove labels that clients ask for, such as stable and canary."""


@make(
    "set",
    group="label",
    examples="""
    servingrepo label set ranker@7 stable --endpoint localhost:8500
    servingrepo label set ranker@8 canary --serve
    servingrepo label set ranker@served stable""",
)
@click.argument("reference", metavar="REF")
@click.argument("label", metavar="LABEL")
@takes(options=LabelOptions)
@click.pass_obj
def set_(app: App, reference: str, label: str, options: LabelOptions) -> None:
    """Give the version REF a LABEL; the version that had it before loses it.

    Unlabelled clients get the same version as before. With --endpoint the version is loaded first, and the label
    moves in a second reload: servers accept a label only for a loaded version. A reply proves every label.
    """
    from servingrepo.verbs.label import set_label

    done = set_label(app.open().value, reference, label, options)
    need = f"  servers      {WITHOUT_LABELS_FLAG}"
    print_switch(app, done, bare=done.labels.get(label), more=[need])


@make(
    "remove",
    group="label",
    examples="""
    servingrepo label remove ranker canary
    servingrepo label remove ranker canary beta --endpoint localhost:8500""",
)
@click.argument("model", metavar="NAME")
@click.argument("labels", metavar="LABEL…", nargs=-1, required=True)
@takes(options=LiveOptions)
@click.pass_obj
def remove(app: App, model: str, labels: tuple[str, ...], options: LiveOptions) -> None:
    """Remove LABELs, all at once. Servers refuse requests for them from then on.

    Servers unload their versions, unless unlabelled clients get them or they have another label.
    """
    from servingrepo.verbs.label import remove_labels

    done = remove_labels(app.open().value, model, labels, options)
    print_switch(app, done, bare="")


for _one in (set_, remove):
    command.add_command(_one)
