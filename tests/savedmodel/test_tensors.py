"""Every tensor against its checksum: all layouts that TensorFlow writes, and each way to break one."""

from __future__ import annotations

import os
import random
import shutil
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.protos import types_pb2
from servingrepo.savedmodel.bundle import BundleIndex, TensorEntry
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.layouts import BrokenLayout, Strings, Variants
from servingrepo.savedmodel.tensors import Tensors, misfits
from servingrepo.savedmodel.variables import read_variables
from servingrepo.storage.hashing import hash_tree
from servingrepo.storage.pipeline import END
from servingrepo.testing.bundles import write_bundle
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.savedmodel.values import TensorCheck

DATA = "variables/variables.data-00000-of-00001"
CORPUS = [
    "serving/saved_model_half_plus_two_tf2_cpu/00000123",  # its index is compressed by snappy
    "serving/saved_model_half_plus_two_mkl/00000123",
    "serving/saved_model_counter/00000123",
    "tfx/estimator_run/export/chicago-taxi/1646034756",
    "tfx/pusher_model_push/1584391735",
    "tfx/transform_fn",
]


def check(path: Path) -> TensorCheck:
    index = read_variables(path).index
    assert index is not None
    tensors = Tensors(index)
    hash_tree(path, watch=tensors.watch)
    return tensors.result()


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.mark.tf
def test_tensors_that_tensorflow_wrote_are_whole_in_every_layout(tensorflow_models: Path) -> None:
    found = check(tensorflow_models / "m")
    assert (found.checked, found.damaged, found.unreferenced) == (found.tensors, (), {})
    assert found.tensors == 13
    found = check(tensorflow_models / "loose")
    # list, texts, words, plain and two slices, in two shards
    assert (found.tensors, found.checked, found.damaged) == (6, 6, ())
    index = read_variables(tensorflow_models / "loose").index
    assert index is not None
    assert (index.num_shards, index.unsliced) == (2, ())
    assert {"sliced", "list"} <= index.names


@pytest.mark.tf
def test_a_bit_flipped_anywhere_in_what_tensorflow_wrote_names_the_tensor(
    tensorflow_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(tensorflow_models / "loose", tmp_path / "loose")
    index = read_variables(tmp_path / "loose").index
    assert index is not None
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for entry in index.entries:
        file = tmp_path / "loose/variables" / index.shards[entry.shard]
        for _ in range(10):
            bit = chance.randrange(entry.offset * 8, entry.end * 8)
            flip(file, bit)
            (damage,) = check(tmp_path / "loose").damaged
            assert (damage.tensor, damage.offset) == (entry.name, entry.offset)
            flip(file, bit)
    assert not check(tmp_path / "loose").damaged


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS)
def test_tensors_of_models_of_others_are_whole(corpus: Path, name: str) -> None:
    found = check(corpus / name)
    assert found.tensors == found.checked > 0
    assert (found.damaged, found.unreferenced) == ((), {})


def test_damage_names_tensor_file_and_offset(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True)
    flip(path / DATA, 37)
    (damage,) = check(path).damaged
    assert str(damage) == (
        f"tensor slope (float32, 4 bytes at offset 4 of {DATA}): "
        "its bytes do not have the checksum that variables.index has for it"
    )
    (defect,) = check(path).defects()
    assert (defect.slug, defect.kind) == ("tensor-damaged", "damaged")


def test_bytes_of_no_tensor_are_counted(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True)
    with (path / DATA).open("ab") as stream:
        stream.write(b"more")
    found = check(path)
    assert (found.damaged, found.unreferenced) == ((), {DATA: 4})


def test_a_file_that_is_cut_short_damages_the_tensors_behind_the_cut(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True)
    os.truncate(path / DATA, 6)
    (damage,) = check(path).damaged
    assert (damage.tensor, damage.reason) == ("slope", "its data file ends before it does")


def test_a_file_that_is_missing_leaves_its_tensors_unchecked(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True)
    (path / DATA).unlink()
    found = check(path)
    assert (found.tensors, found.checked) == (2, 0)
    assert "shard-missing" in [one.slug for one in inspect_export(path).defects]


def test_hundreds_of_damaged_tensors_are_told_in_bounded_length(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    write_bundle(tmp_path / "variables/variables", {f"v{n:03}": 1.0 for n in range(250)})
    (tmp_path / DATA).write_bytes(b"\0" * 1000)
    found = check(tmp_path)
    assert (len(found.damaged), found.damaged_count) == (100, 250)
    assert "150 more" in found.defects()[-1].message


def index_of(*entries: TensorEntry, big_endian: bool = False) -> BundleIndex:
    return BundleIndex(
        num_shards=1,
        big_endian=big_endian,
        entries=tuple(sorted(entries, key=lambda one: (one.shard, one.offset, one.size))),
        names=frozenset(one.name for one in entries),
        unsliced=(),
    )


def entry(name: str, offset: int, size: int, **more: int | None) -> TensorEntry:
    given = {"dtype": types_pb2.DT_FLOAT, "elements": size // 4, "crc": 0, **more}
    return TensorEntry(name=name, shard=0, offset=offset, size=size, **given)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (entry("b", 4, 8), "overlaps tensor a"),
        (entry("b", 8, 8, elements=3), "needs 12 bytes"),
        (entry("b", 8, 8, elements=None), "shape is none"),
        (entry("b", 8, 8, elements=1 << 62), "needs"),
        (entry("b", 8, 8, dtype=types_pb2.DT_STRING, elements=5), "needs 9 bytes at least"),
        (entry("b", 8, 8, dtype=types_pb2.DT_VARIANT, elements=2), "needs 10 bytes at least"),
    ],
)
def test_an_impossible_place_of_a_tensor_is_found_early(wrong: TensorEntry, reason: str) -> None:
    index = index_of(entry("a", 0, 8), wrong)
    (found,) = misfits(index)
    assert found.tensor == "b"
    assert reason in found.reason
    tensors = Tensors(index)
    shown = tensors.watch(DATA)
    assert shown is not None
    shown(memoryview(b"\0" * 20))
    shown(END)
    assert "b" in [one.tensor for one in tensors.result().damaged]


