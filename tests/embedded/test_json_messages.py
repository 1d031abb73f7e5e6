"""JSON bodies to request messages and response messages to JSON bodies."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from servingrepo.embedded.json_examples import fill_examples
from servingrepo.embedded.json_responses import (
    classifications_text,
    error_text,
    message_text,
    outputs_text,
    regressions_text,
)
from servingrepo.embedded.json_tensors import fill_predict
from servingrepo.embedded.runtime import Tensor
from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.tensors import to_proto
from servingrepo.protos import (
    classification_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)


def fill(body: bytes, **inputs: int) -> Any:
    """Return the request's inputs as {name: (shape, values)}, or the error's text."""
    request = predict_pb2.PredictRequest()
    infos = {name: meta_graph_pb2.TensorInfo(dtype=dtype) for name, dtype in inputs.items()}
    form = fill_predict(body, request, lambda _: infos)
    if isinstance(form, Status):
        return str(form).partition(": ")[2]
    found = {}
    for name, proto in request.inputs.items():
        assert proto.dtype == inputs[name]
        fields = [value for field, value in proto.ListFields() if field.name.endswith("_val")]
        values = list(fields[0]) if fields else []
        found[name] = ([dim.size for dim in proto.tensor_shape.dim], values)
    return form, found


F, D, S, B = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_STRING, types_pb2.DT_BOOL)
I32, I64, U8 = types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_UINT8
U32, U64, HALF = types_pb2.DT_UINT32, types_pb2.DT_UINT64, types_pb2.DT_HALF


@pytest.mark.parametrize(
    ("body", "inputs", "form", "tensors"),
    [
        (b'{"instances": [1, 2.5]}', {"x": F}, "row", {"x": ([2], [1, 2.5])}),
        (b'{"instances": [[1, 2], [3, 4]]}', {"x": I64}, "row", {"x": ([2, 2], [1, 2, 3, 4])}),
        (b'{"instances": [[]]}', {"x": F}, "row", {"x": ([1, 0], [])}),
        (b'{"instances": [{"x": [1]}, {"x": [2]}]}', {"x": U8}, "row", {"x": ([2, 1], [1, 2])}),
        (b'{"inputs": 5}', {"x": D}, "column", {"x": ([], [5])}),
        (b'{"inputs": {"x": [true], "ignored": 1}}', {"x": B}, "column", {"x": ([1], [True])}),
        (b'{"inputs": {"b64": "YWI"}}', {"x": S}, "column", {"x": ([], [b"ab"])}),
        (
            b'{"instances": ["a", {"b64": " YQ= = "}]}',
            {"x": S},
            "row",
            {"x": ([2], [b"a", b"a"])},
        ),
        # Not checked against the range of eight bits.
        (b'{"inputs": [300]}', {"x": U8}, "column", {"x": ([1], [300])}),
        (b'{"inputs": [18446744073709551615]}', {"x": U64}, "column", {"x": ([1], [2**64 - 1])}),
        (b'{"inputs": [1e39]}', {"x": F}, "column", {"x": ([1], [float("inf")])}),
        (b'{"inputs": {"x": 1, "x": 2}}', {"x": I32}, "column", {"x": ([], [1])}),
    ],
)
def test_predict_bodies(
    body: bytes, inputs: dict[str, int], form: str, tensors: dict[str, Any]
) -> None:
    assert fill(body, **inputs) == (form, tensors)


@pytest.mark.parametrize(
    ("body", "inputs", "text"),
    [
        (b"[1]", {"x": F}, "JSON Value: [1] Is not object"),
        (
            b'{"signature_name": 1}',
            {"x": F},
            (
                'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
                "'signature_name' key must be a string value."
            ),
        ),
        (b"{}", {}, "Failed to get input map for signature: DEFAULT"),
        (
            b'{"instances": [1, {"x": 1}]}',
            {"x": F},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            b'{"instances": [{"x": 1}, 1]}',
            {"x": F},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            b'{"instances": [[1], [1, 2]]}',
            {"x": F},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting tensor size: 1 but got: 2"
            ),
        ),
        (
            b'{"instances": [[[1, 2]], [[1], [2]]]}',
            {"x": F},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting shape [1,2] but got: [2,1]"
            ),
        ),
        (
            b'{"inputs": [[1], 2]}',
            {"x": F},
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (b'{"inputs": [1, [2]]}', {"x": F}, "Encountered list at unexpected level: 1 expected < 1"),
        (
            b'{"inputs": [[1], [2, 3]]}',
            {"x": F},
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            b'{"inputs": [2147483648]}',
            {"x": I32},
            "JSON Value: 2147483648 Type: Number is not of expected type: int32",
        ),
        (
            b'{"inputs": [-1]}',
            {"x": U32},
            "JSON Value: -1 Type: Number is not of expected type: uint32",
        ),
        (
            b'{"inputs": [true]}',
            {"x": F},
            "JSON Value: true Type: True is not of expected type: float",
        ),
        (b'{"inputs": [1]}', {"x": B}, "JSON Value: 1 Type: Number is not of expected type: bool"),
        (
            b'{"inputs": [{"a": 1}]}',
            {"x": F},
            'JSON Value: {\n    "a": 1\n} Type: Object is not of expected type: float',
        ),
        (
            b'{"inputs": [{"a": 1}]}',
            {"x": S},
            'JSON Value: {\n    "a": 1\n} not formatted correctly for base64 data',
        ),
        (b'{"inputs": {"b64": "a*"}}', {"x": S}, "Unable to base64 decode"),
        (b'{"inputs": {"b64": "abcde"}}', {"x": S}, "Unable to base64 decode"),
        (b'{"inputs": [1]}', {"x": HALF}, "Conversion of JSON Value: 1 to type: half"),
        (
            b'{"inputs": [1]}',
            {"x": F, "y": F},
            (
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            ),
        ),
    ],
)
def test_predict_bodies_that_are_wrong(body: bytes, inputs: dict[str, int], text: str) -> None:
    assert fill(body, **inputs) == text


def test_a_type_that_json_has_not_is_unimplemented() -> None:
    request = predict_pb2.PredictRequest()
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=HALF)}
    status = fill_predict(b'{"inputs": [1]}', request, lambda _: infos)
    assert isinstance(status, Status)
    assert status.code is Code.UNIMPLEMENTED


def test_examples_kinds_and_context() -> None:
    request = classification_pb2.ClassificationRequest()
    body = b"""{"signature_name": "s", "context": {"c": [1.5, 2e0]},
        "examples": [{"i": 1, "b": [true, false], "t": ["a", {"b64": "Yg=="}], "e": []}]}"""
    assert fill_examples(body, request).ok
    assert request.model_spec.signature_name == "s"
    filled = request.input.example_list_with_context
    assert list(filled.context.features.feature["c"].float_list.value) == [1.5, 2]
    feature = filled.examples[0].features.feature
    assert list(feature["i"].int64_list.value) == [1]
    assert list(feature["b"].int64_list.value) == [1, 0]
    assert list(feature["t"].bytes_list.value) == [b"a", b"b"]
    assert feature["e"].WhichOneof("kind") is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"examples": 1}',
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
        ),
        (b'{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        (b'{"context": [], "examples": []}', "Example must be JSON object but got JSON Array"),
        (
            b'{"examples": [{"x": [1, 2.5]}]}',
            "Unexpected element type in feature: x expecting type: int64",
        ),
        (
            b'{"examples": [{"x": [2.5, "a"]}]}',
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            b'{"examples": [{"x": null}]}',
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            b'{"examples": [{"x": [[1]]}]}',
            "Feature: x has element with unexpected JSON type: Array",
        ),
        (
            b'{"examples": [{"x": {"y": 1}}]}',
            "Feature: x has element with unexpected JSON type: Object",
        ),
        (
            b'{"examples": [{"x": 9223372036854775808}]}',
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
    ],
)
def test_examples_that_are_wrong(body: bytes, text: str) -> None:
    status = fill_examples(body, regression_pb2.RegressionRequest())
    assert status == Status(Code.INVALID_ARGUMENT, text)


def floats(*values: float, shape: tuple[int, ...]) -> Any:
    return to_proto(Tensor(F, shape, struct.pack(f"<{len(values)}f", *values)))


def strings(*values: bytes) -> Any:
    return to_proto(Tensor(S, (len(values),), strings=values))


def test_one_row_output_is_written_on_one_line() -> None:
    text = outputs_text({"y": floats(2.5, 3, 4.5, shape=(3,))}, "row")
    assert text == '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'


def test_row_outputs_of_higher_rank() -> None:
    text = outputs_text({"y": floats(1, 2, 3, 4, shape=(2, 1, 2))}, "row")
    assert text == '{\n    "predictions": [[[1.0, 2.0]], [[3.0, 4.0]]\n    ]\n}'


def test_several_row_outputs_are_objects() -> None:
    text = outputs_text({"y": floats(1, 2, shape=(2, 1)), "b_bytes": strings(b"a", b"\xff")}, "row")
    assert text == (
        '{\n    "predictions": [\n'
        '        {\n            "b_bytes": {\n                "b64": "YQ=="\n            },\n'
        '            "y": [1.0]\n        },\n'
        '        {\n            "b_bytes": {\n                "b64": "/w=="\n            },\n'
        '            "y": [2.0]\n        }\n    ]\n}'
    )


def test_column_output_has_a_line_per_element() -> None:
    text = outputs_text({"y": floats(1, 2, shape=(2,))}, "column")
    assert text == '{\n    "outputs": [\n        1.0,\n        2.0\n    ]\n}'
    assert outputs_text({"y": floats(7, shape=())}, "column") == '{\n    "outputs": 7.0\n}'


def test_several_column_outputs_are_an_object() -> None:
    text = outputs_text({"y": floats(1, shape=(1,)), "z": strings(b"a\n")}, "column")
    assert isinstance(text, str)
    assert json.loads(text) == {"outputs": {"y": [1], "z": ["a\n"]}}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": floats(1, shape=())}, "Tensor name: y has no shape information "),
        (
            {"y": floats(1, shape=(1,)), "z": floats(1, 2, shape=(2,))},
            "Tensor name: z has inconsistent batch size: 2 expecting: 1",
        ),
        (
            {"y": to_proto(Tensor(HALF, (1,), b"\0\0"))},
            "Failed to write JSON value for tensor type: half",
        ),
    ],
)
def test_row_outputs_that_json_cannot_hold(outputs: dict[str, Any], text: str) -> None:
    assert outputs_text(outputs, "row") == Status(Code.INVALID_ARGUMENT, text)


def test_every_dtype_that_json_holds_is_written() -> None:
    protos = {
        "a": tensor_pb2.TensorProto(dtype=types_pb2.DT_INT8, int_val=[-1]),
        "b": tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT64, uint64_val=[2**64 - 1]),
        "c": tensor_pb2.TensorProto(dtype=types_pb2.DT_BOOL, bool_val=[True]),
        "d": tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[0.1]),
        "e": tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT32, uint32_val=[7]),
        "f": tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, int64_val=[-(2**63)]),
    }
    text = outputs_text(protos, "column")
    assert isinstance(text, str)
    values = {"a": -1, "b": 2**64 - 1, "c": True, "d": 0.1, "e": 7, "f": -(2**63)}
    assert json.loads(text) == {"outputs": values}


def test_classifications_and_regressions() -> None:
    classified = classification_pb2.ClassificationResult()
    for label, score in (("a", 0.5), ("b", 1)):
        classified.classifications.add().classes.add(label=label, score=score)
    assert classifications_text(classified) == (
        '{\n    "results": [[["a", 0.5]], [["b", 1.0]]\n    ]\n}'
    )
    regressed = regression_pb2.RegressionResult()
    for value in (1, 2.5):
        regressed.regressions.add(value=value)
    assert regressions_text(regressed) == '{\n    "results": [1.0, 2.5]\n}'
    assert isinstance(classifications_text(classification_pb2.ClassificationResult()), Status)
    assert isinstance(regressions_text(regression_pb2.RegressionResult()), Status)


def test_error_and_status_texts() -> None:
    assert error_text(Status(Code.INTERNAL, 'a "b"\n')) == '{\n    "error": "a \\"b\\"\\n"\n}'
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=2, state=30).status.SetInParent()
    assert message_text(response) == (
        '{\n "model_version_status": [\n  {\n   "version": "2",\n   "state": "AVAILABLE",\n'
        '   "status": {\n    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )
