"""The server's model configuration as a value, with its checks.

After config/model_server_config.proto and model_servers/server_core.cc. `text_files` reads it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.embedded.source import MonitoredModel
from servingrepo.embedded.status import OK, Status, invalid
from servingrepo.embedded.versions import VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ModelEntry",
    "ServerConfig",
    "check_list",
    "check_platforms_kept",
    "from_message",
    "platform_of",
    "single_model",
]

UNSPECIFIED, TENSORFLOW = 0, 1
_SCHEME = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One ModelConfig; `model_type` is the deprecated enum's number."""

    name: str
    base_path: str
    platform: str = ""
    model_type: int = UNSPECIFIED
    policy: VersionPolicy = VersionPolicy()
    labels: dict[str, int] = {}
    has_logging: bool = False

    @property
    def monitored(self) -> MonitoredModel:
        """The part of it that the version source needs."""
        return MonitoredModel(self.name, self.base_path, self.policy)


class ServerConfig(msgspec.Struct, frozen=True):
    """A ModelServerConfig: nothing set, a list of models, or a custom config."""

    kind: Literal["unset", "list", "custom"] = "unset"
    models: tuple[ModelEntry, ...] = ()


def single_model(name: str, base_path: str) -> ServerConfig:
    """Return the configuration for `--model_name` and `--model_base_path`."""
    entry = ModelEntry(name=name, base_path=base_path, platform="tensorflow")
    return ServerConfig("list", (entry,))


def from_message(message: Any) -> ServerConfig:
    """Convert a ModelServerConfig message."""
    match message.WhichOneof("config"):
        case None:
            return ServerConfig()
        case "model_config_list":
            return ServerConfig("list", tuple(map(_entry, message.model_config_list.config)))
        case _:
            return ServerConfig("custom")


def check_list(models: Sequence[ModelEntry]) -> Status:
    """Refuse duplicate names and relative base paths (ValidateModelConfigList)."""
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            return invalid(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
    for model in models:
        if not model.base_path.startswith("/") and not _SCHEME.match(model.base_path):
            return invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
    return OK


def platform_of(model: ModelEntry) -> str | Status:
    """Return the platform that an entry asks for (GetPlatform), supported or not."""
    if model.model_type != UNSPECIFIED:
        if model.platform:
            return invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != TENSORFLOW:
            return invalid(
                f"ModelServerConfig::model_type choice {model.model_type} not supported."
            )
        return "tensorflow"
    if not model.platform:
        return invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return model.platform


def check_platforms_kept(old: Sequence[ModelEntry], new: Sequence[ModelEntry]) -> Status:
    """Refuse a changed platform. After an entry without one, this fails for ever."""
    before: dict[str, str] = {}
    for model in old:
        platform = platform_of(model)
        if isinstance(platform, Status):
            return platform
        before[model.name] = platform
    for model in new:
        if model.name not in before:
            continue
        platform = platform_of(model)
        if isinstance(platform, Status):
            return platform
        if platform != before[model.name]:
            return invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was "
                f"{before[model.name]} and new platform requested is {platform}"
            )
    return OK


def _entry(message: Any) -> ModelEntry:
    return ModelEntry(
        name=message.name,
        base_path=message.base_path,
        platform=message.model_platform,
        model_type=message.model_type,
        policy=_policy(message.model_version_policy),
        labels=dict(message.version_labels),
        has_logging=message.HasField("logging_config"),
    )


def _policy(message: Any) -> VersionPolicy:
    match message.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy("all")
        case "specific":
            return VersionPolicy("specific", specific=tuple(message.specific.versions))
        case "latest":
            return VersionPolicy("latest", message.latest.num_versions)
        case _:
            return VersionPolicy()
