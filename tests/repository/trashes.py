"""What tests of the trash ask of a repository whose model is `m`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.repository.retention import Keep
from servingrepo.repository.trash import find_trashed, trashed_versions

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from servingrepo.repository.pruning import Pruned

LAST = Keep(last=1)


def gone(done: Pruned) -> tuple[int, ...]:
    return tuple(sorted(version for row in done.models for version in row.gone))


def on_disk(repo: OpenRepository) -> list[int]:
    return sorted(row.version for row in repo.show("m").versions)


def in_trash(repo: OpenRepository) -> list[int]:
    return [one.version for one in trashed_versions(repo.value.layout, "m")]


def why(done: Pruned, version: int) -> str:
    return next(
        "; ".join(one.reasons)
        for row in done.models
        for one in row.decisions
        if one.version == version
    )


def configured(repo: OpenRepository, *entries: str) -> None:
    """Have somebody else write models.config."""
    listed = "".join(f"config {{ {one} model_platform: 'tensorflow' }}" for one in entries)
    repo.value.layout.config.write_text(f"model_config_list {{ {listed} }}")


def trash_of(repo: OpenRepository, version: int) -> Path:
    found = find_trashed(repo.value.layout, "m", version)
    assert found is not None
    return Path(found.path)
