"""Whether a run passes the gates of a promotion, and what its record keeps of the run's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import GateFailed, StaleRun
from servingrepo.repository.repository import load_record
from servingrepo.runs.gates import Served, judge_gate, numbers_of
from servingrepo.runs.measure import measure
from servingrepo.runs.measurements import GateVerdict, Number
from servingrepo.runs.origin import Origin
from servingrepo.runs.staleness import staleness_of
from servingrepo.storage.progress import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.repository.snapshot import Snapshot
    from servingrepo.runs import RunScan
    from servingrepo.runs.gates import Gate
    from servingrepo.runs.listing import Listing
    from servingrepo.runs.mlflow import MlflowRun
    from servingrepo.runs.reading import FilesRead
    from servingrepo.storage.progress import Progress


_MOST_UNREAD = 100


class Gated(msgspec.Struct, frozen=True, kw_only=True):
    """What the run measured, how it passed its gates, and where it comes from."""

    numbers: tuple[Number, ...]
    verdicts: tuple[GateVerdict, ...]
    doubts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    origin: Origin = Origin()


def pass_gates(
    repo: Repository,
    now: Snapshot,
    scan: RunScan,
    gates: Sequence[Gate],
    *,
    seen: Listing,
    tracked: MlflowRun | None,
    reads: FilesRead,
    strict: bool = False,
    progress: Progress = silent,
) -> Gated:
    """Read a run's numbers and hold them against gates; say what is stale or mixed in it.

    Args:
        repo: The repository.
        now: What the repository says of the model.
        scan: The run.
        gates: What it must have measured.
        seen: The look at it.
        tracked: What MLflow knows of it.
        reads: Reads files of metrics, and remembers them.
        strict: Whether a stale or mixed run is refused.
        progress: Told the bytes of event files as they are read.

    Raises:
        StaleRun: Something is, and `strict` is set.
        GateFailed: One does not pass, or the run does not say; all of them are listed.
    """
    measured = measure(seen, tracked, reads=reads, progress=progress)
    served = _served(repo, now) if any(gate.relative for gate in gates) else None
    verdicts = tuple(judge_gate(gate, measured.measurements, served=served) for gate in gates)
    unread = (
        *measured.problems,
        *(problem for run in measured.event_runs for problem in run.problems),
    )
    bad = [one for one in verdicts if one.verdict in {"failed", "missing"}]
    if bad:
        raise GateFailed(
            f"{scan.run} does not pass {len(bad)} of {len(gates)} gates: {bad[0].gate}: {bad[0].why}",
            problems=[
                *(f"{one.gate}: {one.verdict}: {one.why}" for one in verdicts),
                *(f"not read: {problem}" for problem in unread),
            ],
            hint=_hint(scan, bad),
            details={"gates": verdicts},
        )
    doubts = staleness_of(scan, seen, measured)
    if strict and doubts:
        raise StaleRun(
            f"{scan.run} may not hold what its training ended with: {doubts[0]}",
            problems=doubts if len(doubts) > 1 else (),
            hint="export the model again, choose with --saved-model, or leave --strict out",
        )
    return Gated(
        numbers=numbers_of(measured.measurements),
        verdicts=verdicts,
        doubts=doubts,
        unread=unread[:_MOST_UNREAD],
    )


def _served(repo: Repository, now: Snapshot) -> Served | None:
    if now.top is None:
        return None
    record = load_record(repo, now.model, now.top)
    return Served(version=now.top, numbers=record.measured if record is not None else ())


def _hint(scan: RunScan, bad: Sequence[GateVerdict]) -> str:
    if all(one.verdict == "failed" for one in bad):
        return "train further, or change the gate: --require, or require in servingrepo.toml"
    if scan.kind == "self":
        return "give the whole run directory, with its events and metrics, not the SavedModel alone"
    return f"servingrepo scan -v {scan.run} shows what the run measured, by name"
