"""Compatibility of an export: with what clients rely on, and with the operations that servers have and may run.

All of it comes from files alone. So a promotion that would break clients stops in a fraction of a second, before
anything is staged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import (
    BreakingChange,
    ServingRepoError,
    UnsafeOperation,
    UnsupportedExport,
)
from servingrepo.repository.contracts import current_baseline
from servingrepo.repository.records import Guard
from servingrepo.savedmodel.server_fit import effect_line, fit_server
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Collection

    from servingrepo.repository.contracts import Baseline
    from servingrepo.repository.repository import Repository
    from servingrepo.savedmodel.compatibility import Comparison
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import Demands, Effect, Signature
    from servingrepo.servers.engines.server_versions import ExpectedServer

__all__ = ["check_compatibility", "say_changes"]

MOST_PROBLEMS = 500
"""The limit of lines in one error: an export from elsewhere may have 100,000 signatures."""


def check_compatibility(
    inspection: Inspection,
    *,
    model: str,
    baseline: Baseline,
    target: ExpectedServer,
    allow_breaking: bool,
    allow_ops: Collection[str],
) -> Guard:
    """Compare an export with what clients rely on, and with what servers can do and may do.

    Returns:
        The findings, and which of them were allowed.

    Raises:
        UnsupportedExport: The server that will run it is known, and lacks operations.
        BreakingChange: Clients of the baseline would break, and that was not allowed.
        UnsafeOperation: The graph touches files, network or processes, and that was not allowed.
            Each of these errors lists all problems of all three kinds.
    """
    comparison = baseline.compare(inspection.signatures)
    breaking = comparison.breaking if comparison is not None else ()
    effects = inspection.demands.effects if inspection.demands is not None else ()
    unsafe = [one for one in effects if one.op not in allow_ops]
    server, checked, lacking = _fit(inspection.demands, target)
    stops = [
        *(lacking if target.certain else ()),
        *(() if allow_breaking else (one.message for one in breaking)),
        *(effect_line(one) for one in unsafe),
    ]
    if stops:
        raise _stopped(
            inspection.path,
            model=model,
            problems=stops,
            lacks=bool(lacking and target.certain),
            against=baseline.name if breaking and not allow_breaking else "",
            unsafe=unsafe,
        )
    return Guard(
        against=baseline.name,
        verdict=comparison.verdict if comparison is not None else "not checked",
        why=baseline.unknown,
        changes=comparison.changes if comparison is not None else (),
        allowed_breaking=bool(breaking),
        allowed_ops=tuple(one.op for one in effects),
        server=server if checked else "",
        server_problems=lacking,
        notes=_notes(inspection, model, checked=checked),
    )


def say_changes(repo: Repository, model: str, signatures: tuple[Signature, ...]) -> tuple[str, ...]:
    """Return how these signatures would break clients of the version that is served now.

    It never raises: signatures that cannot be compared must not stop a rollback.
    """
    try:
        baseline = current_baseline(repo, model)
        comparison = baseline.compare(signatures)
    except ServingRepoError as error:
        return (f"the signatures were not compared: {error.message}",)
    if comparison is None or not comparison.breaking:
        return ()
    return tuple(f"breaks clients of {baseline.name}: {one}" for one in _messages(comparison))


def _notes(inspection: Inspection, model: str, *, checked: bool) -> tuple[str, ...]:
    """Return warnings: they stop no promotion."""
    notes = []
    if inspection.demands is not None and inspection.demands.custom and not checked:
        notes.append(f"no TensorFlow Serving has the operations {some(inspection.demands.custom)}")
    others = [one for one in inspection.warmup.models if one != model] if inspection.warmup else []
    if others:
        written = f"its warm-up requests were written for the model {some(others)}"
        notes.append(f"{written}; servers ignore that name")
    return tuple(notes)


def _messages(comparison: Comparison) -> list[str]:
    return [one.message for one in comparison.breaking]


def _fit(demands: Demands | None, target: ExpectedServer) -> tuple[str, bool, tuple[str, ...]]:
    """Return the server's name, whether its operations are known, and which of them it lacks."""
    if demands is None or target.version is None:
        return "", False, ()
    fit = fit_server(demands, target.version)
    return fit.server, fit.checked, fit.problems


def _stopped(
    path: str,
    *,
    model: str,
    problems: list[str],
    lacks: bool,
    against: str,
    unsafe: list[Effect],
) -> ServingRepoError:
    hints = []
    if against:
        instead = f"give it another name than {model}"
        if against.endswith(".toml"):
            instead = "edit the contract, if no client relies on that"
        hints.append(f"--allow-breaking publishes it all the same; or {instead}")
    if unsafe:
        options = " ".join(f"--allow-op {one.op}" for one in unsafe[:10])
        hints.append(f"export it without these operations, or allow them: {options}")
    kind: type[ServingRepoError]
    if lacks:
        kind, what = UnsupportedExport, problems[0]
        hints = ["choose the server that will run it (--image), or export it for this server"]
    elif against:
        kind, what = BreakingChange, f"it would break clients of {against}"
    else:
        kind, what = UnsafeOperation, "its graph touches files, network or processes"
    if len(problems) > MOST_PROBLEMS:
        problems = [*problems[:MOST_PROBLEMS], f"and {len(problems) - MOST_PROBLEMS} more"]
    return kind(
        f"{path} cannot be promoted: {what}",
        problems=problems if len(problems) > 1 or not lacks else (),
        hint="; ".join(hints),
        details={"against": against, "operations": [one.op for one in unsafe]},
    )
