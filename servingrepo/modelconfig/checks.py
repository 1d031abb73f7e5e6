"""Every mistake in a config that TensorFlow Serving refuses, hangs on, or takes in silence.

`check` only finds and explains: it raises nothing and repairs nothing. What is on disk comes as an argument,
because the server's paths and this machine's need not be the same.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from servingrepo.errors import BadName
from servingrepo.modelconfig.disk import check_disk
from servingrepo.modelconfig.findings import Finding, error, warning
from servingrepo.modelconfig.names import check_label, check_name
from servingrepo.modelconfig.paths import PLATFORM, same_base_path, why_not_a_base_path
from servingrepo.modelconfig.value import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from servingrepo.modelconfig.disk import DiskFacts
    from servingrepo.modelconfig.value import Entry, ModelConfig

__all__ = ["check", "check_numbers"]

_TYPE_UNSPECIFIED, _TYPE_TENSORFLOW, _TYPE_OTHER = (
    0,
    1,
    2,
)  # enum ModelType, model_server_config.proto


def check(
    config: ModelConfig,
    *,
    disk: Mapping[str, DiskFacts] | None = None,
    only: str | None = None,
) -> tuple[Finding, ...]:
    """Find every mistake, in the config's order.

    Labels need a server started with `--allow_version_labels_for_unavailable_models=true`; that is a
    matter of the server's flags and not found here.

    Args:
        config: What to check.
        disk: The facts by base path as the config writes it. A base path that is not in there is reported as
            not checked; None leaves the disk out altogether.
        only: The model whose entries are checked; None checks all, and which models share a base path.
    """
    if config.proto.WhichOneof("config") == "custom_model_config":
        return (
            error(
                "custom-config",
                "",
                "custom_model_config",
                "tensorflow_model_server aborts on it",
                "use model_config_list instead",
            ),
        )
    if config.proto.WhichOneof("config") is None:
        return (
            warning(
                "nothing-set",
                "",
                "model_config_list",
                "nothing is set",
                "write: model_config_list {}",
                so="fine when a server starts, but refused as a reload",
            ),
        )
    return tuple(_findings(config, disk, only))


def check_numbers(config: ModelConfig) -> tuple[Finding, ...]:
    """Find the numbers that the server reads as others than they look like."""
    return tuple(
        warning(
            "octal-number",
            one.model,
            one.field,
            f"line {one.line}: {one.written} is octal, as it starts with 0",
            f"write {one.decimal} if that is meant, else {one.value}",
            so=f"the server reads {one.value}, not {one.decimal}",
        )
        for one in config.octal_numbers
    )


def _findings(
    config: ModelConfig, disk: Mapping[str, DiskFacts] | None, only: str | None
) -> Iterator[Finding]:
    entries = models(config, only=only)
    yield from _check_once(entries)
    if only is None:
        yield from _check_base_paths(entries)
    yield from (one for one in check_numbers(config) if only is None or one.model == only)
    listed = config.proto.model_config_list.config
    protos = [one for one in listed if only is None or one.name == only]
    for proto, entry in zip(protos, entries, strict=True):
        path = why_not_a_base_path(entry.base_path)
        yield from _check_name(entry.name)
        if path is not None:
            shown = f"{entry.base_path!r} {path[0]}" if entry.base_path else path[0]
            yield error("base-path-refused", entry.name, "base_path", shown, path[1])
        yield from _check_platform(proto)
        yield from _check_logging(proto)
        yield from _check_policy(proto, entry)
        yield from _check_labels(entry)
        for model, label in config.repeated_labels:
            if model == entry.name:
                yield error(
                    "label-twice",
                    model,
                    "version_labels",
                    f"label {label!r} is given more than once",
                    "keep one of them",
                    so="the server takes the last one in silence",
                )
        if disk is not None and path is None:
            yield from check_disk(entry, disk.get(entry.base_path))


def _check_once(entries: tuple[Entry, ...]) -> Iterator[Finding]:
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            yield error(
                "model-twice",
                name,
                "name",
                f"the model is listed {count} times",
                "take all but one of its entries out",
                so="the server refuses the whole config",
            )


def _check_base_paths(entries: tuple[Entry, ...]) -> Iterator[Finding]:
    by_path: dict[str, list[str]] = {}
    for entry in entries:
        names = by_path.setdefault(same_base_path(entry.base_path), [])
        if entry.base_path and entry.name not in names:
            names.append(entry.name)
    for names in by_path.values():
        for name in names[1:]:
            yield warning(
                "base-path-shared",
                name,
                "base_path",
                f"model {names[0]} has the same base path",
                "give each model a directory of its own",
                so="both load the same versions",
            )


def _check_name(name: str) -> Iterator[Finding]:
    try:
        check_name(name)
    except BadName as why:
        message, hint = why.message, why.hint or ""
    else:
        return
    if not name:
        yield error("bad-name", name, "name", "is empty", hint, so="no request can reach the model")
    elif "/" in name or ":" in name:
        # NAME in /v1/models/NAME:predict is one or more characters other than / and : (http_rest_api_util.cc)
        yield error("bad-name", name, "name", f"{message}; no URL of the REST API reaches it", hint)
    else:
        yield warning("bad-name", name, "name", message, hint)


def _check_platform(proto: Any) -> Iterator[Finding]:
    name, kind, platform = proto.name, proto.model_type, proto.model_platform
    write = f'write model_platform: "{PLATFORM}"'
    if kind == _TYPE_UNSPECIFIED and not platform:
        yield error(
            "platform-missing",
            name,
            "model_platform",
            "is missing",
            write,
            so="the server refuses the config, and after a reload with it every later reload too until it restarts",
        )
    if kind != _TYPE_UNSPECIFIED and platform:
        yield error(
            "platform-twice",
            name,
            "model_type",
            "is set beside model_platform",
            "remove it",
            so="the server refuses both",
        )
    elif kind == _TYPE_TENSORFLOW:
        yield warning("platform-old", name, "model_type", "is deprecated", f"{write} instead")
    elif kind == _TYPE_OTHER:
        yield error(
            "platform-unsupported",
            name,
            "model_type",
            "OTHER is not supported by the server",
            f"{write} instead",
        )
    if kind not in {_TYPE_UNSPECIFIED, _TYPE_TENSORFLOW, _TYPE_OTHER}:
        yield error(
            "platform-unsupported",
            name,
            "model_type",
            f"{kind} is no model type",
            f"{write} instead",
        )
    if platform and platform != PLATFORM:
        yield error(
            "platform-unsupported",
            name,
            "model_platform",
            f"{platform!r} is not supported by the server, which knows only {PLATFORM!r}",
            write,
        )


def _check_logging(proto: Any) -> Iterator[Finding]:
    if proto.HasField("logging_config"):
        yield error(
            "logging-config",
            proto.name,
            "logging_config",
            "the stock server has no request logger",
            "remove it, even if it is empty",
            so="it exits at the start, and a reload fails after its models were changed",
        )


def _check_policy(proto: Any, entry: Entry) -> Iterator[Finding]:
    field = "model_version_policy"
    if entry.policy != "specific":
        policy = "no policy" if entry.policy == "default" else f"policy {entry.policy}"
        yield warning(
            "serves-at-once",
            entry.name,
            field,
            policy,
            "pin versions with specific",
            so="a version is served as soon as its directory appears, proven or not",
        )
        if entry.policy == "latest" and proto.model_version_policy.latest.num_versions == 0:
            yield warning(
                "latest-zero",
                entry.name,
                field,
                "latest 0 versions",
                "num_versions: 1",
                so="the server takes it for 1",
            )
        return
    if not entry.versions:
        yield error(
            "nothing-pinned",
            entry.name,
            field,
            "specific without versions",
            "name at least one version, or take the model out",
            so="the server unloads every version of the model",
        )
    for number, count in sorted(Counter(proto.model_version_policy.specific.versions).items()):
        if count > 1:
            yield warning(
                "pinned-twice",
                entry.name,
                field,
                f"version {number} is listed {count} times",
                "list it once",
            )
        if number < 0:
            yield error(
                "odd-pin",
                entry.name,
                field,
                f"version {number} is negative",
                "versions are 1, 2, 3, …",
            )
        if number == 0:
            yield warning(
                "odd-pin",
                entry.name,
                field,
                "version 0 is one to the server only",
                "versions begin at 1",
            )


def _check_labels(entry: Entry) -> Iterator[Finding]:
    for label, version in entry.labels.items():
        try:
            check_label(label)
        except BadName as why:
            yield error("bad-label", entry.name, "version_labels", why.message, why.hint or "")
        if entry.policy == "specific" and version not in entry.versions:
            yield error(
                "label-not-pinned",
                entry.name,
                "version_labels",
                f"label {label!r} is on version {version}, which is not pinned",
                "pin that version too, or move the label",
                so="its requests find nothing, or the config is refused",
            )
