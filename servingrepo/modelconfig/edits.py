"""Changes to a config, each giving a new config: pin a model's versions, move its base path, drop a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.errors import BadVersionNumber, ConfigInvalid
from servingrepo.modelconfig.names import MAX_VERSION, check_label, check_name
from servingrepo.modelconfig.paths import PLATFORM, same_base_path, why_not_a_base_path
from servingrepo.modelconfig.value import ModelConfig, to_proto

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["drop", "move", "pin"]


def pin(
    config: ModelConfig,
    *,
    name: str,
    base_path: str,
    versions: Collection[int],
    labels: Mapping[str, int] | None = None,
) -> ModelConfig:
    """Return the config in which the model serves exactly these versions.

    A new entry goes to the end of the list. Of an entry that exists, platform, policy and labels are replaced
    and everything else is kept, its base path and its place in the list too. Versions are written sorted, each
    once.

    Args:
        config: The config to start from; it stays as it is.
        name: The model.
        base_path: Where the server sees the model's versions: an absolute path, without the version. An entry
            that exists must have this one already: its live versions are there.
        versions: All versions to serve.
        labels: All labels of the model; None keeps the ones that it has.

    Raises:
        ConfigInvalid: No versions (the server would unload all), a label, given or kept, on a version that
            is not pinned, a base path that the server would refuse or that is not the entry's, the model is
            listed twice, or the config is a custom_model_config.
        BadName: The model name or a label is not allowed.
        BadVersionNumber: A version is not a positive int64.
    """
    check_name(name)
    pinned = _checked_versions(versions, model=name)
    _check_base_path(base_path, model=name)
    proto = _list_of(config)
    model = _only_entry(proto, name, source=config.source)
    if model is None:
        model = proto.model_config_list.config.add(name=name, base_path=base_path)
    elif same_base_path(model.base_path) != same_base_path(base_path):
        raise ConfigInvalid(
            f"model {name}: its versions are at {model.base_path}; the base path {base_path} would take them "
            "away from clients",
            hint="nothing was changed; see servingrepo config check",
        )
    new_labels = dict(model.version_labels if labels is None else labels)
    _check_labels(new_labels, pinned, model=name)
    model.ClearField("model_type")  # both model_type and model_platform is refused
    model.model_platform = PLATFORM
    model.ClearField("model_version_policy")
    model.model_version_policy.specific.versions.extend(pinned)
    model.ClearField("version_labels")
    for label, version in new_labels.items():
        model.version_labels[label] = version
    return _replaced(config, proto, settled=name if labels is not None else None)


def move(config: ModelConfig, name: str, base_path: str) -> ModelConfig:
    """Return the config in which the model has another base path; everything else of its entry is kept.

    This is for a new server root alone: the same versions, seen under another path.

    Raises:
        ConfigInvalid: The config has no such model, or has it twice; or the server would refuse the base path.
    """
    _check_base_path(base_path, model=name)
    proto = _list_of(config)
    model = _only_entry(proto, name, source=config.source)
    if model is None:
        raise ConfigInvalid(f"{config.source} has no model {name}")
    model.base_path = base_path
    return _replaced(config, proto, settled=None)


def drop(config: ModelConfig, name: str) -> ModelConfig:
    """Return the config without the model; the same config if it is not in there.

    Raises:
        ConfigInvalid: The model is listed twice, or the config is a custom_model_config.
    """
    proto = _list_of(config)
    model = _only_entry(proto, name, source=config.source)
    if model is None:
        return config
    proto.model_config_list.config.remove(model)
    return _replaced(config, proto, settled=name)


def _check_base_path(base_path: str, *, model: str) -> None:
    why = why_not_a_base_path(base_path)
    if why is not None:
        raise ConfigInvalid(f"model {model}: base_path {base_path!r} {why[0]}", hint=why[1])


def _list_of(config: ModelConfig) -> Any:
    """Copy the message, which must have a list of models or nothing."""
    if config.proto.WhichOneof("config") == "custom_model_config":
        raise ConfigInvalid(
            f"{config.source} has a custom_model_config, on which tensorflow_model_server aborts",
            hint="replace it with a model_config_list",
        )
    return to_proto(config)


def _only_entry(proto: Any, name: str, *, source: str) -> Any | None:
    found = [model for model in proto.model_config_list.config if model.name == name]
    if len(found) > 1:
        raise ConfigInvalid(
            f"{source} lists model {name} {len(found)} times, which TensorFlow Serving refuses",
            hint="take all but one of its entries out",
        )
    return found[0] if found else None


def _checked_versions(versions: Collection[int], *, model: str) -> list[int]:
    if not versions:
        raise ConfigInvalid(
            f"model {model}: no versions to pin, and an empty list makes the server unload all of them",
            hint="name at least one version, or take the model out with servingrepo unserve",
        )
    for version in versions:
        if not 0 < version <= MAX_VERSION:
            raise BadVersionNumber(
                f"model {model}: version {version} is not a positive int64",
                hint="versions are 1, 2, 3, …",
            )
    return sorted(set(versions))


def _check_labels(labels: Mapping[str, int], pinned: list[int], *, model: str) -> None:
    for label in labels:
        check_label(label)
    loose = sorted((label, at) for label, at in labels.items() if at not in pinned)
    if loose:
        raise ConfigInvalid(
            f"model {model}: labels on versions that are not served: "
            + ", ".join(f"{label} on {at}" for label, at in loose),
            hint="move or remove these labels, or serve their versions too",
            problems=[f"label {label} is on version {at}" for label, at in loose],
        )


def _replaced(config: ModelConfig, proto: Any, *, settled: str | None) -> ModelConfig:
    """Wrap the new message; `settled` is the model whose repeated labels are no longer a question."""
    return ModelConfig(
        proto=proto,
        source=config.source,
        repeated_labels=tuple(pair for pair in config.repeated_labels if pair[0] != settled),
    )