def test_a_tensor_that_lies_within_a_longer_one_overlaps_it() -> None:
    inside = [entry("b", 0, 8), entry("c", 4, 4), entry("d", 8, 4), entry("a", 0, 100)]
    assert {one.tensor for one in misfits(index_of(*inside))} == {"a", "c", "d"}


def test_strings_of_a_machine_with_the_other_byte_order_are_not_checked() -> None:
    words = entry("w", 0, 5, dtype=types_pb2.DT_STRING, elements=1)
    tensors = Tensors(index_of(words, entry("f", 5, 4), big_endian=True))
    shown = tensors.watch(DATA)
    assert shown is not None
    shown(memoryview(b"\0" * 9))
    shown(END)
    found = tensors.result()
    assert (found.tensors, found.checked, found.unreferenced) == (2, 1, {})


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def strings_as_written(texts: list[bytes]) -> tuple[bytes, int]:
    """tensor_bundle.cc: WriteStringTensor."""
    crc = 0
    for one in texts:
        crc = crc32c(struct.pack("<I", len(one)), start=crc)
    stored = struct.pack("<I", mask(crc))
    crc = crc32c(stored + b"".join(texts), start=crc)
    return b"".join(varint(len(one)) for one in texts) + stored + b"".join(texts), crc


def variants_as_written(values: list[bytes]) -> tuple[bytes, int]:
    """tensor_bundle.cc: WriteVariantTensor."""
    crc, data = 0, b""
    for one in values:
        crc = crc32c(struct.pack("<Q", len(one)) + one, start=crc)
        stored = struct.pack("<I", mask(crc))
        crc = crc32c(stored, start=crc)
        data += varint(len(one)) + one + stored
    return data, crc


values = st.lists(st.one_of(st.binary(max_size=20), st.binary(min_size=120, max_size=300)))


def feed(layout: Strings | Variants, data: bytes, cuts: list[int]) -> int:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for first, last in pairwise(places):
        layout.feed(data[first:last])
    return layout.finish()


@given(values, st.lists(st.integers(0, 10_000), max_size=8))
def test_layouts_have_their_checksum_however_the_bytes_come(
    texts: list[bytes], cuts: list[int]
) -> None:
    data, crc = strings_as_written(texts)
    assert feed(Strings(len(texts)), data, cuts) == crc
    data, crc = variants_as_written(texts)
    assert feed(Variants(len(texts)), data, cuts) == crc


@given(
    st.sampled_from([Strings, Variants]),
    st.integers(0, 1 << 62),
    st.binary(max_size=200),
    st.lists(st.integers(0, 200), max_size=3),
)
def test_layouts_of_any_bytes_are_broken_and_nothing_worse(
    kind: type[Strings | Variants], elements: int, data: bytes, cuts: list[int]
) -> None:
    try:
        crc = feed(kind(elements), data, cuts)
    except BrokenLayout:
        return
    assert 0 <= crc < 1 << 32


@pytest.mark.parametrize("kind", [Strings, Variants])
def test_a_length_beyond_64_bits_is_broken(kind: type[Strings | Variants]) -> None:
    with pytest.raises(BrokenLayout, match="64 bits"):
        kind(1).feed(b"\xff" * 9 + b"\x7f")


def test_a_file_in_many_chunks_and_a_thread_beside_gives_the_same(tmp_path: Path) -> None:
    """Past 32 MiB two threads share the work, and tensors lie across their chunks."""
    size = 33 << 20
    data = random.Random(1).randbytes(size)  # noqa: S311 - repeatable, not secret
    (tmp_path / "variables").mkdir()
    (tmp_path / DATA).write_bytes(data)
    places = [0, 5, 1 << 20, (1 << 20) + 1, 7_000_001, size - 3, size]
    entries = [
        entry(
            f"t{first}",
            first,
            last - first,
            dtype=types_pb2.DT_UINT8,
            elements=last - first,
            crc=crc32c(data[first:last]),
        )
        for first, last in pairwise(places)
    ]
    tensors = Tensors(index_of(*entries))
    whole = hash_tree(tmp_path, watch=tensors.watch)
    assert whole == hash_tree(tmp_path)
    assert (tensors.result().checked, tensors.result().damaged) == (6, ())
