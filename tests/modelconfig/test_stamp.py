from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.modelconfig.stamp import Stamp, read_stamp, stamp

BODY = "model_config_list {\n}\n"


def test_stamp_when_written_then_first_line_is_a_comment_with_a_digest() -> None:
    first, rest = stamp(BODY).split("\n", 1)
    assert first.startswith("# Written by servingrepo; do not edit")
    assert first.endswith("sha256:" + hashlib.sha256(BODY.encode()).hexdigest())
    assert rest == BODY


@given(st.text())
def test_read_stamp_when_unchanged_then_unedited(body: str) -> None:
    assert read_stamp(stamp(body)) is Stamp.UNEDITED


@given(st.text(), st.text(), st.integers(min_value=0))
def test_read_stamp_when_anything_is_put_into_the_body_then_edited(
    body: str, extra: str, at: int
) -> None:
    cut = at % (len(body) + 1)
    changed = body[:cut] + extra + body[cut:]
    text = stamp(body).removesuffix(body) + changed
    assert read_stamp(text) is (Stamp.UNEDITED if changed == body else Stamp.EDITED)


@pytest.mark.parametrize(
    "text",
    [
        stamp(BODY) + "# mine\n",
        "# a line above\n" + stamp(BODY),
        stamp(BODY).replace("\n", "\r\n"),
        stamp(BODY).replace("sha256:", "sha256:0", 1),
        "# Written by servingrepo\n" + BODY,
        stamp(BODY).split("\n", 1)[0],
    ],
    ids=["added", "moved", "line-ends", "digest", "no-digest", "header-only"],
)
def test_read_stamp_when_edited_then_edited(text: str) -> None:
    assert read_stamp(text) is Stamp.EDITED


@pytest.mark.parametrize("text", ["", BODY, "# models of team A\n" + BODY])
def test_read_stamp_when_no_header_then_not_ours(text: str) -> None:
    assert read_stamp(text) is Stamp.FOREIGN
