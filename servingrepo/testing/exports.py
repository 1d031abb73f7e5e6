"""Small SavedModels, written by hand and really loadable, for tests.

Job: write a SavedModel that TensorFlow Serving and TensorFlow's C++ loader accept, in milliseconds
and without TensorFlow. Every signature computes `y = slope * x + offset`. It makes test data only.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.protos import (
    fingerprint_pb2,
    saved_model_pb2,
    types_pb2,
)
from servingrepo.savedmodel.signatures import INIT_OP_KEY
from servingrepo.testing.bundles import write_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Fault", "Feed", "Served", "saved_model", "write_export"]

Feed = Literal["tensor", "parse_example", "parse_example_v2"]
"""How a signature is fed: with floats, or with tf.Examples that have the float feature `x`."""

Fault = Literal["nan", "refuses", "uninitialized"]
"""What is wrong with a signature: it answers NaN, refuses all data with INVALID_ARGUMENT, or reads a
variable that nothing ever gives a value."""

METHODS = {
    "predict": "tensorflow/serving/predict",
    "classify": "tensorflow/serving/classify",
    "regress": "tensorflow/serving/regress",
}
_INPUT = {"predict": "x", "classify": "inputs", "regress": "inputs"}
_OUTPUT = {"predict": "y", "classify": "scores", "regress": "outputs"}
_CHUNK = bytes(range(251)) * 4096


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One signature to write; `method_name` is what it declares if not that of `api`."""

    key: str = "serving_default"
    api: Literal["predict", "classify", "regress"] = "predict"
    feed: Feed = "tensor"
    fault: Fault | None = None
    method_name: str | None = None


def write_export(
    path: Path,
    *,
    slope: float = 0.5,
    offset: float = 2.0,
    signatures: Sequence[Served] = (Served(),),
    assets: Mapping[str, bytes] | None = None,
    payload_bytes: int = 0,
    variables: bool = False,
    fingerprint: bool = False,
    tags: Sequence[str] = ("serve",),
    device: str = "",
) -> Path:
    """Write a SavedModel into the directory `path`, which is made if need be, and return `path`.

    Args:
        path: The export's directory; what is there already stays.
        slope: The factor of every signature.
        offset: The summand of every signature.
        signatures: What to serve; `serving_default`: x float32 [-1] -> y float32 [-1] by default.
        assets: Vocabularies in `assets/`, by name, one distinct word per line; loading reads them.
        payload_bytes: Size of an extra file that no server reads, to make the export big.
        variables: Keep slope and offset in `variables/` instead of in the graph.
        fingerprint: Write `fingerprint.pb` with the right checkpoint hash.
        tags: The tag set of the one MetaGraph.
        device: Pin the graph's multiplications there, such as `/device:GPU:0`.
    """
    path.mkdir(parents=True, exist_ok=True)
    message = saved_model(
        slope=slope,
        offset=offset,
        signatures=signatures,
        assets=tuple(assets or ()),
        variables=variables,
        tags=tags,
        device=device,
    )
    (path / "saved_model.pb").write_bytes(message.SerializeToString(deterministic=True))
    if variables:
        (path / "variables").mkdir(exist_ok=True)
        write_bundle(path / "variables" / "variables", {"slope": slope, "offset": offset})
    for name, content in (assets or {}).items():
        target = path / "assets" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if payload_bytes:
        _write_payload(path / "assets.extra" / "payload.bin", payload_bytes)
    if fingerprint:
        _write_fingerprint(path)
    return path


def saved_model(
    *,
    slope: float = 0.5,
    offset: float = 2.0,
    signatures: Sequence[Served] = (Served(),),
    assets: Sequence[str] = (),
    variables: bool = False,
    tags: Sequence[str] = ("serve",),
    device: str = "",
) -> Any:
    """Return the SavedModel message that `write_export` writes."""
    message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = message.meta_graphs.add()
    meta_graph.meta_info_def.tags.extend(tags)
    meta_graph.meta_info_def.tensorflow_version = "2.19.1"
    graph = meta_graph.graph_def
    graph.versions.producer = 1087
    graph.versions.min_consumer = 12
    if variables:
        _add_variables(meta_graph)
    else:
        _add_const(graph, "slope", [slope], shape=())
        _add_const(graph, "offset", [offset], shape=())
    for served in signatures:
        _add_signature(meta_graph, served, device=device)
    if assets:
        _add_vocabularies(meta_graph, assets)
    return message


