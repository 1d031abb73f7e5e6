"""The index of a tensor bundle, plain, compressed and broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.savedmodel.bundle import BadIndex, read_index
from servingrepo.savedmodel.crc32c import crc32c, mask, unmask
from servingrepo.savedmodel.snappy import BadSnappy, decompress
from servingrepo.testing.bundles import _block, _handle, write_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_read_index_of_two_shards_says_how_long_each_must_be(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v", {"a": 1.0, "b": 2.0, "c": 3.0}, num_shards=2)
    index = read_index((tmp_path / "v.index").read_bytes())
    assert index.num_shards == 2
    assert index.shard_bytes == {0: 8, 1: 4}
    assert index.names == {"a", "b", "c"}


@pytest.mark.corpus
def test_read_index_that_is_compressed_with_snappy_is_read_all_the_same(corpus: Path) -> None:
    folder = corpus / "serving/saved_model_half_plus_two_tf2_cpu/00000123/variables"
    index = read_index((folder / "variables.index").read_bytes())
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" in index.names
    assert index.shard_bytes == {0: (folder / "variables.data-00000-of-00001").stat().st_size}


def test_read_index_that_names_a_block_twice_is_bad() -> None:
    block = _block({})
    index = _block({b"a": _handle(0, len(block) - 5), b"b": _handle(0, len(block) - 5)})
    handles = _handle(0, len(block) - 5) + _handle(len(block), len(index) - 5)
    footer = handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    with pytest.raises(BadIndex, match="blocks are not in order"):
        read_index(block + index + footer)


@given(st.binary(max_size=300))
def test_read_index_of_any_bytes_is_bad_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(BadIndex):
        read_index(data)


@given(data=st.data())
def test_read_index_cut_anywhere_is_bad(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder / "v", {"a": 1.0, "b": 2.0})
    content = (folder / "v.index").read_bytes()
    with pytest.raises(BadIndex):
        read_index(content[: data.draw(st.integers(0, len(content) - 1))])


def test_crc32c_of_known_values_is_as_in_rfc_3720() -> None:
    assert crc32c(b"\0" * 32) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", start=crc32c(b"12345")) == 0xE3069283
    assert mask(0) == 0xA282EAD8


@given(st.integers(0, 0xFFFFFFFF))
def test_unmask_undoes_mask(crc: int) -> None:
    assert unmask(mask(crc)) == crc


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        (b"\x00", b""),
        (b"\x05\x10hello", b"hello"),
        (b"\x0a\x04ab\x11\x02", b"ab" + b"ab" * 4),
        (b"\x09\x00a\x1e\x01\x00", b"a" * 9),
    ],
)
def test_decompress_of_literals_and_copies_gives_what_they_stand_for(
    compressed: bytes, plain: bytes
) -> None:
    assert decompress(compressed, limit=100) == plain


@pytest.mark.parametrize(
    "compressed", [b"", b"\x05\x10hel", b"\x04\x01\x05", b"\xff\xff\xff\xff\x0f", b"\x02\x00a"]
)
def test_decompress_of_something_else_is_refused(compressed: bytes) -> None:
    with pytest.raises(BadSnappy):
        decompress(compressed, limit=100)
