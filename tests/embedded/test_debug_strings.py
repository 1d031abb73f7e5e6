"""Error texts quote messages as C++ prints them, not as Python does."""

from __future__ import annotations

import pytest

from servingrepo.embedded.examples import debug_string
from servingrepo.protos import meta_graph_pb2, tensor_pb2, types_pb2


@pytest.mark.parametrize(
    ("value", "single", "double"),
    [
        (0.0, "0", "0"),
        (-0.0, "-0", "-0"),
        (1.0, "1", "1"),
        (1e6, "1e+06", "1000000"),
        (0.1, "0.1", "0.1"),
        (16777216.0, "16777216", "16777216"),
        (1e-7, "1e-07", "1e-07"),
        (1 / 3, "0.333333343", "0.33333333333333331"),
        (123456.789, "123456.789", "123456.789"),
        (float("inf"), "inf", "inf"),
        (float("nan"), "nan", "nan"),
    ],
)
def test_decimals_are_as_short_as_printf_makes_them(value: float, single: str, double: str) -> None:
    tensor = tensor_pb2.TensorProto(float_val=[value], double_val=[value])
    assert debug_string(tensor) == f"float_val: {single}\ndouble_val: {double}\n"


def test_debug_string_escapes_text_and_keeps_its_numbers() -> None:
    signature = meta_graph_pb2.SignatureDef(method_name="\nfloat_val: 0.0")
    signature.inputs["é"].name = "x"
    signature.defaults["x"].dtype = types_pb2.DT_FLOAT
    signature.defaults["x"].float_val.append(0.0)
    shown = debug_string(signature)
    assert r'key: "\303\251"' in shown
    assert r'method_name: "\nfloat_val: 0.0"' in shown
    assert "    float_val: 0\n" in shown
