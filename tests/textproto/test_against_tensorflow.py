"""Our reader of text against protobuf's own in C++, which TensorFlow's library has for saved_model.pbtxt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from servingrepo.protos import meta_graph_pb2, saved_model_pb2
from servingrepo.textproto import BadText, parse
from tests.textproto.generated import (
    BYTES,
    DECIMALS,
    INTEGERS,
    NO_DECIMALS,
    NO_INTEGERS,
    NO_PIECES,
    NO_SPACE,
    NO_TRUTHS,
    PIECES,
    SPACE,
    TRUTHS,
    Maker,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READER = Path(__file__).with_name("tensorflow_reader.py")
EACH = 1200
"""Texts of each kind."""


def tensorflow_says(texts: list[bytes], folder: Path) -> list[dict[str, bytes] | None]:
    (folder / "texts").write_bytes(msgspec.msgpack.encode(texts))
    with (folder / "log").open("w") as log:  # some lines for each text
        subprocess.run(
            [sys.executable, str(READER), str(folder / "texts"), str(folder / "answers")],
            check=True,
            stderr=log,
        )
    return msgspec.msgpack.decode(
        (folder / "answers").read_bytes(), type=list[dict[str, bytes] | None]
    )


def we_say(text: bytes) -> dict[str, bytes] | str | None:
    """Return what our reader made of it; a word where it says that Python cannot hold what C++ can."""
    message = saved_model_pb2.SavedModel()
    try:
        parse(text.decode(errors="surrogateescape"), message)
    except BadText as error:
        is_only_bytes = all("is not UTF-8" in one.message for one in error.mistakes)
        return "not UTF-8" if is_only_bytes else None
    graphs = [one for one in message.meta_graphs if list(one.meta_info_def.tags) == ["serve"]]
    return {
        key: signature.SerializeToString(deterministic=True)
        for graph in graphs
        for key, signature in graph.signature_def.items()
    }


def disagreements(texts: Iterable[bytes], folder: Path) -> Iterator[tuple[bytes, Any, Any]]:
    texts = list(texts)
    for text, theirs in zip(texts, tensorflow_says(texts, folder), strict=True):
        ours = we_say(text)
        if ours == "not UTF-8":
            ours = None if theirs is None else theirs
        if ours != theirs:
            yield text, ours, theirs


def served(fields: str | bytes) -> bytes:
    """Put a SignatureDef's fields where TensorFlow hands them out again."""
    inner = fields if isinstance(fields, bytes) else fields.encode()
    return (
        b"meta_graphs{ meta_info_def{tags:'serve'} signature_def{ key:'s' value{ " + inner + b" }}}"
    )


def each_of_a_kind() -> Iterator[bytes]:
    """One text for each way to write a value, a string's piece and white space, right and wrong."""
    tensor = "defaults{{ key:'d' value{{ {} }} }}"
    for text in (*INTEGERS, *NO_INTEGERS):
        for field in ("int_val", "int64_val", "uint32_val", "uint64_val", "dtype", "float_val"):
            yield served(tensor.format(f"{field}: {text}"))
    for text in (*DECIMALS, *NO_DECIMALS):
        for field in ("float_val", "double_val", "int64_val"):
            yield served(tensor.format(f"{field}: {text} {field}: [{text}]"))
    for text in (*TRUTHS, *NO_TRUTHS):
        yield served(tensor.format(f"tensor_shape {{ unknown_rank: {text} }} bool_val: {text}"))
    for piece in (*PIECES, *NO_PIECES, *BYTES):
        raw = piece if isinstance(piece, bytes) else piece.encode()
        for quote in (b"'", b'"'):
            made = b"a" + raw + b"b"
            yield served(b"method_name: " + quote + made + quote)
            yield served(b"inputs{ key: 'i' value{ name: " + quote + made + quote + b" 'c' } }")
            yield served(b"defaults{ key:'d' value{ string_val: " + quote + made + quote + b" } }")
    for space in (*SPACE, *NO_SPACE):
        yield served(f"method_name:{space}'m'{space}inputs{space}{{ key:'k' }}")
        yield space.encode() + served("")
        yield served("") + space.encode()
        yield served(f"method_name: '{space}' # {space}\n")
    yield served("method_name: " + "'a' " * 50)


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_every_kind_of_value_is_judged_as_tensorflow_does(tmp_path: Path) -> None:
    assert list(disagreements(each_of_a_kind(), tmp_path)) == []


@pytest.mark.tf
@pytest.mark.timeout(300)
@pytest.mark.parametrize("wrong", [0.003, 0.03])
def test_texts_by_chance_are_judged_as_tensorflow_does(tmp_path: Path, wrong: float) -> None:
    fields = {field.name for field in meta_graph_pb2.MetaGraphDef.DESCRIPTOR.fields}
    with_values = Maker(1, wrong=wrong, without=fields - {"signature_def", "collection_def"})
    before, after = b"meta_graphs { meta_info_def { tags: 'serve' } ", b"}"
    texts = [
        with_values.text(meta_graph_pb2.MetaGraphDef.DESCRIPTOR, before=before, after=after)
        for _ in range(EACH)
    ]
    # What these fields say would have to fit together, or loading would end otherwise.
    whole = Maker(2, wrong=wrong, without={"graph_def", "saver_def", "object_graph_def", "tags"})
    texts += [whole.text(saved_model_pb2.SavedModel.DESCRIPTOR) for _ in range(EACH)]
    assert list(disagreements(texts, tmp_path)) == []
