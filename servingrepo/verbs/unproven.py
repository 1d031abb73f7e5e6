"""Warnings about a version that clients get: signatures without a proof, and operations that its servers lack.

A live server that answers GetModelMetadata has loaded the version. That proves nothing about a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import UnsupportedExport
from servingrepo.repository.records import ADOPTED
from servingrepo.repository.repository import load_record
from servingrepo.savedmodel.server_fit import fit_server
from servingrepo.texts import some

if TYPE_CHECKING:
    from servingrepo.fleet.rules import Rules
    from servingrepo.repository.records import VersionRecord
    from servingrepo.repository.repository import Repository
    from servingrepo.savedmodel.values import Demands

__all__ = ["refuse_lacking_servers", "say_unproven"]


def say_unproven(
    repo: Repository, model: str, version: int, rules: Rules, *, live: bool
) -> tuple[str, ...]:
    """Return the signatures that nothing has proven, and the operations that its servers lack if these are known.

    Missing proofs count on `live` servers only. The probe cases of the rules, which these answered, are proofs too.
    """
    record = load_record(repo, model, version)
    name = f"{model}@{version}"
    if record is None:
        return (f"NOT PROVEN: {name} has no record, and no request was ever tried",) if live else ()
    said = _unanswered(record, name, rules) if live else ""
    return (*([said] if said else []), *lacking(record.demands, rules))


def _unanswered(record: VersionRecord, name: str, rules: Rules) -> str:
    keys = [one.key for one in record.signatures]
    answered = {one.signature for proof in record.proofs for one in proof.report.passed}
    answered |= {case.signature for case in rules.probes}
    missing = [key for key in keys if key not in answered]
    if not missing:
        return ""
    means = "a server that answers GetModelMetadata has loaded it, which proves no more"
    if not record.proofs and len(missing) == len(keys):
        was = "adopted" if record.source.kind == ADOPTED else "published"
        return f"NOT PROVEN: {name} was {was} without a smoke test, and no request was ever tried: {means}"
    return f"NOT PROVEN: no request of {some(missing)} was ever answered by {name}: {means}"


def lacking(demands: Demands | None, rules: Rules) -> tuple[str, ...]:
    """Return the operations that the endpoints' servers lack, if the version of the servers is known."""
    if rules.server is None:
        return ()
    if demands is None:
        return ("its operations are not on record: not checked against the server's",)
    fit = fit_server(demands, rules.server)
    if not fit.checked:
        return (f"the operations of TensorFlow Serving {fit.server} are not on file: not checked",)
    return fit.problems


def refuse_lacking_servers(name: str, demands: Demands | None, rules: Rules) -> None:
    """Refuse a graph that the endpoints' servers cannot run, before any of them gets it.

    Raises:
        UnsupportedExport: The version of the servers is known, and lacks operations.
    """
    if rules.server is None or demands is None:
        return
    problems = fit_server(demands, rules.server).problems
    if problems:
        raise UnsupportedExport(
            f"the endpoints cannot run {name}: {problems[0]}",
            problems=problems if len(problems) > 1 else (),
            hint="export it for that server; or leave --server-version out, if the server has them all the same",
        )
