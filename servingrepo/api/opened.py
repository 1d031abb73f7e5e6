"""An opened repository, and what its verbs share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import (
    Repository,
    model_names,
    need_state,
    published_versions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servingrepo.servers.engines.choice import Engine, EngineChoice


class Opened:
    """An opened repository. `root` is its directory, `value` the value that library functions take."""

    def __init__(self, value: Repository) -> None:
        self.value = value

    @property
    def root(self) -> Path:
        """The directory."""
        return self.value.root

    def models(self) -> tuple[str, ...]:
        """Return the names of the models."""
        return model_names(self.value)

    def _engine(self, engine: Engine | EngineChoice | str | None) -> Engine:
        """Return the engine that was given, or the one that was asked for by name."""
        from servingrepo.repository.leftovers import left_on
        from servingrepo.servers.engines.choice import EngineChoice, choose_engine

        if engine is None or isinstance(engine, str):
            engine = EngineChoice(name=engine or "auto")
        if not isinstance(engine, EngineChoice):
            return engine
        return choose_engine(
            engine,
            models=self.value.layout.models,
            server_root=self.value.server_root,
            ours=self.models() if engine.name.startswith("remote") else (),
            left_on=partial(left_on, self.value),
        )

    def _versions(self, text: str) -> Sequence[tuple[str, int]]:
        parsed = parse_reference(text)
        if parsed.kind == "default":
            from servingrepo.repository.lost import lost_versions

            need_state(self.value, parsed.model)
            there = published_versions(self.value, parsed.model)
            numbers = sorted({*there, *lost_versions(self.value, parsed.model)})
            return [(parsed.model, one) for one in numbers]
        return [(parsed.model, resolve(self.value, parsed))]
