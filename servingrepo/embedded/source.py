"""Follows the base paths of the configured models and tells the manager which versions are wanted.

After sources/storage_path/file_system_storage_path_source.cc: one poll covers all models, and one base path
that is missing makes it void for all of them.
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
    """A model whose base path is followed."""

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()


class VersionSource:
    """The configured models; `poll` looks for their versions."""

    def __init__(self, aspire: Callable[[str, Sequence[VersionPath]], None]) -> None:
        self._aspire = aspire
        self._lock = threading.Lock()
        self._models: tuple[MonitoredModel, ...] = ()
        self._said: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The models that are configured."""
        return frozenset(model.name for model in self._models)

    def configure(self, models: Sequence[MonitoredModel]) -> None:
        """Replace all models; versions of those left out are unwanted at once, new ones wait for a poll."""
        with self._lock:
            gone = self.names - {model.name for model in models}
            for name in sorted(gone):
                self._aspire(name, ())
            self._models = tuple(models)

    def poll(self) -> None:
        """Look at every base path and pass on what is there, or nothing at all if one cannot be read."""
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
        # The real server repeats these with every poll; once until something changes is enough to read.
        for message in messages:
            if message not in self._said:
                logger.warning("%s", message)
        self._said = frozenset(messages)
