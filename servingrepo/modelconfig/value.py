"""The model_config value: read from text, queried, written as text.

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
    from collections.abc import Iterable, Iterator, Mapping

    from servingrepo.textproto import BadText, Remark

__all__ = [
    "EMPTY",
    "Entry",
    "ModelConfig",
    "OctalNumber",
    "decode",
    "diff",
    "entry",
    "models",
    "parse",
    "render",
    "to_proto",
]

Policy = Literal["specific", "latest", "all", "default"]


_MODEL = model_server_config_pb2.ModelConfig
# The field of a ModelConfig that a number is in, by the number's own field.
_FIELDS = {
    "versions": "model_version_policy",
    "num_versions": "model_version_policy",
    "value": "version_labels",
}


class OctalNumber(msgspec.Struct, frozen=True, kw_only=True):
    """A number written with a 0 before it, which makes it octal: 0123 is 83."""

    model: str
    field: str
    line: int
    written: str
    value: int

    @property
    def decimal(self) -> str:
        """The decimal number that it looks like."""
        sign = "-" if self.written.startswith("-") else ""
        return sign + self.written.lstrip("-0")


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One ModelServerConfig. Treat `proto` as read-only; `to_proto` gives a copy to do with as you like."""

    proto: Any
    source: str = "models.config"
    """What the text is called in messages."""
    repeated_labels: tuple[tuple[str, str], ...] = ()
    """(model, label) written more than once in the text; the message has only the last of each."""
    octal_numbers: tuple[OctalNumber, ...] = ()
    """Numbers in the text that are others than they look like."""

    @functools.cached_property
    def by_name(self) -> Mapping[str, Any]:
        """The message of each model's first entry. It is made once: commands ask for the entries of 1,000 models."""
        index: dict[str, Any] = {}
        for model in self.proto.model_config_list.config:
            index.setdefault(model.name, model)
        return index

    @functools.cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, for `models`."""
        return tuple(_entry(model) for model in self.proto.model_config_list.config)


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


def decode(data: bytes, *, source: str = "models.config") -> str:
    """Return the text of a config file's bytes.

    Raises:
        ConfigInvalid: They are not UTF-8.
    """
    wanted = "save it as UTF-8 without a byte order mark"
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in data[:4]:
        raise ConfigInvalid(
            f"{source} is UTF-16 text, and TensorFlow Serving refuses such a file", hint=wanted
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        byte = f"0x{data[error.start]:02X}"
    raise ConfigInvalid(
        f"{source}:{line}:{column}: the byte {byte} is not UTF-8",
        hint=f"{wanted}; TensorFlow Serving takes such a byte in quotes and comments, servingrepo nowhere",
    )


def how_to_write(data: bytes) -> str:
    """Return what to write instead of a config that no server reads, by what it looks like."""
    entry = 'config { name: "NAME" base_path: "/models/NAME" model_platform: "tensorflow" }'
    whole = f"model_config_list {{ {entry} }}"
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in data[:4]:
        return "iconv -f UTF-16 -t UTF-8 OLD > NEW"
    if data.startswith(b"\xef\xbb\xbf"):
        return "take the byte order mark away: sed -i '1s/^\\xEF\\xBB\\xBF//' FILE"
    text = data.decode(errors="replace")
    if text.count("model_config_list") > 1:
        return "keep one model_config_list, with all entries in it"
    if text.lstrip().startswith("config"):
        return f"put all entries into one list: {whole}"
    return f"write it as protobuf text: {whole}"


@functools.lru_cache(maxsize=2)
def parse(text: str, *, source: str = "models.config") -> ModelConfig:
    """Read a config from protobuf text format, as strictly as TensorFlow Serving does.

    A command parses one file several times, and 300 models take 20 ms to read: equal text gives the same value,
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
    from servingrepo import textproto  # some ms that commands without a config need not pay

    proto = model_server_config_pb2.ModelServerConfig()
    try:
        remarks = textproto.parse(text, proto)
    except textproto.BadText as error:
        raise _invalid(source, error) from None
    return ModelConfig(
        proto=proto,
        source=source,
        repeated_labels=tuple(_repeated_labels(remarks)),
        octal_numbers=tuple(_octal_numbers(remarks)),
    )


def render(config: ModelConfig) -> str:
    """Write the whole config as text under servingrepo's header (stamp.py), ending with a newline.

    Entries keep their order, labels are sorted, text is readable UTF-8, and equal configs give equal bytes.
    A config without models is written as an empty list: valid at a server's start and in a reload alike,
    while a config with nothing set is refused by a reload.
    """
    if config.proto.WhichOneof("config") is None:
        return stamp("model_config_list {\n}\n")
    from google.protobuf import (
        descriptor_pool,
        text_format,
    )  # 7 ms that commands without a config need not pay

    # With no type known, an Any stays as it is: written out, one whose bytes are no message would be an error.
    nothing_known = descriptor_pool.DescriptorPool()
    return stamp(
        text_format.MessageToString(config.proto, as_utf8=True, descriptor_pool=nothing_known)
    )


def to_proto(config: ModelConfig) -> Any:
    """Return a copy of the message, for a reload request for example."""
    copy = model_server_config_pb2.ModelServerConfig()
    copy.CopyFrom(config.proto)
    if copy.WhichOneof("config") is None:
        copy.model_config_list.SetInParent()
    return copy


def models(config: ModelConfig, *, only: str | None = None) -> tuple[Entry, ...]:
    """Return all entries, or those of one model, in the config's order; several of one name included."""
    if only is None:
        return config.entries
    listed = config.proto.model_config_list.config
    return tuple(_entry(model) for model in listed if model.name == only)


def entry(config: ModelConfig, name: str) -> Entry | None:
    """Return the model's entry, None if the config has none (the first, should there be several)."""
    found = config.by_name.get(name)
    return _entry(found) if found is not None else None


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


def _invalid(source: str, error: BadText) -> ConfigInvalid:
    first, *others = error.mistakes
    instead = f", it looks like {error.looks_like}" if error.looks_like else ""
    problems = [f"{source}:{one}" for one in others]
    return ConfigInvalid(
        f"{source}:{first.line}:{first.column}: not a ModelServerConfig{instead}: {first.message}",
        problems=[*problems, f"and {error.more} more"] if error.more else problems,
        hint="TensorFlow Serving refuses the whole file; correct what is said above",
        details={"mistakes": error.mistakes},
    )


def _repeated_labels(remarks: Iterable[Remark]) -> Iterator[tuple[str, str]]:
    """Yield every label that the text gives twice to a model, once."""
    found = ((_model_around(one), str(one.value)) for one in remarks if one.kind == "repeated-key")
    return iter(dict.fromkeys(found))


def _octal_numbers(remarks: Iterable[Remark]) -> Iterator[OctalNumber]:
    for one in remarks:
        if one.kind == "octal":
            yield OctalNumber(
                model=_model_around(one),
                field=_FIELDS.get(one.field, one.field),
                line=one.line,
                written=one.written,
                value=one.value,
            )


def _model_around(remark: Remark) -> str:
    return next((each.name for each in remark.within if isinstance(each, _MODEL)), "")


EMPTY = ModelConfig(proto=model_server_config_pb2.ModelServerConfig())
"""The config of a server without models."""
