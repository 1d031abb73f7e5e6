"""A snapshot: what the repository says of one model at one moment, as one frozen value.

A verb reads one snapshot to decide, and a fresh one under the lock to commit. Plans are pure functions of snapshots.
A snapshot leaves out the trash: a rollback must not wait for the trash or fail because it cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from servingrepo.modelconfig import ModelConfig, entry
from servingrepo.repository.config import (
    base_path_elsewhere,
    read_config,
    read_config_of,
    served_by_policy,
)
from servingrepo.repository.records import BadMark, Hold, ModelState
from servingrepo.repository.repository import load_state, versions_on_disk

if TYPE_CHECKING:
    from servingrepo.modelconfig import Entry
    from servingrepo.repository.repository import Repository

__all__ = ["Snapshot", "read_snapshot", "snapshot_of", "snapshot_to_change"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the repository says of one model at one moment.

    Attributes:
        model: The model's name.
        config: The whole models.config, because a change writes the entries of all models.
        base_path: Where servers see the versions that this repository keeps of the model.
        elsewhere: The base path of an unmanaged entry of that name; empty if there is none.
        state: Its state; None if the model is not ours.
        published: Its versions on disk that have a record, ascending.
        unmanaged: Versions on disk without a record, by number, with their names on disk.
        served: The versions that models.config serves, ascending. Under a policy such as `latest` the disk decides.
    """

    model: str
    config: ModelConfig
    base_path: str
    elsewhere: str
    state: ModelState | None
    published: tuple[int, ...]
    unmanaged: Mapping[int, tuple[str, ...]]
    served: tuple[int, ...]

    @property
    def entry(self) -> Entry | None:
        """Its entry in models.config; None if it has none."""
        return entry(self.config, self.model)

    @property
    def labels(self) -> Mapping[str, int]:
        """Its version labels."""
        found = self.entry
        return found.labels if found is not None else {}

    @property
    def pins(self) -> tuple[int, ...]:
        """The versions that its entry lists by their numbers, ascending."""
        found = self.entry
        return found.versions if found is not None else ()

    @property
    def top(self) -> int | None:
        """The version that unlabelled clients get: the highest served one (basic_manager.cc)."""
        return max(self.served, default=None)

    @property
    def bad(self) -> Mapping[int, BadMark]:
        """Its bad marks, by version."""
        return self.state.bad if self.state is not None else {}

    @property
    def hold(self) -> Hold | None:
        """The hold that keeps promotions from changing what it serves; None if it is not held."""
        return self.state.hold if self.state is not None else None

    @property
    def good(self) -> tuple[int, ...]:
        """Its published versions without a bad mark, ascending."""
        return tuple(one for one in self.published if one not in self.bad)


def read_snapshot(repo: Repository, model: str) -> Snapshot:
    """Read a snapshot of a model now.

    Raises:
        ConfigInvalid: models.config is no model config.
        RepositoryDamaged, NewerFormat: The model's state cannot be read.
    """
    return snapshot_of(repo, model, read_config(repo).config)


def snapshot_to_change(repo: Repository, model: str) -> Snapshot:
    """Read a snapshot of a model, to change its entry in models.config.

    Raises:
        ConfigEdited, ConfigInvalid, RepositoryDamaged: models.config is not as servingrepo wrote it, has the model
            elsewhere, or cannot be replaced.
    """
    return snapshot_of(repo, model, read_config_of(repo, model))


def snapshot_of(repo: Repository, model: str, config: ModelConfig) -> Snapshot:
    """Make a snapshot of a model from a config that was read already and from the disk."""
    found = entry(config, model)
    elsewhere = base_path_elsewhere(repo, config, model)
    on_disk = versions_on_disk(repo, model)
    served: frozenset[int] = frozenset()
    if found is not None and (found.policy == "specific" or not elsewhere):
        served = served_by_policy(found, {*on_disk.published, *on_disk.unmanaged})
    return Snapshot(
        model=model,
        config=config,
        base_path=repo.base_path(model),
        elsewhere=elsewhere,
        published=on_disk.published,
        unmanaged=on_disk.unmanaged,
        served=tuple(sorted(served)),
        # The state is read last, because a first promotion writes it before the version appears.
        state=load_state(repo, model),
    )
