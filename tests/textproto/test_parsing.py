"""What is refused, where, and what is said of it; what is taken, and as what."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from servingrepo.protos import meta_graph_pb2, model_server_config_pb2, saved_model_pb2
from servingrepo.textproto import BadText, Mistake, Remark, parse
from tests.textproto.generated import Maker


def config(text: str) -> Any:
    """Read a ModelServerConfig."""
    message = model_server_config_pb2.ModelServerConfig()
    parse(text, message)
    return message


def entry(fields: str) -> Any:
    """Read the fields of one entry, which begin in column 8 of line 2."""
    return config(
        f"model_config_list {{ config {{\n       {fields}\n}} }}"
    ).model_config_list.config[0]


def versions(text: str) -> list[int]:
    """Read the fields of a `specific` policy."""
    policy = entry(f"model_version_policy {{ specific {{ {text} }} }}").model_version_policy
    return list(policy.specific.versions)


def mistakes(text: str, message: Any = None) -> list[Mistake]:
    with pytest.raises(BadText) as caught:
        parse(text, message or model_server_config_pb2.ModelServerConfig())
    assert not caught.value.more
    return list(caught.value.mistakes)


def remarks(text: str) -> tuple[Remark, ...]:
    return parse(text, model_server_config_pb2.ModelServerConfig())


@pytest.mark.parametrize(
    ("fields", "column", "said"),
    [
        ("name:\u00a0'm'", 13, "U+00A0 NO-BREAK SPACE"),
        ("name:\u3000'm'", 13, "U+3000 IDEOGRAPHIC SPACE"),
        ("name:\u0085'm'", 13, "U+0085"),
        ("name: 'm'\ufeff", 17, "U+FEFF"),
        ("n\u00e4me: 'm'", 9, "U+00E4"),
        ("name: 'm' \x01", 18, "U+0001"),
        ("name: 'm' \x00", 18, "U+0000"),
        ("name: 'm' \x7f", 18, "U+007F"),
        ("name: 'm' # \x00", 20, "U+0000"),
        ("name: 'm' \udcff", 18, "the byte 0xFF"),
        (r"name: 'a\_b'", 16, r"\_ is no escape"),
        (r"name: 'ab' 'a\m'", 21, r"\m is no escape"),
        (r"name: 'a\X41'", 16, r"\X is no escape"),
        (r"name: 'a\xg'", 16, r"\x needs"),
        (r"name: 'a\u12g4'", 16, r"\u needs"),
        (r"name: 'a\U00200000'", 16, r"\U needs"),
        ("name: 'a\n'", 14, "does not end on its line"),
        ("name: 'a\x00b'", 14, "does not end on its line"),
        ("name: \"a'", 14, "does not end on its line"),
        (r"name: '\377'", 14, "not UTF-8: it has the byte 0xFF"),
        (r"name: '\ud800'", 14, "not UTF-8"),
        ("name: m", 14, "has to be a string in quotes, not m"),
        ("name: 1", 14, "has to be a string"),
        ("name 'm'", 13, 'expected ":", found \'m\''),
        ("name: 'a' name: 'b'", 18, "name is given twice"),
        ("nam: 'm'", 8, "ModelConfig has no field nam; did you mean name?"),
        ("Name: 'm'", 8, "no field Name"),
        ("1: 'm'", 8, "expected the name of a field of ModelConfig"),
        ("'name': 'm'", 8, "expected the name of a field"),
        ("[a.b]: 1", 8, "[a.b] is not known"),
        ("name: 'm',, base_path: '/m'", 18, "found ,"),
        ("// name: 'm'", 8, "a comment begins with #"),
        ("model_type: FOO", 20, "has no value FOO"),
        ("model_type: tensorflow", 20, "has no value tensorflow"),
        ("model_type: 2147483648", 20, "out of range"),
        ("model_version_policy { latest { num_versions: -1 } }", 54, "has to be an integer, not -"),
        ("model_version_policy { latest { num_versions: 4294967296 } }", 54, "out of range"),
        ("model_version_policy { latest {} all {} }", 41, "all is given beside latest"),
        ("model_version_policy { latest {} latest {} }", 41, "latest is given twice"),
        ("model_version_policy ( latest {} )", 29, 'expected "{", found ('),
        ("version_labels { key: 'a' key: 'b' }", 34, "key is given twice"),
        ("version_labels { key: '' key: 'b' }", 33, "key is given twice"),
        ("version_labels { value: 0 value: 1 }", 34, "value is given twice"),
        ("logging_config { sampling_config { sampling_rate: 0x1 } }", 58, "a decimal number"),
        ("logging_config { sampling_config { sampling_rate: 010 } }", 58, "a decimal number"),
        ("logging_config { sampling_config { sampling_rate: 1.5.5 } }", 58, "1.5.5 is no number"),
        ("logging_config { sampling_config { sampling_rate: inff } }", 58, "not inff"),
    ],
)  # fmt: skip
def test_what_cpp_refuses_is_refused_with_its_place(fields: str, column: int, said: str) -> None:
    with pytest.raises(BadText) as caught:
        entry(fields)
    found = next(one for one in caught.value.mistakes if said in one.message)
    assert (found.line, found.column) == (2, column)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1_000", "1_000 is no number"),
        ("+1", "has to be an integer, not +"),
        ("0o17", "0o17 is no number"),
        ("0b1", "0b1 is no number"),
        ("0x", "0x is no number"),
        ("1.0", "has to be an integer, not 1.0"),
        ("1e3", "has to be an integer"),
        ("1f", "has to be an integer"),
        ("--1", "has to be an integer"),
        ("00000189", "octal has no 8 and 9; write 189"),
        ("09", "write 9"),
        ("\u0661\u0662", "U+0661 ARABIC-INDIC DIGIT ONE"),
        ("1\uff11", "U+FF11 FULLWIDTH DIGIT ONE"),
        ("9223372036854775808", "out of range"),
        ("-9223372036854775809", "out of range"),
        ("0x8000000000000000", "out of range"),
        ("01000000000000000000000", "out of range"),
        ("9" * 5000, "out of range"),
        ("'1'", "has to be an integer"),
        ("true", "has to be an integer"),
        ("[1,]", "has to be an integer, not ]"),
        ("[1 2]", 'expected "," or "]", found 2'),
        ("[1;2]", 'expected "," or "]", found ;'),
    ],
)
def test_what_is_no_integer_to_cpp_is_refused(written: str, said: str) -> None:
    with pytest.raises(BadText) as caught:
        versions(f"versions: {written}")
    assert said in caught.value.mistakes[0].message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("versions: 0x7F, versions: 0XfF;", [127, 255]),
        ("versions: - 2 versions: -\n#\n3", [-2, -3]),
        ("versions: [] versions: [ 1 , 2 ]", [1, 2]),
        ("versions: 00000123 versions: 00", [83, 0]),
        ("versions: 9223372036854775807 versions:-9223372036854775808", [2**63 - 1, -(2**63)]),
        ("versions: 0" + "0" * 5000 + "7", [7]),
        ("\r\v\f versions\t:\r\n1# \u00a0\x01 c\n", [1]),
    ],
)
def test_numbers_in_all_their_forms_are_taken(written: str, value: list[int]) -> None:
    assert versions(written) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"'\a\b\f\n\r\t\v\\\?\'\"'", "\a\b\f\n\r\t\v\\?'\""),
        (r"'\1\12\1014'", "\1\nA4"),
        (r"'\x4\x41\x414'", "\4AA4"),
        (r"'\u00e4\U0001F600\ud83d\ude00'", "ä😀😀"),
        (r"'\303\244' '\xc3\xa4'", "ää"),
        ("'a' \"b\"\n# c\n'c'''", "abc"),
        ("'\u00a0\u0085\x01\r\x7f#{'", "\u00a0\u0085\x01\r\x7f#{"),
        ("'\"' \"'\"", "\"'"),
    ],
)
def test_strings_in_all_their_forms_are_taken(written: str, value: str) -> None:
    assert entry(f"name: {written}").name == value


def test_a_string_of_bytes_may_be_anything() -> None:
    message = meta_graph_pb2.CollectionDef()
    parse(r"bytes_list { value: '\377\400\ud800\U00110000" + "\udcfe'}", message)
    assert list(message.bytes_list.value) == [b"\xff\x00\xed\xa0\x80\\U00110000\xfe"]


@pytest.mark.parametrize(
    "text", ["", " ", "# c", "#\n\n", "model_config_list {},", "model_config_list:<>;"]
)
def test_texts_without_models_are_taken(text: str) -> None:
    assert not config(text).model_config_list.config


def test_fields_set_to_nothing_may_be_given_again() -> None:
    assert entry("name: '' name: 'm' model_type: 0 model_type: 7").name == "m"


def test_unknown_numbers_of_an_enum_are_taken() -> None:
    assert entry("model_type: 7").model_type == 7


def test_an_any_may_be_written_out() -> None:
    inner = "[type.googleapis.com/tensorflow.serving.ModelConfig] { name: 'm' }"
    written = config(f"custom_model_config {{ {inner} }}").custom_model_config
    found = model_server_config_pb2.ModelConfig.FromString(written.value)
    assert (written.type_url.rpartition("/")[2], found.name) == (found.DESCRIPTOR.full_name, "m")


@pytest.mark.parametrize(
    "inner",
    [
        "[type.googleapis.com/no.Such] {}",
        "[x.org/tensorflow.serving.ModelConfig] {}",
        "[type.googleapis.com/tensorflow.serving.ModelConfig] {},",
        "[type.googleapis.com/tensorflow.serving.ModelConfig] {name: 'm'} value: 'a'",
        "type_url: 'a' [type.googleapis.com/tensorflow.serving.ModelConfig] {}",
        "[typ e.googleapis.com/tensorflow.serving.ModelConfig] {}",
        "[type.googleapis.com/tensorflow.serving.ModelConfig {}",
        "[]",
    ],
)
def test_what_is_no_written_out_any_is_refused(inner: str) -> None:
    assert mistakes(f"custom_model_config {{ {inner} }}")


def test_reserved_names_are_passed_over() -> None:
    message = saved_model_pb2.SavedModel()
    parse(
        "meta_graphs { object_graph_def { nodes { attributes { a: [1, {b: 2}] [x.y/z]: 'c' 'd' e: -inf }"
        " user_object { identifier: 'i' } } } }",
        message,
    )
    assert message.meta_graphs[0].object_graph_def.nodes[0].user_object.identifier == "i"


def test_every_mistake_of_a_text_is_found() -> None:
    text = (
        "model_config_list {\n"
        "  config {\n"
        "    nam: 'x\\_' base_pth: [ { a: 1 }, 2 ]\n"
        "    base_path:\u00a0'/m'\n"
        "    model_type: 1_0 model_type: NONE\n"
        "    model_version_policy { specific { versions: '1' versions: 018 } }\n"
        "  }\n"
        "}}\n"
    )
    found = mistakes(text)
    assert [(one.line, one.column) for one in found] == [
        (3, 5),
        (3, 12),
        (3, 16),
        (4, 15),
        (5, 17),
        (5, 33),
        (6, 49),
        (6, 63),
        (8, 2),
    ]


def test_a_character_is_said_once_and_not_its_consequences() -> None:
    assert len(mistakes("model_config_list {\u3000config { name:\u2003'm' } }")) == 2


def test_what_is_wrong_after_the_last_clear_place_is_said_too() -> None:
    assert [one.line for one in mistakes("model_config_list (\n'\\_'\n\u00a0\n)")] == [1, 2, 3]


def test_a_screenful_of_mistakes_is_enough() -> None:
    with pytest.raises(BadText) as caught:
        config("\x01 " * 100)
    assert (len(caught.value.mistakes), caught.value.more) == (20, 80)


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        ('{"model_config_list": {"config": []}}', "JSON"),
        ("[]", "JSON"),
        ("model_config_list:\n  config:\n    - name: x\n", "YAML"),
        ("---\nmodel_config_list: {}\n", "YAML"),
        ("model_config_list { nam: 1 }", ""),
    ],
)
def test_another_format_is_named(text: str, format_: str) -> None:
    with pytest.raises(BadText) as caught:
        config(text)
    assert caught.value.looks_like == format_


def test_a_byte_order_mark_is_refused_by_name() -> None:
    first, *_ = mistakes("\ufeffmodel_config_list {}")
    assert (first.line, first.column) == (1, 1)
    assert "byte order mark" in first.message


def test_octal_numbers_are_remarked_on_where_they_mislead() -> None:
    found = remarks(
        "model_config_list { config { name: 'm' model_version_policy {"
        " specific { versions: [0123, 0, 07, 00, 0x10, 12,\n -010] } } } }"
    )
    assert [
        (one.kind, one.line, one.column, one.field, one.written, one.value) for one in found
    ] == [
        ("octal", 1, 85, "versions", "0123", 83),
        ("octal", 2, 2, "versions", "-010", -8),
    ]
    assert [type(one).__name__ for one in found[0].within][:3] == [
        "ModelServerConfig",
        "ModelConfigList",
        "ModelConfig",
    ]


def test_a_key_given_twice_is_remarked_on() -> None:
    pairs = "".join(
        f"version_labels {{ key: '{key}' value: {at} }}" for at, key in enumerate("aba")
    )
    (found,) = remarks(f"model_config_list {{ config {{ {pairs} }} }}")
    assert (found.kind, found.field, found.value) == ("repeated-key", "version_labels", "a")
    assert dict(found.within[-1].version_labels) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "opening", ["a {", "a: [", "custom_model_config { [type.googleapis.com/google.protobuf.Any] {"]
)
def test_bottomless_nesting_is_refused(opening: str) -> None:
    with pytest.raises(BadText):
        config(opening * 100_000)


def test_messages_as_deep_as_binary_ones_are_taken() -> None:
    message = meta_graph_pb2.CollectionDef()
    opening = "any_list { value {" + "[type.googleapis.com/google.protobuf.Any] {" * 90
    parse(opening + "}" * 92, message)


@settings(max_examples=300)
@given(st.integers(min_value=0), st.booleans())
def test_whatever_python_writes_is_read_as_it_was(seed: int, as_utf8: bool) -> None:
    made = Maker(seed, wrong=0).text(saved_model_pb2.SavedModel.DESCRIPTOR)
    message = saved_model_pb2.SavedModel()
    try:
        parse(made.decode(errors="surrogateescape"), message)
    except BadText:  # a number out of range, or bytes that Python has no place for
        return
    written = text_format.MessageToString(message, as_utf8=as_utf8)
    again = saved_model_pb2.SavedModel()
    parse(written, again)
    assert text_format.MessageToString(again, as_utf8=as_utf8) == written


@given(st.text(st.characters()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        config(text)
    except BadText as error:
        found = error.mistakes
    else:
        return
    assert found
    assert not any("\n" in one.message for one in found)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        config(data.decode(errors="surrogateescape"))
    except BadText as error:
        found = error.mistakes
    else:
        return
    assert found
