"""Gates: conditions on what a run measured, before its model may be promoted, such as `validation/accuracy >= 0.92`.

    [last(]NAME[)] OP BOUND      the last value
    best(NAME) OP BOUND          the highest for >= and >, the lowest for <= and <
    BOUND                        a number, or what the served version had: `served`, `served - 0.005`

NAME is a name that `scan` shows, or its end: `validation/accuracy` also means `logs/validation/accuracy`. If no
metric has that name, it means `logs/validation/epoch_accuracy`, which Keras' TensorBoard callback writes. A metric
that is missing, is NaN, or is meant by several names does not pass.
"""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from servingrepo.errors import GateFailed, UsageError
from servingrepo.runs.measurements import GateVerdict, Measurement, Number
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.runs.run import Run

__all__ = ["Gate", "Served", "judge_gate", "judge_gates", "numbers_of", "parse_gate"]

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_GATE = re.compile(
    r"(?:(?P<take>last|best)\((?P<inner>[^()<>=]+)\)|(?P<name>[^()<>=]+))"
    r"\s*(?P<op>>=|<=|>|<)\s*"
    rf"(?:(?P<served>served)(?:\s*(?P<sign>[+-])\s*(?P<margin>{_NUMBER}))?|(?P<bound>[+-]?{_NUMBER}))"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_MOST_NUMBERS = 500
_MOST_LISTED = 6

T = TypeVar("T", Measurement, Number)


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One gate. If `relative`, `bound` is a margin that is added to the served version's value."""

    text: str
    name: str
    take: Literal["last", "best"]
    op: str
    bound: float
    relative: bool


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The version that is served, and the numbers on its record."""

    version: int
    numbers: tuple[Number, ...]


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises:
        UsageError: The text is no gate.
    """
    match = _GATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--require {text!r} is no gate",
            hint="for example 'validation/accuracy >= 0.92', 'best(loss) < 0.1' or 'auc >= served - 0.005'",
        )
    margin = float(match["margin"] or 0) * (-1 if match["sign"] == "-" else 1)
    return Gate(
        text=text.strip(),
        name=(match["inner"] or match["name"]).strip(),
        take="best" if match["take"] == "best" else "last",
        op=match["op"],
        bound=margin if match["served"] else float(match["bound"]),
        relative=match["served"] is not None,
    )


def numbers_of(measurements: Sequence[Measurement]) -> tuple[Number, ...]:
    """Return the numbers that a record keeps: of at most 500 names, and without NaN, which JSON cannot hold."""
    return tuple(
        Number(
            name=one.name,
            last=_finite(one.last.value),
            step=one.last.step,
            lowest=_finite(one.lowest.value) if one.lowest is not None else None,
            highest=_finite(one.highest.value) if one.highest is not None else None,
        )
        for one in measurements[:_MOST_NUMBERS]
    )


def judge_gate(
    gate: Gate, measurements: Sequence[Measurement], *, served: Served | None
) -> GateVerdict:
    """Return the verdict of a gate on a run.

    Args:
        gate: The gate.
        measurements: The measurements of the run.
        served: The served version, for gates that compare with it. None if no version is served: then the verdict of
            such a gate is "not compared".
    """
    named = _named(gate.name, measurements)
    if len(named) != 1:
        return _missing(gate, measurements, named)
    (one,) = named
    point = one.last
    if gate.take == "best":
        best = one.highest if gate.op.startswith(">") else one.lowest
        point = best if best is not None else point
    where = f"{one.name} is {_digits(point.value, gate.bound)} ({gate.take}, step {point.step}, {point.file})"
    verdict = GateVerdict(
        gate=gate.text,
        verdict="failed",
        name=one.name,
        value=_finite(point.value),
        step=point.step,
        file=point.file,
        why=where,
    )
    if one.doubtful:
        return msgspec.structs.replace(verdict, why=f"{where}, but {one.doubtful}")
    if math.isnan(point.value):
        return verdict
    bound = gate.bound
    if gate.relative:
        if served is None:
            return msgspec.structs.replace(
                verdict,
                verdict="not compared",
                why=f"{where}; nothing is served to compare it with",
            )
        number = _of_served(gate, one.name, served)
        if number is None:
            return msgspec.structs.replace(
                verdict,
                verdict="missing",
                why=f"{where}, but the record of version {served.version}, which is served, has no {gate.name}",
            )
        bound += number
        where += f"; version {served.version}, which is served, had {number:.6g}"
    passed = _COMPARE[gate.op](point.value, bound)
    return msgspec.structs.replace(
        verdict,
        verdict="passed" if passed else "failed",
        bound=_finite(bound),
        served=served.version if gate.relative and served is not None else None,
        why=where,
    )


