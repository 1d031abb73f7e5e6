"""The version source: it polls the models' base paths and gives the wanted versions to the manager.

After sources/storage_path/file_system_storage_path_source.cc: a poll reads all base paths, and a missing one ends it
for all models.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import msgspec

from servingrepo.embedded.status import Status
from servingrepo.embedded.versions import VersionPath, VersionPolicy, discover

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MonitoredModel", "VersionSource"]

logger = logging.getLogger(__name__)

FROZEN = (
    "no model's versions are followed until this path can be read "
    "(as with TensorFlow Serving, file_system_storage_path_source.cc)"
)


class MonitoredModel(msgspec.Struct, frozen=True):
    """A model and its base path."""

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()


class VersionSource:
    """The configured models; `poll` finds their versions."""

    def __init__(self, aspire: Callable[[str, Sequence[VersionPath]], None]) -> None:
        self._aspire = aspire
        self._lock = threading.Lock()
        self._models: tuple[MonitoredModel, ...] = ()
        self._said: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The configured models."""
        return frozenset(model.name for model in self._models)

    def configure(self, models: Sequence[MonitoredModel]) -> None:
        """Replace all models. Versions of removed models are unwanted at once; new models wait for a poll."""
        with self._lock:
            gone = self.names - {model.name for model in models}
            for name in sorted(gone):
                self._aspire(name, ())
            self._models = tuple(models)

    def poll(self) -> None:
        """Read every base path and pass the versions on. If a path cannot be read, pass nothing on."""
        with self._lock:
            found: dict[str, list[VersionPath]] = {}
            said: list[str] = []
            for model in self._models:
                result = discover(model.name, model.base_path, model.policy)
                if isinstance(result, Status):
                    self._say([f"{result.message}: {FROZEN}"])
                    return
                found[model.name], warnings = result
                said += warnings
            self._say(said)
            for name, versions in sorted(found.items()):
                self._aspire(name, versions)

    def _say(self, messages: Sequence[str]) -> None:
        # The real server repeats these at every poll. Here they are logged only when they change.
        for message in messages:
            if message not in self._said:
                logger.warning("%s", message)
        self._said = frozenset(messages)
