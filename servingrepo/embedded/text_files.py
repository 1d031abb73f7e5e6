"""The text-format files in flags: models, TLS, monitoring.

After util/proto_util.h (ParseProtoTextFile), config/ssl_config.proto and config/monitoring_config.proto.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from servingrepo import textproto
from servingrepo.embedded.config import ServerConfig, from_message
from servingrepo.embedded.status import Status, from_os_error, invalid
from servingrepo.protos import model_server_config_pb2

__all__ = ["read_metrics_path", "read_models", "read_ssl"]

logger = logging.getLogger(__name__)

_Field = descriptor_pb2.FieldDescriptorProto
# tensorflow-serving-api lacks these two files, so their messages are described here.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "SSLConfig": (
        ("server_key", _Field.TYPE_STRING, ""),
        ("server_cert", _Field.TYPE_STRING, ""),
        ("custom_ca", _Field.TYPE_STRING, ""),
        ("client_verify", _Field.TYPE_BOOL, ""),
    ),
    "PrometheusConfig": (("enable", _Field.TYPE_BOOL, ""), ("path", _Field.TYPE_STRING, "")),
    "MonitoringConfig": (("prometheus_config", _Field.TYPE_MESSAGE, "PrometheusConfig"),),
}
PACKAGE = "tensorflow.serving"


def read_models(path: str) -> ServerConfig | Status:
    """Read a ModelServerConfig, with the real server's errors."""
    message = _read(path, model_server_config_pb2.ModelServerConfig())
    return message if isinstance(message, Status) else from_message(message)


def read_ssl(path: str) -> Any | Status:
    """Read an SSLConfig message: PEM texts, and whether clients must show a certificate."""
    return _read(path, _new("SSLConfig"))


def read_metrics_path(path: str, default: str) -> str | Status:
    """Read a MonitoringConfig; return the path of the metrics page, empty for none."""
    message = _read(path, _new("MonitoringConfig"))
    if isinstance(message, Status):
        return message
    prometheus = message.prometheus_config
    return (prometheus.path or default) if prometheus.enable else ""


def _read(path: str, message: Any) -> Any | Status:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return from_os_error(error, path)
    if not data:
        # The real server maps the file into memory, which fails for an empty file.
        return invalid(f"{path}; Invalid argument")
    try:
        textproto.parse(data.decode(errors="surrogateescape"), message)
    except textproto.BadText as error:
        # As in the real server, only the log has the place of the mistake.
        for one in error.mistakes:
            logger.error("%s:%s: not a text-format %s", path, one, message.DESCRIPTOR.name)  # noqa: TRY400
        return invalid(f"Invalid protobuf file: '{path}'")
    return message


def _new(name: str) -> Any:
    # A separate pool, in case a later tensorflow-serving-api has these files.
    file = descriptor_pb2.FileDescriptorProto(
        name="servingrepo/server_settings.proto", package=PACKAGE, syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, (field, kind, kind_name) in enumerate(fields, start=1):
            described = message.field.add(
                name=field, number=number, type=kind, label=_Field.LABEL_OPTIONAL
            )
            if kind_name:
                described.type_name = f".{PACKAGE}.{kind_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)()
