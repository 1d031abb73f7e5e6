"""A version that was published without a smoke test gets its proof later, when its content is promoted again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import SmokeFailed
from servingrepo.repository.proving import add_proof, prove, smoking
from servingrepo.repository.publication import find_same
from servingrepo.repository.usage import using
from servingrepo.smoke import judge
from servingrepo.smoke.report import is_enough

if TYPE_CHECKING:
    from servingrepo.repository.records import Proof, VersionRecord
    from servingrepo.repository.repository import Repository
    from servingrepo.savedmodel import Inspection
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.storage.progress import Notice
    from servingrepo.verbs.values import Options


def find_unproven(
    repo: Repository, model: str, digest: str, options: Options
) -> VersionRecord | None:
    """Return the version that has this content and no proof that is enough; None if no proof is wanted.

    Raises:
        VersionBad: The content is marked bad.
    """
    same = find_same(repo, model, digest=digest) if options.smoke else None
    if same is None or any(is_enough(one.report, strict=options.strict) for one in same.proofs):
        return None
    return same


def prove_again(
    repo: Repository,
    unproven: VersionRecord,
    inspection: Inspection,
    options: Options,
    *,
    engine: Engine,
    notice: Notice,
) -> Proof:
    """Smoke-test a version that `find_unproven` found, and add the proof to its record.

    Raises:
        SmokeFailed, LoadFailed and other errors of the engine: It did not prove itself; it stays as it is.
        Locked: The proof could not be written down.
    """
    model, version = unproven.model, unproven.version
    name = f"{model}@{version}"
    notice(f"{name} has this content and was not proven so: it is smoke-tested now")
    with smoking(repo, model, version, engine) as txid, using(repo, model, version):
        proof = prove(
            engine,
            model=model,
            version=version,
            export=repo.layout.version(model, version),
            inspection=inspection,
            cases=options.cases,
            timeout=options.timeout,
            staged=False,
            time=repo.now(),
            txid=txid,
            notice=notice,
        )
    try:
        judge(proof.report, strict=options.strict)
    except SmokeFailed as failed:
        failed.problems = (*failed.problems, f"{name} is published already, and stays as it is")
        raise
    return add_proof(repo, model, version, proof, why=options.message)
