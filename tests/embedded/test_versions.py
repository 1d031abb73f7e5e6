from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.versions import (
    VersionPolicy,
    discover,
    join_path,
    parse_version,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("00000123", 123),
        ("0", 0),
        ("-1", -1),
        ("+1", 1),
        (" 5", 5),
        ("5 ", 5),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("1_000", None),
        ("1.0", None),
        ("0x1", None),
        ("1.tmp", None),
        ("tmp-1", None),
        (".1", None),
        ("1 2", None),
        ("٣", None),
    ],
)
def test_parse_version(name: str, version: int | None) -> None:
    assert parse_version(name) == version


def test_join_path_puts_one_slash_and_normalises_nothing() -> None:
    assert join_path("/a/b", "1") == "/a/b/1"
    assert join_path("/a//b/", "1") == "/a//b/1"


def found(base: Path, policy: VersionPolicy) -> list[tuple[int, str]]:
    result = discover("m", str(base), policy)
    assert not isinstance(result, Status)
    return [(one.id.version, one.path.removeprefix(f"{base}/")) for one in result[0]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("1", "3", "007", ".staging", "x", "-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    (tmp_path / "6").symlink_to(tmp_path / "gone")
    return tmp_path


def test_discover_all_takes_files_and_broken_links_too(base: Path) -> None:
    numbers = sorted(found(base, VersionPolicy("all")))
    assert numbers == [(-2, "-2"), (1, "1"), (3, "3"), (5, "5"), (6, "6"), (7, "007")]


def test_discover_latest(base: Path) -> None:
    assert found(base, VersionPolicy()) == [(7, "007")]
    assert found(base, VersionPolicy("latest", 2)) == [(7, "007"), (6, "6")]
    assert found(base, VersionPolicy("latest", 0)) == [(7, "007")]


def test_discover_specific_fast_path_keeps_order_and_duplicates(base: Path) -> None:
    assert found(base, VersionPolicy("specific", specific=(3, 1, 3))) == [
        (3, "3"),
        (1, "1"),
        (3, "3"),
    ]


def test_discover_specific_without_the_plain_name_lists_the_directory(base: Path) -> None:
    assert found(base, VersionPolicy("specific", specific=(7, 1))) == [(1, "1"), (7, "007")]


def test_discover_specific_missing_version_is_only_a_warning(base: Path) -> None:
    result = discover("m", str(base), VersionPolicy("specific", specific=(1, 4)))
    assert not isinstance(result, Status)
    versions, warnings = result
    assert [one.id.version for one in versions] == [1]
    assert warnings[0].startswith("Version 4 of servable m, which was requested to be served")


def test_discover_specific_nothing_means_nothing(base: Path) -> None:
    result = discover("m", str(base), VersionPolicy("specific"))
    assert result == ([], ["No specific versions requested for servable m."])


def test_discover_two_names_of_one_number(tmp_path: Path) -> None:
    for name in ("2", "02", "002"):
        (tmp_path / name).mkdir()
    assert found(tmp_path, VersionPolicy()) == [(2, "2")]
    assert found(tmp_path, VersionPolicy("all")) == [(2, "002"), (2, "02"), (2, "2")]


def test_discover_missing_base_path_is_an_error(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert discover("m", str(gone), VersionPolicy()) == Status(
        Code.INVALID_ARGUMENT,
        f"Could not find base path {gone} for servable m with error NOT_FOUND: {gone} not found",
    )


def test_discover_base_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = discover("m", str(tmp_path / "file"), VersionPolicy())
    assert result == Status(Code.FAILED_PRECONDITION, f"{tmp_path}/file; Not a directory")


def test_discover_file_uri_and_other_schemes(tmp_path: Path) -> None:
    (tmp_path / "4").mkdir()
    result = discover("m", f"file://{tmp_path}", VersionPolicy())
    assert not isinstance(result, Status)
    assert result[0][0].path == f"file://{tmp_path}/4"
    refused = discover("m", "s3://bucket/m", VersionPolicy())
    assert isinstance(refused, Status)
    assert "File system scheme 's3' not implemented" in refused.message


def test_discover_empty_base_path_warns(tmp_path: Path) -> None:
    result = discover("m", str(tmp_path), VersionPolicy())
    assert not isinstance(result, Status)
    assert result[0] == []
    assert "No versions of servable m found under base path" in result[1][0]
