"""Exports made to hurt whoever reads them, by name."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from servingrepo.protos import saved_model_pb2, tensor_bundle_pb2, types_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.testing.exports import saved_model, write_export
from tests.savedmodel.graphs import call, changed, function, node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAGIC = bytes.fromhex("57fb808b247547db")
HUGE = 1 << 63


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def block(content: bytes, *, kind: int = 0) -> bytes:
    """Return a block as it lies in the file, whatever its content."""
    body = content + bytes([kind])
    return body + struct.pack("<I", mask(crc32c(body)))


def entries(pairs: list[tuple[bytes, bytes]], *, shared: int = 0) -> bytes:
    body = b"".join(
        varint(shared if number else 0) + varint(len(key)) + varint(len(value)) + key + value
        for number, (key, value) in enumerate(pairs)
    )
    return body + struct.pack("<II", 0, 1)


def snappy(data: bytes) -> bytes:
    """Compress well what repeats its first 64 bytes."""
    first = data[:64]
    parts = [varint(len(data)), bytes([60 << 2, 63]), first]
    parts += [b"\xfe\x40\x00"] * (len(data) // 64 - 1)
    return b"".join(parts)


def index(*blocks: bytes) -> bytes:
    """Return an index of data blocks that are given as they lie in the file."""
    handles, at = [], 0
    for number, one in enumerate(blocks):
        handles.append((b"%08d" % number, varint(at) + varint(len(one) - 5)))
        at += len(one)
    meta, top = block(entries([])), block(entries(handles))
    ends = varint(at) + varint(len(meta) - 5) + varint(at + len(meta)) + varint(len(top) - 5)
    return b"".join(blocks) + meta + top + ends.ljust(40, b"\0") + MAGIC


def header(num_shards: int = 1) -> tuple[bytes, bytes]:
    return b"", tensor_bundle_pb2.BundleHeaderProto(num_shards=num_shards).SerializeToString()


def tensor(*dims: int, **fields: int) -> bytes:
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=1, **fields)
    for size in dims:
        entry.shape.dim.add(size=size)
    data: bytes = entry.SerializeToString()
    return data


def with_index(path: Path, data: bytes) -> None:
    write_export(path, variables=True)
    (path / "variables/variables.index").write_bytes(data)


def with_entry(path: Path, content: bytes, *, num_shards: int = 1) -> None:
    with_index(path, index(block(entries([header(num_shards), (b"slope", content)]))))


def nested(path: Path) -> None:
    """Messages in messages, 10,000 deep: an attribute's function's attribute's function and so on."""
    write_export(path)
    data = b""
    for _ in range(10_000):
        value = b"\x52" + varint(len(data)) + data  # AttrValue.func
        entry = b"\x0a\x01a\x12" + varint(len(value)) + value
        data = b"\x12" + varint(len(entry)) + entry  # NameAttrList.attr
    node = b"\x2a" + varint(len(data) + 5) + b"\x0a\x01a\x12" + varint(len(data)) + data
    graph = b"\x0a" + varint(len(node)) + node
    meta = b"\x12" + varint(len(graph)) + graph
    (path / "saved_model.pb").write_bytes(b"\x12" + varint(len(meta)) + meta)


def nested_text(path: Path) -> None:
    path.mkdir()
    opening = "meta_graphs { graph_def { node { attr { value { func { "
    deeper = "attr { value { func { " * 10_000
    (path / "saved_model.pbtxt").write_text(opening + deeper)


def many_signatures(path: Path) -> None:
    message = saved_model()
    definitions = message.meta_graphs[0].signature_def
    for number in range(100_000):
        definitions[f"s{number}"].method_name = "tensorflow/serving/predict"
    path.mkdir()
    (path / "saved_model.pb").write_bytes(message.SerializeToString())


def asset_names(path: Path) -> None:
    write_export(path)
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for name in (
        "../../etc/passwd",
        "a\0b",
        "a\nb",
        "/etc/passwd",
        "\x1b[31m",
        "x" * 5000,
        "..",
        "",
    ):
        asset = message.meta_graphs[0].asset_file_def.add(filename=name)
        asset.tensor_info.name = "x:0"
    (path / "saved_model.pb").write_bytes(message.SerializeToString())


def asset_not_utf8(path: Path) -> None:
    write_export(path, assets={"words.txt": b"a\n"})
    data = (path / "saved_model.pb").read_bytes()
    (path / "saved_model.pb").write_bytes(data.replace(b"words.txt", b"words\xff\xfe\xfdt"))


