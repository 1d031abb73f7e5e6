"""Exports whose messages are well-formed and wrong: fields changed, doubled and taken away, checksums made right.

Flipped bytes hardly ever get past a parser or a block's checksum; these do.
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingrepo.protos import saved_model_pb2, tensor_bundle_pb2
from servingrepo.repository.verification import verify_path
from servingrepo.savedmodel.crc32c import mask
from servingrepo.savedmodel.variables import read_variables
from servingrepo.testing.exports import write_export
from tests.savedmodel.hostile import block, entries, index

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "",
    "../../x",
    "a\0b",
    "\n",
    "é",
    "x" * 2000,
    "__saved_model_init_op",
    "^a",
    ":0",
    "a:0:0",
    "init",
]
NUMBERS = [0, 1, -1, 7, 21, 101, 255, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, -(1 << 63)]


def break_one_thing(message: Any, chance: random.Random) -> None:
    """Walk down a message at random and change what is there in the end."""
    present = [field for field, _ in message.ListFields()]
    field = chance.choice(present or list(message.DESCRIPTOR.fields))
    inner = field.message_type
    value = getattr(message, field.name)
    if not present or (chance.random() < 0.1 and inner is None):
        message.ClearField(field.name)
    elif inner is not None and inner.GetOptions().map_entry:
        key = chance.choice(sorted(value))
        if chance.random() < 0.2:
            del value[key]
        elif inner.fields_by_name["value"].message_type is not None:
            break_one_thing(value[key], chance)
    elif hasattr(value, "extend"):
        _break_list(value, chance, is_message=inner is not None, field=field)
    elif inner is not None:
        break_one_thing(value, chance)
    else:
        setattr(message, field.name, _scalar(field, chance))


def _break_list(value: Any, chance: random.Random, *, is_message: bool, field: Any) -> None:
    place = chance.randrange(len(value))
    what = chance.random()
    if what < 0.15:
        del value[place]
    elif what < 0.3:
        value.extend([value[place]])
    elif is_message:
        break_one_thing(value[place], chance)
    else:
        value[place] = _scalar(field, chance)


def _scalar(field: Any, chance: random.Random) -> Any:
    if field.type == field.TYPE_BYTES:
        return chance.choice(TEXTS).encode()
    if field.cpp_type == field.CPPTYPE_STRING:
        return chance.choice(TEXTS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type in {field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT}:
        return float("nan")
    bits = 31 if field.cpp_type in {field.CPPTYPE_INT32, field.CPPTYPE_ENUM} else 63
    number = max(-(1 << bits), min((1 << bits) - 1, chance.choice(NUMBERS)))
    unsigned = field.cpp_type in {field.CPPTYPE_UINT32, field.CPPTYPE_UINT64}
    return abs(number) & 0x7FFFFFFF if unsigned else number


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with something of everything."""
    path = tmp_path_factory.mktemp("whole") / "1"
    return write_export(path, variables=True, fingerprint=True, assets={"words": b"a\n"})


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 5))
def test_a_graph_with_something_wrong_in_it_gets_a_verdict(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, times: int
) -> None:
    path = shutil.copytree(whole, tmp_path_factory.mktemp("graph") / "1")
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    before = (path / "saved_model.pb").read_bytes()
    message = saved_model_pb2.SavedModel.FromString(before)
    for _ in range(times):
        break_one_thing(message, chance)
    after = message.SerializeToString(deterministic=True)
    (path / "saved_model.pb").write_bytes(after)
    found = verify_path(path)
    assert not found.ok or message == saved_model_pb2.SavedModel.FromString(before)
    (path / "fingerprint.pb").unlink()
    assert any("saved_model.pb" in line for line in verify_path(path).not_checked)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32))
def test_another_index_is_whole_if_all_tensors_were_compared(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    path = shutil.copytree(whole, tmp_path_factory.mktemp("index") / "1")
    (path / "fingerprint.pb").unlink()
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    messages = index_of(path)
    break_one_thing(messages[chance.choice(sorted(messages))], chance)
    pairs = [(key, one.SerializeToString()) for key, one in sorted(messages.items())]
    (path / "variables/variables.index").write_bytes(index(block(entries(pairs))))
    found = verify_path(path)
    if found.ok:
        assert found.tensors is not None
        assert found.tensors.checked == found.tensors.tensors == len(messages) - 1


def index_of(path: Path) -> dict[bytes, Any]:
    """Return the header and the entries of an export's index by key."""
    found = read_variables(path).index
    assert found is not None
    messages = {b"": tensor_bundle_pb2.BundleHeaderProto(num_shards=found.num_shards)}
    for one in found.entries:
        entry = tensor_bundle_pb2.BundleEntryProto(
            dtype=one.dtype, offset=one.offset, size=one.size
        )
        entry.crc32c = mask(one.crc)
        if one.elements != 1:
            entry.shape.dim.add(size=one.elements)
        messages[one.name.encode()] = entry
    return messages