def _add_signature(meta_graph: Any, served: Served, *, device: str) -> None:
    graph = meta_graph.graph_def
    prefix = f"{served.key.replace('/', '.')}/"
    # Classification scores must have rank 2, regression outputs [N] or [N, 1].
    shape = (-1,) if served.api == "predict" and served.feed == "tensor" else (-1, 1)
    if served.feed == "tensor":
        fed, numbers = prefix + "x", prefix + "x"
        _add_placeholder(graph, fed, types_pb2.DT_FLOAT, shape)
    else:
        fed, numbers = prefix + "examples", prefix + "parsed"
        _add_placeholder(graph, fed, types_pb2.DT_STRING, (-1,))
        _add_parse(graph, numbers, fed, version=2 if served.feed == "parse_example_v2" else 1)
    slope = "slope"
    if served.fault == "nan":
        slope = _add_const(graph, prefix + "nan", [math.nan], shape=())
    if served.fault == "uninitialized":
        slope = _add_variable(graph, prefix + "never_assigned")
    product = _add_node(graph, prefix + "product", "Mul", [numbers, slope], T=types_pb2.DT_FLOAT)
    graph.node[-1].device = device
    result = _add_node(graph, prefix + "y", "AddV2", [product, "offset"], T=types_pb2.DT_FLOAT)
    if served.fault == "refuses":
        nan = _add_const(graph, prefix + "nan", [math.nan], shape=())
        wrong = _add_node(graph, prefix + "wrong", "Mul", [result, nan], T=types_pb2.DT_FLOAT)
        result = _add_node(graph, prefix + "check", "CheckNumerics", [wrong], T=types_pb2.DT_FLOAT)
        graph.node[-1].attr["message"].s = b"nothing is good enough"
    definition = meta_graph.signature_def[served.key]
    definition.method_name = (
        METHODS[served.api] if served.method_name is None else served.method_name
    )
    given = definition.inputs[_INPUT[served.api] if served.feed == "tensor" else "inputs"]
    given.name = f"{fed}:0"
    given.dtype = types_pb2.DT_FLOAT if served.feed == "tensor" else types_pb2.DT_STRING
    for size in shape if served.feed == "tensor" else (-1,):
        given.tensor_shape.dim.add(size=size)
    made = definition.outputs[_OUTPUT[served.api]]
    made.name = f"{result}:0"
    made.dtype = types_pb2.DT_FLOAT
    for size in shape:
        made.tensor_shape.dim.add(size=size)


def _add_parse(graph: Any, name: str, fed: str, *, version: Literal[1, 2]) -> None:
    """Add a ParseExample op that needs the float feature `x` of shape [1]."""
    nobody = _add_const(graph, f"{name}/names", [], shape=(0,), dtype=types_pb2.DT_STRING)
    default = _add_const(graph, f"{name}/default", [], shape=(0,), dtype=types_pb2.DT_FLOAT)
    if version == 1:
        key = _add_const(graph, f"{name}/key", [b"x"], shape=())
        _add_node(graph, name, "ParseExample", [fed, nobody, key, default])
        attributes = graph.node[-1].attr
        attributes["Nsparse"].i = 0
        attributes["Ndense"].i = 1
    else:
        keys = _add_const(graph, f"{name}/keys", [b"x"], shape=(1,))
        _add_node(graph, name, "ParseExampleV2", [fed, nobody, nobody, keys, nobody, default])
        attributes = graph.node[-1].attr
        attributes["num_sparse"].i = 0
        attributes["ragged_value_types"].list.SetInParent()
        attributes["ragged_split_types"].list.SetInParent()
    attributes["sparse_types"].list.SetInParent()
    attributes["Tdense"].list.type.append(types_pb2.DT_FLOAT)
    attributes["dense_shapes"].list.shape.add().dim.add(size=1)