def long_keys(path: Path) -> None:
    """Each key repeats the 60,000 bytes of the one before: gigabytes of names in a few hundred kilobytes."""
    pairs = [(b"a" * 60_000, b"")]
    pairs += [(struct.pack(">I", number), b"") for number in range(100_000)]
    body = entries([header(), *pairs[:1]])[:-8]
    body += b"".join(varint(60_000) + varint(4) + varint(0) + key for key, _ in pairs[1:])
    with_index(path, index(block(body + struct.pack("<II", 0, 1))))


def many_tensors(path: Path) -> None:
    """More entries than any model has, of a few bytes each."""
    pairs = b"".join(
        b"\x00\x04\x00" + struct.pack(">I", 1 << 30 | number) for number in range(600_000)
    )
    body = entries([header()])[:-8] + pairs + struct.pack("<II", 0, 1)
    with_index(path, index(block(body)))


def string_inputs(meta_graph: Any, count: int) -> None:
    for number in range(count):
        node(meta_graph.graph_def.node, f"in{number}", "Placeholder", [])
        info = meta_graph.signature_def[f"s{number}"].inputs["x"]
        info.name, info.dtype = f"in{number}:0", types_pb2.DT_STRING


def long_way(meta_graph: Any) -> None:
    """Each of many inputs reaches each node of a long chain: sixty million steps."""
    string_inputs(meta_graph, 1000)
    nodes = meta_graph.graph_def.node
    node(nodes, "c0", "ConcatV2", [f"in{number}" for number in range(1000)])
    for number in range(60_000):
        node(nodes, f"c{number + 1}", "Identity", [f"c{number}"])


def many_calls(meta_graph: Any) -> None:
    """Each of many inputs goes into a large function a thousand times."""
    string_inputs(meta_graph, 20)
    inner = function(meta_graph, "large", "x").node_def
    for number in range(20_000):
        node(inner, f"n{number}", "NoOp", [])
    for number in range(20_000):
        call(meta_graph.graph_def.node, f"k{number}", "large", [f"in{number % 20}"])


def many_readers(meta_graph: Any) -> None:
    """Very many operations read files whose name is in a variable that as many others look at."""
    nodes = meta_graph.graph_def.node
    node(nodes, "kept", "VarHandleOp", [])
    node(nodes, "read", "ReadVariableOp", ["kept"])
    for number in range(15_000):
        node(nodes, f"r{number}", "ReadVariableOp", ["kept"])
        node(nodes, f"t{number}", "TextLineDataset", ["read"])


def many_assets(meta_graph: Any) -> None:
    for number in range(60_000):
        meta_graph.asset_file_def.add(filename=f"f{number}").tensor_info.name = f"a{number}:0"


def in_graph(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        changed(write_export(path), change)

    return make


HOSTILE: dict[str, Callable[[Path], None]] = {
    "nested": nested,
    "nested text": nested_text,
    "100,000 signatures": many_signatures,
    "long way": in_graph(long_way),
    "many calls": in_graph(many_calls),
    "many readers": in_graph(many_readers),
    "many assets": in_graph(many_assets),
    "asset names": asset_names,
    "asset name not UTF-8": asset_not_utf8,
    "long keys": long_keys,
    "many tensors": many_tensors,
    "snappy bomb": lambda path: with_index(
        path, index(*[block(snappy(bytes(63 << 20)), kind=1) for _ in range(4)])
    ),
    "snappy that claims": lambda path: with_index(path, index(block(varint(HUGE), kind=1))),
    "block that repeats itself": lambda path: with_index(
        path, index(block(b"\xff" * 30)) + index(block(b"\xff" * 30))
    ),
    "block of 2^63": lambda path: with_index(
        path, (varint(HUGE) + varint(HUGE) + varint(0) + varint(HUGE - 1)).ljust(40, b"\0") + MAGIC
    ),
    "offset of 2^63": lambda path: with_entry(path, tensor(1, offset=HUGE - 1, size=HUGE - 1)),
    "elements of 2^63": lambda path: with_entry(path, tensor(*[HUGE - 1] * 200, size=8)),
    "a million dimensions": lambda path: with_entry(path, tensor(*[HUGE - 1] * 1_000_000, size=8)),
    "negative size": lambda path: with_entry(path, tensor(1, size=-1)),
    "99,999 shards": lambda path: with_entry(path, tensor(1, size=4), num_shards=99_999),
    "shards of 2^31": lambda path: with_entry(path, tensor(1, size=4), num_shards=(1 << 31) - 1),
    "strings of 2^62": lambda path: with_entry(
        path,
        tensor_bundle_pb2.BundleEntryProto(
            dtype=7,
            size=8,
            shape={"dim": [{"size": 1 << 62}]},
        ).SerializeToString(),
    ),
    "index of zeros": lambda path: with_index(path, bytes(1 << 20)),
}
