"""Proof by running: a version is served by an engine and smoke-tested; the proof says what ran on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.repository.records import Proof
from servingrepo.serving.client import ServingClient
from servingrepo.serving.deadline import Deadline
from servingrepo.smoke import SmokeCase, run_smoke

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servingrepo.savedmodel import Inspection
    from servingrepo.serving.engines import Engine


def prove(
    engine: Engine,
    *,
    model: str,
    version: int,
    export: Path,
    inspection: Inspection,
    cases: Sequence[SmokeCase] = (),
    timeout: float,
    staged: bool,
    time: str,
    txid: str = "",
) -> Proof:
    """Serve `export` as that version, send it requests, and return what came of it: it may be bad.

    Raises:
        LoadFailed, ServerDied, ServerTimeout, EngineUnavailable: As the engine and the server say.
    """
    deadline = Deadline.after(timeout)
    with (
        engine.serve(
            model=model, version=version, export=export, deadline=deadline, txid=txid
        ) as server,
        ServingClient(server.endpoint) as client,
    ):
        report = run_smoke(
            client,
            model=model,
            version=version,
            inspection=inspection,
            cases=cases,
            deadline=deadline,
        )
    return Proof(
        engine=server.engine,
        server=server.server,
        image=server.image,
        time=time,
        staged=staged,
        report=report,
    )
