"""servingrepo show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from servingrepo.cli.app import App, sized, table
from servingrepo.cli.command import command as make
from servingrepo.cli.fingerprints import fingerprint_lines, tensor_lines
from servingrepo.cli.proofs import proof_lines
from servingrepo.cli.signatures import signature_lines
from servingrepo.repository.trash import find_trashed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.listing import ModelDetails
    from servingrepo.repository.records import VersionRecord
    from servingrepo.repository.trash import Trashed

_MOST_NUMBERS = 12


@make(
    "show",
    examples="""
    servingrepo show ranker
    servingrepo show ranker@7
    servingrepo show ranker@served --json""",
)
@click.argument("reference", metavar="REF")
@click.pass_obj
def command(app: App, reference: str) -> None:
    """Show a model with its versions (NAME), or all that is known of one version (NAME@…)."""
    repo = app.open()
    if "@" in reference:
        record = repo.show_version(reference)
        trashed = find_trashed(repo.value.layout, record.model, record.version)
        value = {**msgspec.to_builtins(record, str_keys=True), "trashed": trashed}
        lines = [*_version(record), *_trashed(trashed)]
        app.result(value if trashed else record, lines, bare=record.version)
        return
    model = repo.show(reference)
    app.result(
        model, _model(model), bare="\n".join(str(row.version) for row in model.versions) or None
    )


def _model(model: ModelDetails) -> Iterator[str]:
    served = model.served if model.served is not None else "nothing"
    yield f"{model.model}: {served} is served; the highest number ever used is {model.highest}"
    if model.hold is not None:
        yield f"held by {model.hold.user}@{model.hold.host} since {model.hold.time}: {model.hold.reason or '-'}"
    rows = [
        [
            row.version,
            ", ".join(
                [
                    *(["served"] if row.served else ["pinned"] if row.pinned else []),
                    *row.labels,
                    *(["bad"] if row.bad else []),
                ]
            )
            or "-",
            row.created[:19],
            row.by,
            sized(row.size),
            row.proof,
            row.message or "-",
        ]
        for row in model.versions
    ]
    yield from table(["VERSION", "STATE", "CREATED", "BY", "SIZE", "PROOF", "MESSAGE"], rows)
    for one in model.trash:
        bad = ", bad" if one.bad is not None else ""
        yield (
            f"in the trash: {one.version} since {one.since[:19]}, {sized(one.size)}{bad}; "
            f"servingrepo restore {model.model}@{one.version}"
        )
    for name in model.foreign:
        yield f"foreign: {name} (no record: servingrepo did not publish it, and never touches it)"


def _trashed(trashed: Trashed | None) -> Iterator[str]:
    if trashed is not None:
        yield f"  in the trash  {trashed.path}"
        yield f"  next          servingrepo restore {trashed.model}@{trashed.version}"


def _version(record: VersionRecord) -> Iterator[str]:
    yield f"{record.model}@{record.version}"
    yield f"  created       {record.created} by {record.user}@{record.host}"
    if record.message:
        yield f"  message       {record.message}"
    yield f"  run           {record.source.run}"
    yield f"  export        {record.source.export} ({record.source.kind})"
    for key, value in sorted(record.source.provenance.items()):
        yield f"    {key:<11} {value}"
    yield f"  content       {record.digest}"
    yield f"  size          {sized(record.size)} in {len(record.manifest.files)} files"
    yield f"  TensorFlow    {record.tensorflow or 'unknown'}"
    yield from (f"  {line}" for line in fingerprint_lines(record.fingerprint))
    yield from (f"  {line}" for line in tensor_lines(record.tensors))
    yield from (f"  {line}" for line in signature_lines(record.signatures))
    for number in record.measured[:_MOST_NUMBERS]:
        yield f"  measured      {number.name}: {_number(number.last)} (step {number.step})"
    if len(record.measured) > _MOST_NUMBERS:
        yield f"  measured      and {len(record.measured) - _MOST_NUMBERS} more: --json shows them"
    for gate in record.gates:
        yield f"  gate          {gate.gate}: {gate.verdict}: {gate.why}"
    if not record.proofs:
        yield "  proof         not checked"
    for proof in record.proofs:
        yield from proof_lines(proof)


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.6g}"
