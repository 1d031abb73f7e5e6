from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import (
    NewerFormat,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
)
from servingrepo.repository.records import (
    BadMark,
    Format,
    ModelState,
    RecordHead,
    VersionRecord,
    decode,
    encode,
    load,
)

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release

STATE = ModelState(
    name="m",
    highest=3,
    bad={2: BadMark(digest="blake3:00", reason="r", user="eva", host="h", time="t")},
)


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(encode(STATE))
    assert load(tmp_path / "m.json", ModelState) == STATE


def test_every_record_has_a_schema_and_ends_in_a_newline() -> None:
    for value in (STATE, Format(server_root="/models", created="t", created_by="x")):
        assert msgspec.json.decode(encode(value))["schema"] == 1
        assert encode(value).endswith(b"}\n")


def test_the_record_of_a_version_survives_its_file(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    path = repo.value.layout.record("m", 1)
    record = load(path, VersionRecord)
    assert record is not None
    assert encode(record) == path.read_bytes()
    head = load(path, RecordHead)
    assert head is not None
    assert (head.version, head.digest, head.size) == (1, record.digest, record.manifest.size)


def test_a_file_that_is_not_there_is_no_record(tmp_path: Path) -> None:
    assert load(tmp_path / "m.json", ModelState) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"schema":1,"name":7}',
        b'{"schema":"1","name":"m"}',
        b'{"schema":1,"name":"m","bad":{"x":{}}}',
        encode(STATE)[:-20],
        bytes(100),
    ],
)
def test_a_damaged_file_is_reported_with_its_path(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(RepositoryDamaged, match=str(tmp_path / r"m\.json")) as caught:
        decode(data, ModelState, tmp_path / "m.json")
    assert caught.value.hint


@pytest.mark.parametrize("data", [b'{"schema":2}', b'{"schema":99,"name":[],"new":1}'])
def test_a_file_of_a_newer_format_is_refused_as_such(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NewerFormat, match="knows formats up to 1"):
        decode(data, ModelState, tmp_path / "m.json")


def test_fields_that_are_unknown_are_not_an_error(tmp_path: Path) -> None:
    value = msgspec.json.decode(encode(STATE)) | {"colour": "blue"}
    assert decode(msgspec.json.encode(value), ModelState, tmp_path) == STATE


def test_a_directory_in_the_place_of_a_record_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "m.json").mkdir()
    with pytest.raises(StorageFailed):
        load(tmp_path / "m.json", ModelState)


def newer(path: Path) -> None:
    value = msgspec.json.decode(path.read_bytes()) | {"schema": 2}
    path.write_bytes(msgspec.json.encode(value))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


@pytest.mark.parametrize("what", ["state", "record"])
@pytest.mark.parametrize(("spoil", "kind"), [(newer, NewerFormat), (damage, RepositoryDamaged)])
def test_a_spoilt_file_stops_writers_before_they_write(
    what: str,
    spoil: object,
    kind: type[ServingRepoError],
    repo: OpenRepository,
    release: Release,
) -> None:
    release(1.0)
    release(2.0)
    layout = repo.value.layout
    path = layout.state("m") if what == "state" else layout.record("m", 1)
    assert callable(spoil)
    spoil(path)
    config, history = layout.config.read_bytes(), layout.history.read_bytes()
    with pytest.raises(kind, match=path.name):
        repo.rollback("m")
    assert (layout.config.read_bytes(), layout.history.read_bytes()) == (config, history)
    assert list(layout.journal.iterdir()) == []
