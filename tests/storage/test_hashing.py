from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from blake3 import blake3

from servingrepo.errors import StorageFailed
from servingrepo.storage.hashing import CHUNK, content_digest, hash_file, hash_tree
from servingrepo.storage.manifest import Manifest, compare

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A published version with files, an empty file and an empty directory."""
    version = tmp_path / "1"
    (version / "variables").mkdir(parents=True)
    (version / "assets").mkdir()
    (version / "saved_model.pb").write_bytes(b"graph")
    (version / "variables" / "data").write_bytes(b"12345678")
    (version / "empty").write_bytes(b"")
    return version


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_a_file_is_hashed_whole_whatever_its_size(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    entry = hash_file(tmp_path / "f", "f")
    assert (entry.size, entry.hash) == (size, blake3(data).hexdigest())


def test_a_tree_has_its_files_and_directories_sorted(version: Path) -> None:
    manifest = hash_tree(version)
    assert [one.path for one in manifest.files] == ["empty", "saved_model.pb", "variables/data"]
    assert manifest.directories == ("assets", "variables")
    assert manifest.size == 13


def test_an_unchanged_tree_has_no_differences(version: Path) -> None:
    difference = compare(hash_tree(version), hash_tree(version))
    assert not difference
    assert difference.lines() == []


def test_differences_are_three_lists(version: Path) -> None:
    before = hash_tree(version)
    (version / "saved_model.pb").write_bytes(b"GRAPH")
    (version / "empty").unlink()
    (version / "new").write_bytes(b"")
    difference = compare(before, hash_tree(version))
    assert difference
    assert (difference.extra, difference.missing, difference.changed) == (
        ("new",),
        ("empty",),
        ("saved_model.pb",),
    )
    assert difference.lines() == ["missing: empty", "changed: saved_model.pb", "extra: new"]


def test_empty_directories_count(version: Path) -> None:
    before = hash_tree(version)
    (version / "assets").rmdir()
    (version / "later").mkdir()
    difference = compare(before, hash_tree(version))
    assert (difference.extra, difference.missing) == (("later",), ("assets",))


def test_a_file_in_the_place_of_a_directory_is_changed(version: Path) -> None:
    before = hash_tree(version)
    (version / "assets").rmdir()
    (version / "assets").write_bytes(b"")
    assert compare(before, hash_tree(version)).changed == ("assets",)


def test_a_link_to_the_very_same_bytes_is_changed(version: Path, tmp_path: Path) -> None:
    before = hash_tree(version)
    elsewhere = tmp_path / "elsewhere"
    (version / "variables" / "data").rename(elsewhere)
    (version / "variables" / "data").symlink_to(elsewhere)
    assert compare(before, hash_tree(version)).changed == ("variables/data",)


def test_a_directory_swapped_for_a_link_to_its_copy_is_noticed(
    version: Path, tmp_path: Path
) -> None:
    before = hash_tree(version)
    (version / "variables").rename(tmp_path / "elsewhere")
    (version / "variables").symlink_to(tmp_path / "elsewhere")
    difference = compare(before, hash_tree(version))
    assert difference.changed == ("variables",)
    assert difference.missing == ("variables/data",)


@pytest.mark.timeout(20)
def test_a_fifo_is_listed_and_not_read(version: Path) -> None:
    before = hash_tree(version)
    os.mkfifo(version / "pipe")
    assert compare(before, hash_tree(version)).extra == ("pipe",)


def test_a_name_that_is_not_utf8_can_be_encoded(version: Path) -> None:
    before = hash_tree(version)
    (version / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    (version / os.fsdecode(b"\xff")).mkdir()
    manifest = hash_tree(version)
    difference = compare(before, manifest)
    assert len(difference.extra) == 2
    assert all(one.isprintable() for one in difference.extra)
    assert content_digest(manifest) != content_digest(before)
    assert msgspec.json.encode(manifest)


def test_a_manifest_survives_json(version: Path) -> None:
    manifest = hash_tree(version)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_a_tree_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="gone"):
        hash_tree(tmp_path / "gone")
