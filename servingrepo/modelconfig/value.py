"""The model_config value: read from text, looked into, written as text.

A `ModelConfig` is never changed; edits (edits.py) return new ones. The message itself is kept, so that
entries and fields that servingrepo does not own survive unchanged. No file is read or written here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig.stamp import stamp
from servingrepo.protos import model_server_config_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EMPTY",
    "Entry",
    "ModelConfig",
    "diff",
    "entry",
    "models",
    "parse",
    "render",
    "to_proto",
]

Policy = Literal["specific", "latest", "all", "default"]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One ModelServerConfig. Treat `proto` as read-only; `to_proto` gives a copy to do with as you like."""

    proto: Any
    source: str = "models.config"
    """What the text is called in messages."""
    repeated_labels: tuple[tuple[str, str], ...] = ()
    """(model, label) written more than once in the text; the message has only the last of each."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a config says of one model."""

    name: str
    base_path: str
    platform: str
    policy: Policy
    """`default` is no policy at all, which the server takes for the latest one version."""
    versions: tuple[int, ...] = ()
    """The versions that a `specific` policy pins: sorted, each once."""
    latest_count: int = 0
    """How many of the highest versions `latest` or `default` serves; 0 under other policies."""
    labels: dict[str, int] = {}


@functools.lru_cache(maxsize=2)
def parse(text: str, *, source: str = "models.config") -> ModelConfig:
    """Read a config from protobuf text format.

    A command looks at one file several times, and 300 models take 30 ms to read: equal text gives the same value,
    which nobody changes. Text of only whitespace and comments is the empty config, as for the server.

    Raises:
        ConfigInvalid: It is no ModelServerConfig (with line and column), or has no bytes at all, which the
            server refuses as a file because it maps it into memory (util/proto_util.h).
    """
    if not text:
        raise ConfigInvalid(
            f"{source} has zero bytes, and TensorFlow Serving refuses such a file",
            hint="a config without models is: model_config_list {}",
        )
    proto = model_server_config_pb2.ModelServerConfig()
    if "version_labels" not in text:
        # The common case, and 14 ms of every command's start saved.
        return ModelConfig(proto=_parse_into(proto, text, source=source), source=source)
    listed = _parse_into(_config_with_listed_labels()(), text, source=source)
    proto.ParseFromString(listed.SerializeToString())
    return ModelConfig(proto=proto, source=source, repeated_labels=tuple(_repeated_labels(listed)))


def render(config: ModelConfig) -> str:
    """Write the whole config as text under servingrepo's header (stamp.py), ending with a newline.

    Entries keep their order, labels are sorted, text is readable UTF-8, and equal configs give equal bytes.
    A config without models is written as an empty list: valid at a server's start and in a reload alike,
    while a config with nothing set is refused by a reload.
    """
    if config.proto.WhichOneof("config") is None:
        return stamp("model_config_list {\n}\n")
    from google.protobuf import text_format  # 7 ms that commands without a config need not pay

    return stamp(text_format.MessageToString(config.proto, as_utf8=True))


def to_proto(config: ModelConfig) -> Any:
    """Return a copy of the message, for a reload request for example."""
    copy = model_server_config_pb2.ModelServerConfig()
    copy.CopyFrom(config.proto)
    if copy.WhichOneof("config") is None:
        copy.model_config_list.SetInParent()
    return copy


def models(config: ModelConfig) -> tuple[Entry, ...]:
    """Return all entries in the config's order, several of one name included."""
    return tuple(_entry(model) for model in config.proto.model_config_list.config)


def entry(config: ModelConfig, name: str) -> Entry | None:
    """Return the model's entry, None if the config has none (the first, should there be several)."""
    listed = config.proto.model_config_list.config
    return next((_entry(model) for model in listed if model.name == name), None)


def diff(old_text: str, new_text: str, *, old: str = "old", new: str = "new") -> str:
    """Return the change as a unified diff for people; empty if there is none."""
    import difflib

    lines = difflib.unified_diff(
        old_text.splitlines(), new_text.splitlines(), fromfile=old, tofile=new, lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)


def _entry(model: Any) -> Entry:
    policy = model.model_version_policy
    kind: Policy = policy.WhichOneof("policy_choice") or "default"
    # max(N, 1): the server takes 0 for 1 (file_system_storage_path_source.cc).
    latest = max(policy.latest.num_versions, 1) if kind in {"latest", "default"} else 0
    return Entry(
        name=model.name,
        base_path=model.base_path,
        platform=model.model_platform,
        policy=kind,
        versions=tuple(sorted(set(policy.specific.versions))),
        latest_count=latest,
        labels={label: model.version_labels[label] for label in sorted(model.version_labels)},
    )


def _parse_into(message: Any, text: str, *, source: str) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        where = source if line is None else f"{source}:{line}:{column}"
        said = str(error).removeprefix(f"{line}:{column} : ")
    except (RecursionError, UnicodeError, ValueError) as error:
        where, said = source, f"{type(error).__name__}: {error}"
    raise ConfigInvalid(
        f"{where}: not a ModelServerConfig: {' '.join(said.split())}",
        hint="TensorFlow Serving refuses the whole file; correct that place",
    )


def _repeated_labels(listed: Any) -> Iterator[tuple[str, str]]:
    """Yield every label that the text gives twice to a model: the real message's map keeps only the last."""
    for model in listed.model_config_list.config:
        labels = [pair.key for pair in model.version_labels]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield model.name, label


@functools.cache
def _config_with_listed_labels() -> Any:
    """Return ModelServerConfig's class with `version_labels` as a list of pairs instead of a map.

    On the wire and in text a map is a repeated message of key and value (the protobuf language guide), so a
    copy of the schema without the mark `map_entry`, in a pool of its own, reads the same text, loses nothing,
    and writes what the real class reads.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    seen: set[str] = set()

    def add(file: Any) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        schema = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(schema)
        for message in schema.message_type:
            for nested in message.nested_type:
                nested.options.ClearField("map_entry")
        pool.Add(schema)

    add(model_server_config_pb2.DESCRIPTOR)
    name = model_server_config_pb2.ModelServerConfig.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


EMPTY = ModelConfig(proto=model_server_config_pb2.ModelServerConfig())
"""The config of a server without models."""
