"""The plan of a change: the configs that servers get before, between and after it. Pure functions of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.modelconfig import ModelConfig, drop, entry, pin

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from servingrepo.repository.snapshot import Snapshot


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One switch of one model.

    `between` has the old and the new versions, so that the new one is loaded while the old one still answers.
    `labelled` has both and the new labels, which TF Serving takes only when their versions are loaded.
    `version` is None when the model is taken out.
    """

    model: str
    before: ModelConfig
    between: ModelConfig
    labelled: ModelConfig
    after: ModelConfig
    old_pins: tuple[int, ...]
    new_pins: tuple[int, ...]
    old_labels: dict[str, int]
    new_labels: dict[str, int]
    version: int | None

    @property
    def base_path(self) -> str:
        """The path where servers see the model's versions; empty if no config has it."""
        found = entry(self.between, self.model)
        return found.base_path if found is not None else ""

    @property
    def moves_labels(self) -> bool:
        """Whether labels change, which takes a reload of its own."""
        return self.old_labels != self.new_labels

    @property
    def goes_down(self) -> bool:
        """Whether unlabelled clients get a lower version: they get it only when the higher one is dropped."""
        return max(self.new_pins, default=0) < max(self.old_pins, default=0)

    @property
    def changes(self) -> bool:
        """Whether anything changes at all."""
        return self.old_pins != self.new_pins or self.moves_labels or self.settles_policy

    @property
    def settles_policy(self) -> bool:
        """Whether the plan pins an entry whose policy lets the disk decide what is served."""
        found = [entry(config, self.model) for config in (self.before, self.after)]
        policies = [one.policy for one in found if one is not None]
        return len(set(policies)) > 1


def plan_serve(now: Snapshot, version: int) -> Plan:
    """Plan to serve one version to unlabelled clients.

    They get the highest loaded version, so a label must not keep a higher version loaded: labels above the version
    come down to it. Labels on lower versions stay, and keep these loaded.
    """
    return _plan(now, version, labels={name: min(at, version) for name, at in now.labels.items()})


def plan_rollback(now: Snapshot, version: int) -> Plan:
    """Plan to go back to a version: labels of the version that is left move along.

    So do labels of versions that have gone from disk: they answer nothing, and would keep the config invalid.
    """
    left = {now.top, *(set(now.labels.values()) - set(now.published))}
    labels = {
        name: version if at in left or at > version else at for name, at in now.labels.items()
    }
    return _plan(now, version, labels=labels)


def plan_label(now: Snapshot, version: int, *, labels: Mapping[str, int], served: int) -> Plan:
    """Plan to give a model these labels. The version `served` to unlabelled clients stays loaded beside them."""
    return _plan(now, version, labels=labels, served=served)


def plan_unserve(now: Snapshot) -> Plan:
    """Plan to take a model out of the config."""
    return Plan(
        model=now.model,
        before=now.config,
        between=now.config,
        labelled=now.config,
        after=drop(now.config, now.model),
        old_pins=now.served,
        new_pins=(),
        old_labels=dict(now.labels),
        new_labels={},
        version=None,
    )


def without_labels(config: ModelConfig, model: str, labels: Collection[str]) -> ModelConfig:
    """Return the config in which a model lacks these labels, for a server on which they cannot hold now."""
    found = entry(config, model)
    if found is None or not labels:
        return config
    kept = {label: at for label, at in found.labels.items() if label not in labels}
    return pin(config, name=model, base_path=found.base_path, versions=found.versions, labels=kept)


def _plan(
    now: Snapshot, version: int, *, labels: Mapping[str, int], served: int | None = None
) -> Plan:
    new_pins = tuple(sorted({served if served is not None else version, *labels.values()}))
    both = sorted({*now.served, *new_pins})

    def with_pins(versions: Collection[int], to: Mapping[str, int]) -> ModelConfig:
        return pin(
            now.config, name=now.model, base_path=now.base_path, versions=versions, labels=to
        )

    return Plan(
        model=now.model,
        before=now.config,
        between=with_pins(both, now.labels),
        labelled=with_pins(both, labels),
        after=with_pins(new_pins, labels),
        old_pins=now.served,
        new_pins=new_pins,
        old_labels=dict(now.labels),
        new_labels=dict(labels),
        version=version,
    )
