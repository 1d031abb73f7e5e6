from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.errors import BadName, BadVersionNumber
from servingrepo.modelconfig.names import (
    MAX_VERSION,
    check_label,
    check_name,
    is_label,
    is_model_name,
    names_by_version,
    parse_version,
    version_of_entry,
)


@pytest.mark.parametrize("name", ["ranker", "a", "7b", "1.5", "A_b-c.d", "v" * 128, "x.json.gz"])
def test_check_name_when_allowed_then_returned_as_it_is(name: str) -> None:
    assert check_name(name) == name
    assert is_model_name(name)


@pytest.mark.parametrize(
    ("name", "why", "proposed"),
    [
        ("", "empty", "my-model"),
        ("7", "an integer", "model-7"),
        ("007", "an integer", "model-007"),
        ("9" * 30, "an integer", "model-" + "9" * 30),
        (".hidden", "must begin with", "hidden"),
        ("-x", "must begin with", "x"),
        ("_x", "must begin with", "x"),
        ("über", "must begin with", "ber"),
        ("a/b", "not '/'", "a-b"),
        ("a b:c", "not ' :'", "a-b-c"),
        ("a\n", r"not '\n'", "a"),
        ("a\x00b", r"not '\x00'", "a-b"),
        ("naïve", r"not '\xef'", "na-ve"),
        ("v" * 129, "129 bytes", "v" * 128),
        ("models.config", "config file", "my-model"),
        ("ranker.json", "ends in .json", "ranker"),
    ],
)
def test_check_name_when_not_allowed_then_says_why_and_proposes(
    name: str, why: str, proposed: str
) -> None:
    with pytest.raises(BadName, match=re.escape(why)) as caught:
        check_name(name)
    assert caught.value.hint == f"try {proposed}"
    assert not is_model_name(name)


@given(st.text())
def test_check_name_when_any_text_then_the_proposed_name_is_allowed(name: str) -> None:
    if is_model_name(name):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name)
        assert version_of_entry(name) is None
        return
    with pytest.raises(BadName) as caught:
        check_name(name)
    assert caught.value.hint is not None
    assert is_model_name(caught.value.hint.removeprefix("try "))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("label", ["stable", "canary_2", "1", "_", "l" * 128])
def test_check_label_when_allowed_then_returned_as_it_is(label: str) -> None:
    assert check_label(label) == label
    assert is_label(label)


@pytest.mark.parametrize(
    ("label", "proposed"),
    [
        ("", "stable"),
        ("blue/green", "blue_green"),
        ("a-b", "a_b"),
        ("ü", "stable"),
        ("x\n", "x"),
        ("l" * 129, "l" * 128),
    ],
)
def test_check_label_when_not_allowed_then_proposes(label: str, proposed: str) -> None:
    with pytest.raises(BadName) as caught:
        check_label(label)
    assert caught.value.hint == f"try {proposed}"
    assert is_label(proposed)
    assert not is_label(label)


@given(st.integers(min_value=1, max_value=MAX_VERSION))
def test_parse_version_when_plain_then_the_number(number: int) -> None:
    assert parse_version(str(number)) == number
    assert version_of_entry(str(number)) == number


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("0", "begin at 1"),
        ("000", "begin at 1"),
        ("-1", "negative"),
        ("-0", "negative"),
        ("+7", "a sign"),
        ("007", "leading zeros"),
        (" 7", "whitespace"),
        ("7\n", "whitespace"),
        ("9223372036854775808", "beyond int64"),
        ("9" * 10_000, "beyond int64"),
        ("seven", "not a decimal number"),
        ("7.0", "not a decimal number"),
        ("0x7", "not a decimal number"),
        ("1_000", "not a decimal number"),
        ("--7", "not a decimal number"),
        ("\u0667", "other than 0 to 9"),
        ("²", "other than 0 to 9"),
    ],
)
def test_parse_version_when_not_plain_then_says_why(text: str, why: str) -> None:
    with pytest.raises(BadVersionNumber, match=why) as caught:
        parse_version(text)
    assert caught.value.hint


@given(st.one_of(st.text(), st.from_regex(r"[ +-]?[0-9\u0660-\u0669]{1,22}\s?", fullmatch=True)))
def test_parse_version_when_any_text_then_a_plain_positive_int64_or_refused(text: str) -> None:
    try:
        number = parse_version(text)
    except BadVersionNumber:
        assert not (re.fullmatch(r"[1-9][0-9]*", text, re.ASCII) and int(text) <= MAX_VERSION)
    else:
        assert str(number) == text
        assert 0 < number <= MAX_VERSION


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7),
        ("00000123", 123),
        ("0", 0),
        ("-1", -1),
        ("+1", 1),
        (" 5", 5),
        ("5 ", 5),
        ("\t5\n", 5),
        ("9223372036854775807", MAX_VERSION),
        ("-9223372036854775808", -MAX_VERSION - 1),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("9" * 255, None),
        ("0" * 250 + "7", 7),
        ("1_000", None),
        ("1.0", None),
        ("0x1", None),
        ("1.tmp", None),
        ("tmp-1", None),
        (".1", None),
        (".staging", None),
        ("- 1", None),
        ("+-1", None),
        ("+", None),
        ("", None),
        ("\u0667", None),
        ("\u00a07", None),
        ("\x1c7", None),
        ("7\udcff", None),
    ],
)
def test_version_of_entry_when_read_then_as_the_server_reads_it(
    name: str, number: int | None
) -> None:
    assert version_of_entry(name) == number


def test_names_by_version_when_two_names_of_one_number_then_both_listed() -> None:
    found = names_by_version(["10", "1", "001", ".staging", "2", "-3"])
    assert list(found.items()) == [(-3, ("-3",)), (1, ("001", "1")), (2, ("2",)), (10, ("10",))]
