"""servingrepo show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.app import App, table
from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import compatibility_lines, demand_lines
from servingrepo.cli.fingerprints import fingerprint_lines, tensor_lines
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import drift_lines, proof_lines
from servingrepo.cli.signatures import signature_lines
from servingrepo.cli.unreadable import refuse_unreadable
from servingrepo.options import Option
from servingrepo.repository.records import ADOPTED
from servingrepo.repository.trash import find_trashed
from servingrepo.texts import sized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.listing import Lineage, ModelDetails
    from servingrepo.repository.records import VersionRecord
    from servingrepo.repository.trash import Trashed
    from servingrepo.runs.origin import Code, Origin

_MOST_NUMBERS = 12


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The subject of the output."""

    lineage: Annotated[
        bool,
        Option(help="Show the run of each served version: of all models, or of REF."),
    ] = False


@make(
    "show",
    examples="""
    servingrepo show ranker
    servingrepo show ranker@7
    servingrepo show ranker@served --json
    servingrepo show --lineage""",
)
@click.argument("reference", metavar="REF", required=False)
@takes(asked=Asked)
@click.pass_obj
def command(app: App, reference: str | None, asked: Asked) -> None:
    """Show a model with its versions (NAME), or the record of one version (NAME@…)."""
    repo = app.open()
    if asked.lineage:
        rows = repo.lineage(reference)
        app.result(rows, _lineage(rows), bare="\n".join(row.run for row in rows) or None)
        return
    if reference is None:
        raise click.MissingParameter(param_hint="REF", param_type="argument")
    if "@" in reference:
        record = repo.show_version(reference)
        trashed = find_trashed(repo.value.layout, record.model, record.version)
        value = {**msgspec.to_builtins(record, str_keys=True), "trashed": trashed}
        lines = [*_version(record), *_trashed(trashed)]
        app.result(value if trashed else record, lines, bare=record.version)
        return
    model = repo.show(reference)
    if not model.unknown or not app.json:
        app.result(
            model, _model(model), bare="\n".join(str(row.version) for row in model.versions) or None
        )
    if model.unknown:
        refuse_unreadable(repo.value, {"model": model})


def _model(model: ModelDetails) -> Iterator[str]:
    served = f"{model.served if model.served is not None else 'nothing'} is served"
    if model.unknown:
        served = "what is served is not known"
    elif model.elsewhere:
        served = f"unmanaged: {served if model.served is not None else 'what its policy says'}"
        served += f", from the base path {model.elsewhere}"
    used = f"the highest number ever used is {model.highest}"
    ours = used if model.ours else "unmanaged: servingrepo published no version of it"
    yield f"{model.model}: {served}; {ours}"
    if model.elsewhere:
        yield "versions there were not read; all below is what this repository has of that name"
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
    if rows or model.ours:
        yield from table(["VERSION", "STATE", "CREATED", "BY", "SIZE", "PROOF", "MESSAGE"], rows)
    for one in model.trash:
        bad = ", bad" if one.bad is not None else ""
        yield (
            f"in the trash: {one.version} since {one.since[:19]}, {sized(one.size)}{bad}; "
            f"servingrepo restore {model.model}@{one.version}"
        )
    for name in model.foreign:
        yield f"unmanaged: {name} (no record: servingrepo did not publish it, and never touches it)"
    if not model.ours:
        yield (
            f"next: servingrepo adopt {model.model} takes it under management where it lies, or says why it "
            "cannot"
        )


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
    yield from _origin(record.origin)
    for number in record.measured[:_MOST_NUMBERS]:
        yield f"  measured      {number.name}: {_number(number.last)} (step {number.step})"
    if len(record.measured) > _MOST_NUMBERS:
        yield f"  measured      and {len(record.measured) - _MOST_NUMBERS} more: --json shows them"
    yield from (f"  note          {doubt}" for doubt in record.doubts)
    yield from (f"  not read      {problem}" for problem in record.unread)
    for gate in record.gates:
        yield f"  gate          {gate.gate}: {gate.verdict}: {gate.why}"
    yield from (f"  {line}" for line in demand_lines(record.demands))
    if record.guard is not None:
        yield from compatibility_lines(record.guard, smoked=bool(record.proofs), width=14)
    if not record.proofs:
        adopted = record.source.kind == ADOPTED
        yield f"  proof         {'adopted, and not smoke-tested' if adopted else 'not checked'}"
    for proof in record.proofs:
        yield from proof_lines(proof, f"{record.model}@{record.version}")
        if proof.drift is not None:
            yield from drift_lines(proof.drift, f"{record.model}@{proof.drift.live}")


def _origin(origin: Origin) -> Iterator[str]:
    """Yield the origin of a version."""
    if origin.code is not None:
        yield f"  code          {_code(origin.code)}"
    if origin.command:
        yield f"  command       {origin.command}"
    for name, value in sorted(origin.mlflow.items()):
        yield f"  mlflow        {name}={value}"
    for name, value in sorted(origin.pipeline.items()):
        yield f"  pipeline      {name}={value}"
    for path, digest in sorted(origin.config_files.items()):
        yield f"  config        {path} (sha256 {digest[:12]})"
    for path, why in sorted(origin.config_unread.items()):
        yield f"  config        {path} was not read whole: {why}"
    for number, (key, value) in enumerate(origin.config.items()):
        if number >= _MOST_NUMBERS:
            yield f"    and {len(origin.config) - number} more: --json shows them"
            break
        yield f"    {key:<11} {value}"


def _code(code: Code) -> str:
    state = {True: "with changes", False: "clean", None: "not checked for changes"}[code.dirty]
    branch = f", {code.branch}" if code.branch else ""
    return f"git {code.commit}{branch}, {state}; of the {code.of}, at promotion"


def _lineage(rows: tuple[Lineage, ...]) -> Iterator[str]:
    """Yield a table of served versions and runs."""
    cells = [
        [
            f"{row.model}@{row.version}",
            ", ".join([*(["served"] if row.served else []), *row.labels]) or "-",
            row.since[:19] or "-",
            row.created[:19] or "-",
            row.by or "-",
            str(row.origin.code) if row.origin is not None and row.origin.code is not None else "-",
            row.run or "no record",
        ]
        for row in rows
    ]
    yield from table(["VERSION", "STATE", "SINCE", "PROMOTED", "BY", "CODE", "RUN"], cells)


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.6g}"