def _missing(
    gate: Gate, measurements: Sequence[Measurement], named: Sequence[Measurement]
) -> GateVerdict:
    if named:
        names = some([one.name for one in named], most=_MOST_LISTED)
        why = f"{gate.name} may be any of {names}: write more of the name"
    elif measurements:
        known = sorted(one.name for one in measurements)
        close = [name for name in known if gate.name.rpartition("/")[2] in name]
        why = f"the run has no {gate.name}; it has {some(close or known, most=_MOST_LISTED)}"
    else:
        why = f"the run has no {gate.name}, nor any other metric"
    return GateVerdict(gate=gate.text, verdict="missing", name=gate.name, why=why)


def _named(name: str, found: Sequence[T]) -> list[T]:
    """Return those that a name means: equal to it, ending in it, or ending in it with Keras' prefix `epoch_`."""
    folder, slash, last = name.rpartition("/")
    keras = f"{folder}{slash}epoch_{last}"
    for wanted in (name, keras):
        whole = [one for one in found if one.name == wanted]
        if whole:
            return whole
        ending = [one for one in found if one.name.endswith(f"/{wanted}")]
        if ending:
            return ending
    return []


def _of_served(gate: Gate, name: str, served: Served) -> float | None:
    """Return the served version's number of the same name, or else the one that the gate means there."""
    named = _named(name, served.numbers) or _named(gate.name, served.numbers)
    if len(named) != 1:
        return None
    if gate.take == "last":
        return named[0].last
    return named[0].highest if gate.op.startswith(">") else named[0].lowest


def _digits(value: float, bound: float) -> str:
    """Return a number with six digits, or with all if six look like the bound: float32's 0.9 is less than 0.9."""
    short = f"{value:.6g}"
    return repr(value) if value != bound and short == f"{bound:.6g}" else short


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def judge_gates(
    gates: Sequence[Gate], run: Run, *, served: Served | None
) -> tuple[GateVerdict, ...]:
    """Judge all gates on a run, and return their verdicts.

    Args:
        gates: The gates.
        run: The run.
        served: The numbers of the served version; None if no version is served, or no gate needs them.

    Raises:
        GateFailed: A gate failed, or its metric is missing. The error lists the verdicts of all gates.
    """
    measured = run.measured
    verdicts = tuple(judge_gate(gate, measured.measurements, served=served) for gate in gates)
    bad = [one for one in verdicts if one.verdict in {"failed", "missing"}]
    if bad:
        raise GateFailed(
            f"{run.scan.run} does not pass {len(bad)} of {len(gates)} gates: {bad[0].gate}: {bad[0].why}",
            problems=[
                *(f"{one.gate}: {one.verdict}: {one.why}" for one in verdicts),
                *(f"not read: {problem}" for problem in measured.unread),
            ],
            hint=_hint(run, bad),
            details={"gates": verdicts},
        )
    return verdicts


def _hint(run: Run, bad: Sequence[GateVerdict]) -> str:
    if all(one.verdict == "failed" for one in bad):
        return "train further, or change the gate: --require, or require in servingrepo.toml"
    if run.scan.kind == "self":
        return "give the whole run directory, with its events and metrics, not the SavedModel alone"
    return f"servingrepo scan -v {run.scan.run} shows what the run measured, by name"
