"""Engines for a repository: a remote engine must know the models and the leftovers that the repository has."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from servingrepo.repository.recovery import left_on
from servingrepo.repository.repository import Repository, model_names
from servingrepo.servers.engines.choice import EngineChoice, choose_engine

if TYPE_CHECKING:
    from servingrepo.servers.engines.choice import Engine


def engine_for(repo: Repository, engine: Engine | EngineChoice | str | None) -> Engine:
    """Return a given engine as it is, or choose an engine by its name."""
    if engine is None or isinstance(engine, str):
        engine = EngineChoice(name=engine or "auto")
    if not isinstance(engine, EngineChoice):
        return engine
    return choose_engine(
        engine,
        models=repo.layout.models,
        server_root=repo.server_root,
        ours=model_names(repo) if engine.name.startswith("remote") else (),
        left_on=partial(left_on, repo),
    )
