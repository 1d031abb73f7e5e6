"""The JSON body of a REST classify or regress as tf.Examples in the gRPC request.

After util/json_tensor.cc: whole numbers and booleans become int64, numbers with a fraction float, texts bytes. All
values of a feature have one kind.
"""

from __future__ import annotations

from typing import Any

from servingrepo.embedded.json_body import (
    decoded,
    is_object,
    json_type,
    read_request,
    valid_text,
    wrong,
)
from servingrepo.embedded.json_reader import Json, member
from servingrepo.embedded.json_writer import is_double
from servingrepo.embedded.status import OK, Status, invalid
from servingrepo.protos import feature_pb2

__all__ = ["fill_examples"]

EXAMPLES, CONTEXT = "examples", "context"
INT64 = 2**63


def fill_examples(body: bytes, request: Any) -> Status:
    """Fill signature and input of a ClassificationRequest or RegressionRequest."""
    document = read_request(body, request)
    if isinstance(document, Status):
        return document
    target = request.input.example_list
    context = member(document, CONTEXT)
    if context is not None:
        target = request.input.example_list_with_context
        filled = _fill_example(context[0], target.context)
        if not filled.ok:
            return filled
    found = member(document, EXAMPLES)
    if found is None:
        # The real server has this text for regress too.
        text = f"When method is classify, key '{EXAMPLES}' is expected and was not found"
        return wrong(document, text)
    (examples,) = found
    if not isinstance(examples, list):
        return wrong(document, f"Expecting '{EXAMPLES}' value to be an list/array")
    if not examples:
        return wrong(document, f"'{EXAMPLES}' value is an empty array")
    for one in examples:
        filled = _fill_example(one, target.examples.add())
        if not filled.ok:
            return filled
    return OK


def _fill_example(value: Json, example: Any) -> Status:
    if not isinstance(value, tuple):
        return invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    for name, content in value:
        feature = feature_pb2.Feature()
        for one in content if isinstance(content, list) else [content]:
            added = _add_to_feature(one, name, feature)
            if not added.ok:
                return added
        example.features.feature[valid_text(name)].CopyFrom(feature)
    return OK


def _add_to_feature(value: Json, name: str, feature: Any) -> Status:
    element: Any = value
    if value is None or isinstance(value, list) or is_object(value):
        kind = json_type(value)
        return invalid(f"Feature: {name} has element with unexpected JSON type: {kind}")
    if isinstance(value, tuple):
        field = "bytes_list"
        element = b""
    elif isinstance(value, str):
        field = "bytes_list"
        element = value.encode(errors="surrogateescape")
    else:
        field = "float_list" if is_double(value) else "int64_list"
    before = feature.WhichOneof("kind")
    if before not in (None, field):
        expected = before.removesuffix("_list")
        return invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    if isinstance(value, tuple):
        element = decoded(value)
        if isinstance(element, Status):
            return element
    elif field == "float_list":
        element = float(value)
    elif field == "int64_list":
        if value >= INT64:
            text = f"Feature: {name} has uint64_t element. Only int64_t is supported."
            return invalid(text)
        element = int(value)
    getattr(feature, field).value.append(element)
    return OK
