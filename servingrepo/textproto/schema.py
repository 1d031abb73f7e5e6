"""The parts of a message type's descriptor that reading text needs, looked up once for each text."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Field", "Schema", "new_message", "schema_of"]

# FieldDescriptor's CPPTYPE_…, from 1 on.
_KINDS = (
    *("INT32", "INT64", "UINT32", "UINT64", "DOUBLE"),
    *("FLOAT", "BOOL", "ENUM", "STRING", "MESSAGE"),
)


class Field(msgspec.Struct, frozen=True):
    """A field; `kind` is how C++ holds its value."""

    name: str
    kind: str
    is_repeated: bool
    is_map: bool
    is_bytes: bool
    has_presence: bool
    oneof: str
    enum: Any


class Schema(msgspec.Struct, frozen=True):
    """A message type and its fields by name."""

    name: str
    full_name: str
    fields: dict[str, Field]
    descriptor: Any

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names of fields that there were: whatever is written to them is passed over."""
        from google.protobuf import descriptor_pb2  # 7 ms, for names that are not known only

        described = descriptor_pb2.DescriptorProto()
        self.descriptor.CopyToProto(described)
        return tuple(described.reserved_name)


def schema_of(message: Any) -> Schema:
    """Return what the descriptor of a message's type says."""
    descriptor = message.DESCRIPTOR
    fields = {field.name: _field(field, message) for field in descriptor.fields}
    return Schema(descriptor.name, descriptor.full_name, fields, descriptor)


def new_message(beside: Any, full_name: str) -> Any:
    """Return an empty message of a type that is known where another one's descriptor is, else None."""
    from google.protobuf import message_factory

    try:
        descriptor = beside.file.pool.FindMessageTypeByName(full_name)
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor)()


def _field(field: Any, message: Any) -> Field:
    # protobuf 7 has no label any more, and 5 no is_repeated.
    repeated = getattr(field, "is_repeated", None)
    oneof = field.containing_oneof
    is_message = field.cpp_type == field.CPPTYPE_MESSAGE
    return Field(
        name=field.name,
        kind=_KINDS[field.cpp_type - 1],
        is_repeated=field.label == field.LABEL_REPEATED if repeated is None else repeated,
        # The option map_entry says it too, and takes 2 ms of imports to read.
        is_map=is_message and hasattr(getattr(message, field.name), "GetEntryClass"),
        is_bytes=field.type == field.TYPE_BYTES,
        has_presence=field.has_presence,
        oneof=oneof.name if oneof is not None else "",
        enum=field.enum_type,
    )
