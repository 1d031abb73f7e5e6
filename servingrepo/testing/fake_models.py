"""A fake TensorFlow Serving that obeys reloads and serves nothing: fifty of them fit where one real one does.

It keeps the rules that a change of what is served depends on: a reload answers before new versions are loaded,
a label is checked against what is loaded now, an old version goes only when a new one is there.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc

from servingrepo.protos import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2

__all__ = ["FakeModels"]

_STATES = get_model_status_pb2.ModelVersionStatus.State


class FakeModels:
    """One server. Tests change its attributes; methods are gRPC's.

    Attributes:
        load_seconds: How long a version takes to load.
        reloads: The configs that it was sent, oldest first.
        fails: Versions that fail to load.
    """

    def __init__(self, *, load_seconds: float = 0.0) -> None:
        self.load_seconds = load_seconds
        self.reloads: list[Any] = []
        self.fails: set[int] = set()
        self._lock = threading.Lock()
        self._wanted: dict[str, set[int]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._ready: dict[str, dict[int, float]] = {}
        self._ended: dict[str, set[int]] = {}

    def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Take a config: labels first, then the versions; nothing is waited for."""
        with self._lock:
            self.reloads.append(request.config)
            entries = request.config.model_config_list.config
            for one in entries:
                for label, version in one.version_labels.items():
                    known = self._labels.get(one.name, {}).get(label)
                    if known is not None and version not in self._available(one.name):
                        context.abort(
                            grpc.StatusCode.FAILED_PRECONDITION,
                            f"Request to assign label to version {version} of model {one.name}, which is "
                            "not currently available for inference",
                        )
            self._labels = {one.name: dict(one.version_labels) for one in entries}
            self._wanted = {
                one.name: set(one.model_version_policy.specific.versions) for one in entries
            }
            for name, versions in self._wanted.items():
                ready = self._ready.setdefault(name, {})
                for version in versions - ready.keys():
                    ready[version] = time.monotonic() + self.load_seconds
                    self._ended.get(name, set()).discard(version)
        return model_management_pb2.ReloadConfigResponse()

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Say what is known of a model."""
        name = request.model_spec.name
        reply = get_model_status_pb2.GetModelStatusResponse()
        with self._lock:
            available = self._available(name)
            states = dict.fromkeys(self._ended.get(name, ()), "END")
            states |= dict.fromkeys(self._ready.get(name, ()), "LOADING")
            states |= dict.fromkeys(available, "AVAILABLE")
            broken = {version for version in states if version in self.fails}
        if not states:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        for version in sorted(states, reverse=True):
            one = reply.model_version_status.add(version=version)
            one.state = _STATES.Value("END" if version in broken else states[version])
            if version in broken:
                one.status.error_code = 5
                one.status.error_message = "the fake was told to fail"
        return reply

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Say which version answers."""
        spec = request.model_spec
        with self._lock:
            available = self._available(spec.name)
            if spec.version_label:
                version = self._labels.get(spec.name, {}).get(spec.version_label)
                if version is None:
                    context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT,
                        f"Unrecognized servable version label: {spec.version_label}",
                    )
            else:
                version = spec.version.value or max(available, default=None)
        if version not in available:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.version.value = version
        reply.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap())
        return reply

    def _available(self, name: str) -> set[int]:
        """Return what answers now; what is no longer wanted goes once something wanted is there."""
        now, ready = time.monotonic(), self._ready.setdefault(name, {})
        wanted = self._wanted.get(name, set())
        loaded = {
            version
            for version, moment in ready.items()
            if moment <= now and version not in self.fails
        }
        if not wanted or loaded & wanted:
            for version in ready.keys() - wanted:
                del ready[version]
                self._ended.setdefault(name, set()).add(version)
                loaded.discard(version)
        return loaded
