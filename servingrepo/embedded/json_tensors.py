"""The JSON body of a REST predict as a PredictRequest.

After util/json_tensor.cc, with the same checks, order and texts. Shapes come from the nesting, dtypes from the
signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from servingrepo.embedded.json_body import decoded, is_object, json_type, read_request, wrong
from servingrepo.embedded.json_reader import Json, member
from servingrepo.embedded.json_writer import debug_text
from servingrepo.embedded.status import OK, Code, Status, invalid
from servingrepo.embedded.tensors import dtype_name, shape_text
from servingrepo.protos import types_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Form", "fill_predict"]

Form = Literal["row", "column"]

INSTANCES, INPUTS = "instances", "inputs"
INT32, INT64, UINT32, UINT64 = 2**31, 2**63, 2**32, 2**64

# Per dtype: the field of TensorProto, the accepted Python type, and the accepted range of integers.
_FIELDS: dict[int, tuple[str, type, int, int]] = {
    types_pb2.DT_FLOAT: ("float_val", float, 0, 0),
    types_pb2.DT_DOUBLE: ("double_val", float, 0, 0),
    types_pb2.DT_STRING: ("string_val", str, 0, 0),
    types_pb2.DT_BOOL: ("bool_val", bool, 0, 0),
    types_pb2.DT_INT64: ("int64_val", int, -INT64, INT64),
    types_pb2.DT_UINT32: ("uint32_val", int, 0, UINT32),
    types_pb2.DT_UINT64: ("uint64_val", int, 0, UINT64),
    # The real server does not check the range of smaller integers.
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8),
        ("int_val", int, -INT32, INT32),
    ),
}


def fill_predict(
    body: bytes, request: Any, inputs_of: Callable[[str], Mapping[str, Any] | Status]
) -> Form | Status:
    """Fill signature and inputs of a PredictRequest.

    Args:
        body: The JSON text.
        request: The message.
        inputs_of: Returns the TensorInfos of a signature's inputs, the default's for an empty name.
    """
    document = read_request(body, request)
    if isinstance(document, Status):
        return document
    infos = inputs_of(request.model_spec.signature_name)
    if isinstance(infos, Status):
        return infos
    if not infos:
        signature = request.model_spec.signature_name or "DEFAULT"
        return invalid(f"Failed to get input map for signature: {signature}")
    instances, inputs = member(document, INSTANCES), member(document, INPUTS)
    form: Form = "column" if instances is None else "row"
    if instances is not None:
        rows = instances[0]
        if inputs is not None:
            text = f"Not formatted correctly expecting only one of '{INPUTS}' or '{INSTANCES}' keys to exist "
            return wrong(document, text)
        if not isinstance(rows, list):
            return wrong(document, f"Expecting '{INSTANCES}' to be an list/array")
        if not rows:
            return wrong(document, f"No values in '{INSTANCES}' array")
        filled = _fill_rows(rows, infos, request.inputs)
    elif inputs is not None:
        filled = _fill_columns(inputs[0], infos, request.inputs)
    else:
        return invalid("Missing 'inputs' or 'instances' key")
    return form if filled.ok else filled


class _Tensor:
    """One input, to which rows are added."""

    def __init__(self, info: Any) -> None:
        self.dtype: int = info.dtype
        self.values: list[Any] = []
        self.shape: list[int] = []
        self.row: tuple[int, list[int]] | None = None

    def add(self, value: Json) -> Status:
        """Append the elements of a value. Its nesting gives the shape."""
        self.shape = _shape(value)
        return self._fill(value, 0)

    def add_row(self, value: Json) -> Status:
        """Append the elements of a value that must have the size and shape of the last value."""
        before = len(self.values)
        filled = self.add(value)
        if not filled.ok:
            return filled
        size = len(self.values) - before
        if self.row is None:
            self.row = size, self.shape
        elif self.row[0] != size:
            return invalid(f"Expecting tensor size: {self.row[0]} but got: {size}")
        elif self.row[1] != self.shape:
            wanted, got = shape_text(self.row[1]), shape_text(self.shape)
            return invalid(f"Expecting shape {wanted} but got: {got}")
        return OK

    def write(self, proto: Any, shape: list[int]) -> None:
        """Write the elements into a TensorProto."""
        proto.dtype = self.dtype
        proto.tensor_shape.SetInParent()
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        if self.values:
            getattr(proto, _FIELDS[self.dtype][0]).extend(self.values)

    def _fill(self, value: Json, level: int) -> Status:
        rank = len(self.shape)
        if not isinstance(value, list):
            if level != rank:
                text = (
                    f"found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
                return wrong(value, text)
            return self._add_element(value)
        if level >= rank:
            return invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != self.shape[level]:
            return invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {self.shape[level]}"
            )
        if level + 1 == rank and self._add_all(value):
            return OK
        for one in value:
            filled = self._fill(one, level + 1)
            if not filled.ok:
                return filled
        return OK

    def _add_all(self, values: list[Json]) -> bool:
        """Append a whole innermost list if a quick check accepts it; return whether it did."""
        if self.dtype not in _FIELDS:
            return False
        _, kind, low, end = _FIELDS[self.dtype]
        types = set(map(type, values))
        if kind is float and types <= {float, int}:
            self.values.extend(values)
            return True
        if kind is int and types == {int} and low <= min(values) and max(values) < end:
            self.values.extend(values)
            return True
        return False

    def _add_element(self, value: Json) -> Status:
        if isinstance(value, tuple):
            if self.dtype != types_pb2.DT_STRING:
                return self._type_error(value)
            data = decoded(value)
            if isinstance(data, Status):
                return data
            self.values.append(data)
            return OK
        if self.dtype not in _FIELDS:
            text = f"Conversion of JSON Value: {debug_text(value)} to type: {_type(self.dtype)}"
            return Status(Code.UNIMPLEMENTED, text)
        _, kind, low, end = _FIELDS[self.dtype]
        if kind is float and type(value) in (int, float):
            self.values.append(float(value))
        elif kind is str and isinstance(value, str):
            self.values.append(value.encode(errors="surrogateescape"))
        elif (kind is bool and isinstance(value, bool)) or (
            kind is int and type(value) is int and low <= value < end
        ):
            self.values.append(value)
        else:
            return self._type_error(value)
        return OK

    def _type_error(self, value: Json) -> Status:
        return wrong(
            value, f"Type: {json_type(value)} is not of expected type: {_type(self.dtype)}"
        )


def _fill_rows(rows: list[Json], infos: Mapping[str, Any], inputs: Any) -> Status:
    if not isinstance(rows[0], tuple) and len(infos) > 1:
        return invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    tensors: dict[str, _Tensor] = {}
    named = is_object(rows[0])
    for number, row in enumerate(rows):
        if named != is_object(row):
            wanted, got = ("object", "list") if named else ("value/list", "object")
            return invalid(f"Expecting {wanted} but got {got} at item {number} of input list")
        if named:
            added = _add_named_row(row, number, infos, tensors)
        else:
            added = _add_item(row, min(infos), infos, tensors)
            if not added.ok:
                text = f"Failed to process element: {number} of 'instances' list. Error: {added}"
                added = invalid(text)
        if not added.ok:
            return added
    for name, tensor in tensors.items():
        shape = [] if tensor.row is None else tensor.row[1]
        tensor.write(inputs[name], [len(rows), *shape])
    return OK


def _add_named_row(
    row: Json, number: int, infos: Mapping[str, Any], tensors: dict[str, _Tensor]
) -> Status:
    names = set()
    for name, value in row:
        names.add(name)
        added = _add_item(value, name, infos, tensors)
        if not added.ok:
            return invalid(
                f"Failed to process element: {number} key: {name} of 'instances' list. Error: {added}"
            )
    if names != set(infos):
        return invalid(
            f"Failed to process element: {number} of 'instances' list. JSON object: "
            f"{debug_text(row)} keys must be equal to: {','.join(sorted(infos))}"
        )
    return OK


def _add_item(
    value: Json, name: str, infos: Mapping[str, Any], tensors: dict[str, _Tensor]
) -> Status:
    if name not in infos:
        return invalid(f"JSON object: does not have named input: {name}")
    if name not in tensors:
        tensors[name] = _Tensor(infos[name])
    return tensors[name].add_row(value)


def _fill_columns(value: Json, infos: Mapping[str, Any], inputs: Any) -> Status:
    if is_object(value):
        columns: dict[str, Json] = {}
        for name in sorted(infos):
            found = member(value, name)
            if found is None:
                return invalid(f"Missing named input: {name} in 'inputs' object.")
            (columns[name],) = found
    elif len(infos) > 1:
        return invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map"
        )
    else:
        columns = {min(infos): value}
    for name, column in columns.items():
        tensor = _Tensor(infos[name])
        added = tensor.add(column)
        if not added.ok:
            return added
        tensor.write(inputs[name], tensor.shape)
    return OK


def _shape(value: Json) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _type(dtype: int) -> str:
    return dtype_name(dtype).removeprefix("DT_").lower()
