"""Response messages as the JSON bodies of REST answers.

After util/json_tensor.cc and http_rest_api_util.cc. Bodies are text, in which lone surrogates stand for bytes that
are not UTF-8.
"""

from __future__ import annotations

import base64
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from servingrepo.embedded.json_writer import PrettyWriter, decimal_text, quoted
from servingrepo.embedded.status import Status, invalid
from servingrepo.embedded.tensors import dtype_name
from servingrepo.protos import get_model_metadata_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from servingrepo.embedded.json_tensors import Form

__all__ = [
    "classifications_text",
    "error_text",
    "message_text",
    "metadata_text",
    "outputs_text",
    "regressions_text",
]

BYTES_SUFFIX = "_bytes"


def _quoted_bytes(value: bytes) -> str:
    return quoted(value.decode(errors="surrogateescape"))


def _base64(value: bytes) -> str:
    return quoted(base64.b64encode(value).decode())


# Per dtype: the field of TensorProto, and how to write one of its elements.
_SCALARS: dict[int, tuple[str, Callable[[Any], str]]] = {
    types_pb2.DT_FLOAT: ("float_val", lambda value: decimal_text(value, single=True)),
    types_pb2.DT_DOUBLE: ("double_val", lambda value: decimal_text(value, single=False)),
    types_pb2.DT_INT64: ("int64_val", str),
    types_pb2.DT_UINT32: ("uint32_val", str),
    types_pb2.DT_UINT64: ("uint64_val", str),
    types_pb2.DT_BOOL: ("bool_val", lambda value: "true" if value else "false"),
    types_pb2.DT_STRING: ("string_val", _quoted_bytes),
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8),
        ("int_val", str),
    ),
}


def outputs_text(outputs: Mapping[str, Any], form: Form) -> str | Status:
    """Return the answer to a predict, in the form of the request."""
    if not outputs:
        return invalid("Cannot convert empty tensor map to JSON")
    return _row_text(outputs) if form == "row" else _column_text(outputs)


def classifications_text(result: Any) -> str | Status:
    """Return the answer to a classify."""
    if not result.classifications:
        return invalid("Cannot convert empty ClassificationResults to JSON")
    writer = _begin("results")
    writer.start("[")
    for one in result.classifications:
        writer.flat = True
        writer.start("[")
        for pair in one.classes:
            writer.start("[")
            writer.raws([quoted(pair.label), decimal_text(pair.score, single=True)])
            writer.end()
        writer.end()
        writer.flat = False
    writer.end()
    return _end(writer)


def regressions_text(result: Any) -> str | Status:
    """Return the answer to a regress."""
    if not result.regressions:
        return invalid("Cannot convert empty RegressionResults to JSON")
    writer = _begin("results")
    writer.flat = True
    writer.start("[")
    writer.raws(decimal_text(one.value, single=True) for one in result.regressions)
    writer.end()
    return _end(writer)


def error_text(status: Status) -> str:
    """Return the body for an error."""
    writer = _begin("error")
    writer.raw(quoted(status.message))
    return _end(writer)


def metadata_text(response: Any) -> str:
    """Return a GetModelMetadataResponse, with the signatures in place of gRPC's Any."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec, found = message_text(response.model_spec), message_text(signatures)
    return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {found}}}\n}}\n'


def message_text(message: Any) -> str:
    """Return a message as protobuf's own JSON, such as a GetModelStatusResponse."""
    value = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _row_text(outputs: Mapping[str, Any]) -> str | Status:
    size: int | None = None
    for name, tensor in sorted(outputs.items()):
        if not tensor.tensor_shape.dim:
            return invalid(f"Tensor name: {name} has no shape information ")
        first = tensor.tensor_shape.dim[0].size
        if size not in (None, first):
            text = f"Tensor name: {name} has inconsistent batch size: {first} expecting: {size}"
            return invalid(text)
        size = first
    tensors = _elements(outputs)
    if not isinstance(tensors, dict):
        return tensors
    writer = _begin("predictions")
    writer.start("[")
    named = len(tensors) > 1
    for _ in range(size or 0):
        if named:
            writer.start("{")
        # Only now, because named rows begin on a new line and others do not.
        writer.flat = True
        for name, (shape, elements) in tensors.items():
            if named:
                writer.raw(quoted(name))
            _write_tensor(writer, shape[1:], elements)
        writer.flat = False
        if named:
            writer.end()
    writer.end()
    return _end(writer)


def _column_text(outputs: Mapping[str, Any]) -> str | Status:
    tensors = _elements(outputs)
    if not isinstance(tensors, dict):
        return tensors
    writer = _begin("outputs")
    named = len(tensors) > 1
    if named:
        writer.start("{")
    for name, (shape, elements) in tensors.items():
        if named:
            writer.raw(quoted(name))
        _write_tensor(writer, shape, elements)
    if named:
        writer.end()
    return _end(writer)


_Element = str | tuple[str]
"""JSON, or in a tuple the text of a base64 object."""


def _elements(
    outputs: Mapping[str, Any],
) -> dict[str, tuple[list[int], Iterator[_Element]]] | Status:
    """Return shape and elements of each output, or an error for a dtype that JSON cannot hold."""
    found: dict[str, tuple[list[int], Iterator[_Element]]] = {}
    for name, tensor in sorted(outputs.items()):
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        if tensor.dtype not in _SCALARS:
            if 0 in shape:
                found[name] = shape, iter(())
                continue
            kind = dtype_name(tensor.dtype).removeprefix("DT_").lower()
            return invalid(f"Failed to write JSON value for tensor type: {kind}")
        field, text = _SCALARS[tensor.dtype]
        values = getattr(tensor, field)
        if tensor.dtype == types_pb2.DT_STRING and name.endswith(BYTES_SUFFIX):
            found[name] = shape, ((_base64(value),) for value in values)
        else:
            found[name] = shape, map(text, values)
    return found


def _write_tensor(writer: PrettyWriter, shape: list[int], elements: Iterator[_Element]) -> None:
    if not shape:
        _write_element(writer, next(elements))
        return
    writer.start("[")
    if len(shape) > 1:
        for _ in range(shape[0]):
            _write_tensor(writer, shape[1:], elements)
    else:
        taken = list(islice(elements, shape[0]))
        texts = [one for one in taken if isinstance(one, str)]
        if len(texts) == len(taken):
            writer.raws(texts)
        else:
            for one in taken:
                _write_element(writer, one)
    writer.end()


def _write_element(writer: PrettyWriter, element: _Element) -> None:
    if isinstance(element, str):
        writer.raw(element)
        return
    writer.start("{")
    writer.raw('"b64"')
    writer.raw(element[0])
    writer.end()


def _begin(name: str) -> PrettyWriter:
    writer = PrettyWriter()
    writer.start("{")
    writer.raw(quoted(name))
    return writer


def _end(writer: PrettyWriter) -> str:
    writer.end()
    return writer.text