def _add_vocabularies(meta_graph: Any, names: Sequence[str]) -> None:
    """Add a lookup table for each file, and the init op that reads them when the model is loaded."""
    graph = meta_graph.graph_def
    ready = []
    for number, name in enumerate(names):
        asset = _add_const(graph, f"asset_{number}", [name.encode()], shape=())
        definition = meta_graph.asset_file_def.add(filename=name)
        definition.tensor_info.name = f"{asset}:0"
        table = f"table_{number}"
        dtypes = {"key_dtype": types_pb2.DT_STRING, "value_dtype": types_pb2.DT_INT64}
        _add_node(graph, table, "HashTableV2", [], **dtypes)
        graph.node[-1].attr["shared_name"].s = table.encode()
        _add_node(graph, f"{table}/init", "InitializeTableFromTextFileV2", [table, asset])
        graph.node[-1].attr["key_index"].i = -2  # the whole line
        graph.node[-1].attr["value_index"].i = -1  # the line's number
        ready.append(f"^{table}/init")
    _add_node(graph, "init", "NoOp", ready)
    meta_graph.signature_def[INIT_OP_KEY].outputs[INIT_OP_KEY].name = "init"


def _add_variables(meta_graph: Any) -> None:
    """Add the variables slope and offset, and what restores them, as TensorFlow 1's Saver does."""
    graph = meta_graph.graph_def
    names = ("slope", "offset")
    prefix = _add_const(graph, "save/Const", [b"model"], shape=())
    wanted = _add_const(graph, "save/names", [one.encode() for one in names], shape=(2,))
    slices = _add_const(graph, "save/slices", [b"", b""], shape=(2,))
    _add_node(graph, "save/RestoreV2", "RestoreV2", [prefix, wanted, slices])
    graph.node[-1].attr["dtypes"].list.type.extend([types_pb2.DT_FLOAT] * 2)
    restored = []
    for position, name in enumerate(names):
        variable = _add_variable(graph, name)
        assign = f"save/Assign_{position}"
        source = f"save/RestoreV2:{position}"
        _add_node(graph, assign, "Assign", [variable, source], T=types_pb2.DT_FLOAT)
        restored.append(f"^{assign}")
    _add_node(graph, "save/restore_all", "NoOp", restored)
    meta_graph.saver_def.filename_tensor_name = "save/Const:0"
    meta_graph.saver_def.save_tensor_name = "save/Const:0"
    meta_graph.saver_def.restore_op_name = "save/restore_all"
    meta_graph.saver_def.version = meta_graph.saver_def.V2


def _add_variable(graph: Any, name: str) -> str:
    node = _add_node(graph, name, "VariableV2", [], dtype=types_pb2.DT_FLOAT)
    graph.node[-1].attr["shape"].shape.SetInParent()
    return node


def _add_placeholder(graph: Any, name: str, dtype: int, shape: tuple[int, ...]) -> None:
    _add_node(graph, name, "Placeholder", [], dtype=dtype)
    for size in shape:
        graph.node[-1].attr["shape"].shape.dim.add(size=size)


def _add_const(
    graph: Any,
    name: str,
    values: Sequence[float] | Sequence[bytes],
    *,
    shape: tuple[int, ...],
    dtype: int | None = None,
) -> str:
    if dtype is None:
        dtype = types_pb2.DT_STRING if isinstance(values[0], bytes) else types_pb2.DT_FLOAT
    _add_node(graph, name, "Const", [], dtype=dtype)
    tensor = graph.node[-1].attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    (tensor.string_val if dtype == types_pb2.DT_STRING else tensor.float_val).extend(values)
    return name


def _add_node(graph: Any, name: str, op: str, inputs: Sequence[str], **types: int) -> str:
    node = graph.node.add(name=name, op=op)
    node.input.extend(inputs)
    for key, value in types.items():
        node.attr[key].type = value
    return name


def _write_payload(path: Path, size: int) -> None:
    """Write bytes that differ from block to block, so that a swapped block is noticed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for number in range(-(-size // len(_CHUNK))):
            block = struct.pack("<Q", number) + _CHUNK[8:]
            file.write(block[: size - number * len(_CHUNK)])


def _write_fingerprint(path: Path) -> None:
    import farmhash

    message = fingerprint_pb2.FingerprintDef(uuid="1234567890")
    message.version.producer = 1
    index = path / "variables" / "variables.index"
    message.checkpoint_hash = farmhash.fingerprint64(index.read_bytes()) if index.exists() else 0
    message.saved_model_checksum = farmhash.fingerprint64((path / "saved_model.pb").read_bytes())
    (path / "fingerprint.pb").write_bytes(message.SerializeToString())
