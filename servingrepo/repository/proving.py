"""Proofs: an engine serves a version, a smoke test sends requests, and the proof is recorded."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    LoadFailed,
    Locked,
    ServerDied,
    ServerTimeout,
    ServingRepoError,
    StorageFailed,
)
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.repository.records import Proof, encode
from servingrepo.repository.recovery import settle
from servingrepo.repository.repository import locked, me, need_version, new_txid
from servingrepo.repository.transaction import new_event, recorded, writing
from servingrepo.repository.version_lock import alone
from servingrepo.savedmodel.inspection import Inspection
from servingrepo.savedmodel.server_fit import beside_tensorflow, fit_server, outside_files
from servingrepo.servers.engines.server_versions import of_server, too_new
from servingrepo.smoke.drift import Drift, DriftBudget
from servingrepo.storage.lock import hold_lock
from servingrepo.storage.progress import Notice, unheard
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.servers.engines.processes import Beside, RunningServer
    from servingrepo.servers.engines.server_versions import Version
    from servingrepo.smoke.files import Cases  # noqa: TC004 - only smoke tests pay for its import
    from servingrepo.smoke.report import SmokeReport
    from servingrepo.smoke.writing import Sink


_WORTH_SAYING = 2.0


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A live version that a candidate is compared with: its number, its directory, and what its files say."""

    version: int
    export: Path
    inspection: Inspection


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The subject of a smoke test: an export that is served under the name and number of a version.

    Attributes:
        model: The name under which it is served.
        version: The number under which it is served.
        export: Its directory.
        inspection: What its files say.
        cases: The user's own requests, read anew by each iteration; a signature without a case gets made-up data.
        live: The live version that the answers are compared with; None if they are compared with nothing.
        budget: By how much they may differ.
        staged: Whether it is a staging copy.
        txid: The transaction of the test, by which recovery finds what the test left; it may be empty.
    """

    model: str
    version: int
    export: Path
    inspection: Inspection
    cases: Cases | None = None
    live: Live | None = None
    budget: DriftBudget = DriftBudget()
    staged: bool = False
    txid: str = ""


def prove(
    engine: Engine,
    trial: Trial,
    *,
    timeout: float,
    time: str,
    notice: Notice = unheard,
    sink: Sink | None = None,
) -> Proof:
    """Serve an export, send it requests, and return the proof, which may have failed verdicts.

    `notice` gets a line if the export is newer than the server, before the server starts if its version is known.
    `sink` takes all requests that are answered.

    Raises:
        BadCase: A file or function of cases cannot be used.
        LoadFailed, ServerDied, ServerTimeout, EngineUnavailable: The engine or the server failed.
    """
    # Some engines know the version before the start. What the server says later is more reliable.
    notes = _notes(trial.inspection, engine.expected_version())
    for note in notes:
        notice(note)
    refuse_lacking(engine.name, trial.inspection)
    live = trial.live
    if live is None:
        return _prove_once(engine, trial, timeout=timeout, time=time, notes=notes, sink=sink)
    try:
        return _prove_once(engine, trial, timeout=timeout, time=time, notes=notes, sink=sink)
    except (LoadFailed, ServerDied, ServerTimeout) as error:
        # Either of the two may be the reason: alone the candidate shows whether it is.
        why = f"one server does not serve both: {error.message}"
        notice(f"{trial.model}@{live.version} is not compared with: {why}")
        alone = msgspec.structs.replace(trial, live=None)
        proof = _prove_once(engine, alone, timeout=timeout, time=time, notes=notes, sink=sink)
        return msgspec.structs.replace(proof, drift=Drift(live=live.version, why=why))


def _prove_once(
    engine: Engine,
    trial: Trial,
    *,
    timeout: float,
    time: str,
    notes: tuple[str, ...],
    sink: Sink | None,
) -> Proof:
    """Start a server with the export, and with the live version if there is one; send requests to both."""
    deadline = Deadline.after(timeout)
    inspection = trial.inspection
    try:
        with engine.serve(
            model=trial.model,
            version=trial.version,
            export=trial.export,
            deadline=deadline,
            txid=trial.txid,
            beside=_beside(trial),
        ) as server:
            if (reported := of_server(server.server)) is not None:
                notes = _notes(inspection, reported)
            if files := outside_files(inspection.demands):
                notes = (*notes, f"it depends on files outside of the export: {some(files)}")
            report, drift = _smoke(server, trial, sink=sink, deadline=deadline)
    except (LoadFailed, ServerDied, ServerTimeout) as error:
        error.problems = (*error.problems, *notes)
        if deadline.over >= _WORTH_SAYING:
            late = (
                f"stopping the server took {deadline.over:.0f} s, which --timeout does not count; "
            )
            error.problems = (*error.problems, f"{late}it may take 30 s")
        raise
    return Proof(
        engine=server.engine,
        server=server.server,
        image=server.image,
        declared=server.declared,
        time=time,
        staged=trial.staged,
        report=report,
        notes=notes,
        drift=drift,
    )


def _beside(trial: Trial) -> Beside | None:
    """Return the live version as a second export for the server, under a name of its own."""
    from servingrepo.servers.engines.processes import Beside

    if trial.live is None:
        return None
    return Beside(
        model=f"{trial.model}-served", version=trial.live.version, export=trial.live.export
    )


def _smoke(
    server: RunningServer, trial: Trial, *, sink: Sink | None, deadline: Deadline
) -> tuple[SmokeReport, Drift | None]:
    # gRPC takes longer to import than a small model takes to be promoted without a smoke test. Where an engine needs
    # it, it is imported while the server loads.
    from servingrepo.servers.client import ServingClient
    from servingrepo.smoke.inputs import read_words
    from servingrepo.smoke.run import run_smoke

    with ServingClient(server.endpoint) as client:
        report = run_smoke(
            client,
            model=trial.model,
            version=trial.version,
            inspection=trial.inspection,
            cases=trial.cases.of(trial.export) if trial.cases is not None else (),
            words=read_words(trial.export, trial.inspection.assets),
            sink=sink,
            deadline=deadline,
        )
        return report, _compared(client, trial, deadline)


def _compared(client: ServingClient, trial: Trial, deadline: Deadline) -> Drift | None:
    """Compare the answers with those of the live version, if there is one."""
    from servingrepo.smoke.comparison import Side, compare
    from servingrepo.smoke.requests import Target

    live, beside, cases = trial.live, _beside(trial), trial.cases
    if live is None or beside is None or cases is None:
        return None

    def side(model: str, version: int, inspection: Inspection) -> Side:
        target = Target(client=client, model=model, version=version, deadline=deadline)
        return Side(target=target, inspection=inspection)

    return compare(
        side(beside.model, beside.version, live.inspection),
        side(trial.model, trial.version, trial.inspection),
        cases.of(trial.export),
        budget=trial.budget,
    )


@contextmanager
def weighing(proof: Proof) -> Iterator[None]:
    """Give an error of the block the proof that was not enough: a report shows it."""
    try:
        yield
    except ServingRepoError as error:
        error.proof = proof
        raise


def refuse_lacking(engine: str, inspection: Inspection) -> None:
    """Refuse the embedded engine for a graph with operations that it lacks, before it is started.

    The embedded server is plain TensorFlow: it loads no library of operations.

    Raises:
        LoadFailed: It lacks some; the problems say which servers have them.
    """
    if engine != "embedded" or inspection.demands is None:
        return
    linked, custom = beside_tensorflow(inspection.demands), inspection.demands.custom
    if not linked and not custom:
        return
    lines = []
    if linked:
        lines.append(
            f"TensorFlow Serving has {some(linked)}, of TensorFlow Text or TensorFlow Decision Forests"
        )
    if custom:
        lines.append(
            f"TensorFlow Serving does not have the operations {some(custom)} unless it was built with them"
        )
    raise LoadFailed(
        f"the embedded engine cannot load it: it lacks the operations {some((*linked, *custom))}",
        problems=lines,
        hint="smoke-test it on a server that has them: --engine docker --image IMAGE, with an image that was built "
        "with them"
        if custom
        else "smoke-test it on a real server: --engine docker, or --engine binary",
    )


def add_proof(repo: Repository, model: str, version: int, proof: Proof, *, why: str) -> Proof:
    """Add a proof to the record of a version, with a line in the history, and return the proof as it was written.

    Raises:
        Locked: Another command verifies or smoke-tests the version, and so holds the version lock on its record.
        NoSuchVersion: The version does not exist any more.
    """
    with writing(repo):
        record = need_version(repo, model, version)
        event = new_event(
            repo,
            txid=new_txid(repo),
            action="prove",
            model=model,
            version=version,
            why=why,
            proof=str(proof),
        )
        proof = msgspec.structs.replace(proof, time=event.time)
        with recorded(repo, event), alone(repo, model, version) as free:
            if not free:
                raise Locked(
                    f"{model}@{version} is being verified or smoke-tested: its proof was not recorded",
                    hint="wait for that command to end, then call this one again",
                )
            proven = msgspec.structs.replace(record, proofs=(*record.proofs, proof))
            path = repo.layout.record(model, version)
            repo.disk.replace_file(path, encode(proven), step="record")
    return proof


@contextmanager
def alone_on_server(repo: Repository, engine: Engine, notice: Notice = unheard) -> Iterator[None]:
    """Let no other smoke test of this repository use a running server during the block.

    A reload replaces the whole config of a server (model_service_impl.cc), so a second smoke test would take away the
    model of the first. There is one lock for all servers: one server may have several names.

    Raises:
        Locked: Another smoke test took all of `lock_wait` seconds; the message names it.
    """
    with ExitStack() as stack:
        if server := server_of(engine):
            what = f"the server for smoke tests, {server},"
            lock = repo.layout.smoke_lock
            stack.enter_context(
                hold_lock(lock, me(), wait=repo.lock_wait, what=what, notice=notice)
            )
        yield


@contextmanager
def smoking(
    repo: Repository, model: str, version: int, engine: Engine, notice: Notice = unheard
) -> Iterator[str]:
    """Have a running server alone for a smoke test, and keep an intent, so that recovery can unload it after a kill.

    Gives the transaction's name. It is empty if the engine starts its own server, or if we cannot write an intent. A
    user who cannot write here has no lock either.

    Raises:
        Locked: Another smoke test took all of `lock_wait` seconds.
    """
    with ExitStack() as stack:
        txid = ""
        if server_of(engine):
            with suppress(StorageFailed):
                stack.enter_context(alone_on_server(repo, engine, notice))
            with suppress(StorageFailed, Locked), writing(repo, publishing=True):
                intent = Intent(
                    txid=new_txid(repo),
                    command="smoke",
                    owner=me(),
                    model=model,
                    version=version,
                    engine=engine.name,
                    smoked_on=server_of(engine),
                )
                place = repo.layout.intent(intent.txid)
                stack.enter_context(journal.declare(repo.disk, place, intent))
                txid = intent.txid
        try:
            yield txid
        except BaseException:
            if txid:
                with suppress(ServingRepoError), locked(repo):
                    settle(repo, intent, reach=True)
            raise


def server_of(engine: Engine | None) -> str:
    """Return the running server that an engine uses, as HOST:PORT; empty if the engine starts its own."""
    if engine is None:  # so that nothing of gRPC is imported
        return ""
    from servingrepo.servers.engines.remote import RemoteEngine

    return str(engine.endpoint) if isinstance(engine, RemoteEngine) else ""


def _notes(inspection: Inspection, version: Version | None) -> tuple[str, ...]:
    """Say why a server may fail to run an export: the export is newer, or the server lacks operations."""
    newer = too_new(inspection.tensorflow_version, version)
    if version is None or inspection.demands is None:
        return (newer,) if newer else ()
    return (*([newer] if newer else ()), *fit_server(inspection.demands, version).problems)
