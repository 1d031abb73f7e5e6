"""The core of the server: it applies configurations, keeps labels, and finds the version for a request.

After model_servers/server_core.cc (2.19). `reload` has the real server's order of steps: it stores the new config
before most steps that can fail, so a bad reload can spoil all later ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from servingrepo.embedded.config import (
    ModelEntry,
    ServerConfig,
    check_list,
    check_platforms_kept,
    platform_of,
)
from servingrepo.embedded.source import VersionSource
from servingrepo.embedded.states import EventBus, State, StateMonitor, Waiter
from servingrepo.embedded.status import OK, Code, Status, invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.embedded.manager import Manager
    from servingrepo.embedded.serving_map import Handle
    from servingrepo.embedded.source import MonitoredModel

__all__ = ["CustomConfigError", "ServerCore", "Settings"]

logger = logging.getLogger(__name__)

PLATFORMS = frozenset({"tensorflow"})


class CustomConfigError(Exception):
    """The config has a custom_model_config: the process must abort, as the real server does (LOG(FATAL))."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The core's surroundings.

    `wait` blocks until a waiter is set, without limit. `start_polling` begins to poll a source, once there is a first
    list of models, and returns a function that ends it. `initial_load_threads` loads run at the same time until these
    models are up.
    """

    wait: Callable[[Waiter], None]
    start_polling: Callable[[VersionSource], Callable[[], None]]
    initial_load_threads: int = 4
    labels_for_unavailable: bool = False


class ServerCore:
    """The models that the server serves. Only `reload` changes them."""

    def __init__(self, manager: Manager, bus: EventBus, settings: Settings) -> None:
        self.monitor = StateMonitor()
        bus.subscribe(self.monitor.handle)
        self._manager = manager
        self._bus = bus
        self._settings = settings
        self._config_lock = threading.Lock()
        self._config = ServerConfig()
        self._source: VersionSource | None = None
        self._labels_lock = threading.Lock()
        self._labels: dict[str, dict[str, int]] | None = None

    def find(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> Handle | Status:
        """Return the loaded version for a request. Unknown, loading and failed versions have the same error."""
        if not name:
            return invalid("ModelSpec has no name specified.")
        if label is not None:
            labelled = self._version_of_label(name, label)
            if isinstance(labelled, Status):
                return labelled
            version = labelled
        handle = self._manager.lookup(name, version)
        if handle is None:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            return Status(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return handle

    def reload(self, config: ServerConfig) -> Status:
        """Replace the whole configuration. Calls run one at a time, in the order of arrival.

        Returns when each new model has a version that is AVAILABLE or END, which may be never. It does not wait for
        new versions of known models, nor for unloads. After an error, parts of it may have changed.

        Raises:
            CustomConfigError: The config is a custom one.
        """
        with self._config_lock:
            return self._reload(config)

    def _reload(self, config: ServerConfig) -> Status:
        current = self._config
        if current.kind != "unset" and {current.kind, config.kind} != {"list"}:
            text = (
                "Cannot transition to requested config. It is only legal to transition from one "
                "ModelConfigList to another."
            )
            return Status(Code.FAILED_PRECONDITION, text)
        if config.kind == "unset":
            logger.info("the config is empty: nothing changes")
            return OK
        checked = check_list(config.models)
        if checked.ok:
            checked = check_platforms_kept(current.models, config.models)
        if not checked.ok:
            return checked
        self._config = config
        applied = self._update_labels(config.models)
        if applied.ok and config.kind == "custom":
            raise CustomConfigError
        if applied.ok:
            applied = self._add_models(config.models)
        if not applied.ok:
            return applied
        logger.info(
            "config applied: %s", ", ".join(model.name for model in config.models) or "no models"
        )
        if any(model.has_logging for model in config.models):
            return invalid("No request-logger-creator provided.")
        return OK

    def _add_models(self, models: Sequence[ModelEntry]) -> Status:
        for model in models:
            platform = platform_of(model)
            if isinstance(platform, Status):
                logger.warning(
                    "the config is stored although the platform of model %s is not known: every later "
                    "reload will be refused until a restart (as with TensorFlow Serving, server_core.cc)",
                    model.name,
                )
                return platform
            if platform not in PLATFORMS:
                logger.warning(
                    "the config is stored although the platform of model %s is not supported: to use that "
                    "name, send a config without it first (as with TensorFlow Serving, server_core.cc)",
                    model.name,
                )
                return invalid(f"Model {model.name} requests unsupported platform {platform}")
        monitored = [model.monitored for model in models]
        if self._source is None:
            return self._add_first(VersionSource(self._manager.aspire), monitored)
        fresh = StateMonitor()
        self._bus.subscribe(fresh.handle)
        try:
            new = {model.name for model in monitored} - self._source.names
            self._source.configure(monitored)
            waiter = fresh.waiter(sorted(new))
            self._settings.wait(waiter)
        finally:
            self._bus.unsubscribe(fresh.handle)
        if any(one.state is State.END and one.health.ok for one in waiter.reached.values()):
            logger.warning(
                "the config has a model again that it lost a moment ago: the reload saw the end of the old version "
                "instead of the new version's state, and the model loads nevertheless (as with TensorFlow "
                "Serving, server_core.cc)"
            )
        return waiter.outcome("model(s)")

    def _add_first(self, source: VersionSource, monitored: Sequence[MonitoredModel]) -> Status:
        source.configure(monitored)
        threads = self._manager.load_threads
        self._manager.set_load_threads(self._settings.initial_load_threads)
        stop_polling = self._settings.start_polling(source)
        waiter = self.monitor.waiter([model.name for model in monitored])
        self._settings.wait(waiter)
        self._manager.set_load_threads(threads)
        outcome = waiter.outcome("servable(s)")
        if outcome.ok:
            self._source = source
        else:
            # Only an RPC to a server without models comes here: the next reload is "first" again.
            stop_polling()
        return outcome

    def _update_labels(self, models: Sequence[ModelEntry]) -> Status:
        labels: dict[str, dict[str, int]] = {}
        for model in models:
            for label, version in sorted(model.labels.items()):
                event = self.monitor.version(model.name, version)
                available = event is not None and event.state is State.AVAILABLE
                if not available and not self._may_be_unavailable(model.name, label, version):
                    text = (
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference"
                    )
                    return Status(Code.FAILED_PRECONDITION, text)
                labels.setdefault(model.name, {})[label] = version
        with self._labels_lock:
            self._labels = labels
        return OK

    def _may_be_unavailable(self, name: str, label: str, version: int) -> bool:
        if not self._settings.labels_for_unavailable:
            return False
        existing = self._version_of_label(name, label)
        return isinstance(existing, Status) or existing == version

    def _version_of_label(self, name: str, label: str) -> int | Status:
        with self._labels_lock:
            labels = self._labels
        if labels is None:
            return Status(Code.UNAVAILABLE, f"Model labels does not init yet.{label}")
        version = labels.get(name, {}).get(label)
        if version is None:
            return invalid(f"Unrecognized servable version label: {label}")
        return version
