"""Operations of a graph that reach beyond it: files, the network, processes of the server.

A SavedModel is a program. TensorFlow's SECURITY.md says so, and `saved_model_cli scan` looks for three
operations (WriteFile, ReadFile, PrintV2: saved_model_cli.py, _OP_DENYLIST), in the main graph and the
functions that PartitionedCall names. Here every operation of TensorFlow 2.12 to 2.21 was judged, and every
function that the graph can reach counts, by whatever attribute it is named.

What every export does is no effect: the restore op reads the checkpoint that the server feeds it
(SaverDef.filename_tensor_name), nothing runs the save op, and tables read the export's own assets.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from servingrepo.savedmodel.graph import MAX_DEPTH, Scope, node_of, origins
from servingrepo.savedmodel.restoring import asset_definitions
from servingrepo.savedmodel.signatures import INIT_OP_KEY, texts_of
from servingrepo.savedmodel.values import Effect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel.graph import GraphReader
    from servingrepo.savedmodel.values import EffectKind

__all__ = ["effect_kind", "find_effects"]

MAX_TRACED = 50_000
"""Nodes of functions judged call by call; beyond, each function is judged without knowing who calls it."""

GUARDED = frozenset({"ReadFile", "WriteFile", "PrintV2"})
"""What `saved_model_cli scan` reports, whatever it is used for."""

_FILES = """
ReadFile WriteFile MatchingFiles PrintV2 FileSystemSetConfiguration ImmutableConst
FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader TFRecordReader TFRecordReaderV2 TextLineReader
TextLineReaderV2 WholeFileReader WholeFileReaderV2 RecordInput
CSVDataset CSVDatasetV2 ExperimentalCSVDataset FixedLengthRecordDataset FixedLengthRecordDatasetV2
LMDBDataset ExperimentalLMDBDataset MatchingFilesDataset ExperimentalMatchingFilesDataset SqlDataset
ExperimentalSqlDataset TFRecordDataset TFRecordDatasetV2 TextLineDataset LoadDataset SaveDataset SaveDatasetV2
SnapshotDataset SnapshotDatasetV2 SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader
ListSnapshotChunksDataset CacheDataset CacheDatasetV2 DatasetToTFRecord ExperimentalDatasetToTFRecord
DistributedSave InitializeTableFromTextFile InitializeTableFromTextFileV2
GenerateVocabRemapping LoadAndRemapMatrix CalibrationStatisticsSaver
Save SaveSlices SaveV2 Restore RestoreSlice RestoreV2 MergeV2Checkpoints DTensorRestoreV2
CreateSummaryFileWriter CreateSummaryDbWriter SummaryWriter ImportEvent StatsAggregatorSetSummaryWriter
WriteAudioSummary WriteGraphSummary WriteHistogramSummary WriteImageSummary WriteRawProtoSummary
WriteScalarSummary WriteSummary
DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary
"""
_NETWORK = """
RemoteCall Send Recv _Send _Recv _HostSend _HostRecv XlaSend XlaRecv
DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset
RegisterDatasetV2 RpcCall RpcCheckStatus RpcClient RpcGetValue RpcServer RpcServerRegister RpcServerStart
TfServingRemotePredict GcsConfigureBlockCache GcsConfigureCredentials BigQueryReader WorkerHeartbeat
"""
_PROCESSES = """
Abort PyFunc PyFuncStateless EagerPyFunc XlaHostCompute _XlaHostComputeMlir DatasetFromGraph
RemoteFusedGraphExecute MlirPassthroughOp
"""
_KINDS: dict[str, EffectKind] = {
    **dict.fromkeys(_FILES.split(), "file"),
    **dict.fromkeys(_NETWORK.split(), "network"),
    **dict.fromkeys(_PROCESSES.split(), "process"),
}
_PREFIXES: tuple[tuple[str, EffectKind], ...] = (
    ("Collective", "network"),
    ("Nccl", "network"),
    ("_Nccl", "network"),
    ("DataServiceDataset", "network"),
    ("Bigtable", "network"),
)
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_CHECKPOINTS = _RESTORES | {"Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"}
_FILE_NAME_AT = {
    **dict.fromkeys(("InitializeTableFromTextFile", "InitializeTableFromTextFileV2"), 1),
    **dict.fromkeys(("TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2"), 0),
    **dict.fromkeys(("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2"), 0),
    **dict.fromkeys(("CSVDataset", "CSVDatasetV2"), 0),
}
"""Readers by the input that names their file, which may be one of the export's own assets."""
_CACHES = {"CacheDataset": 1, "CacheDatasetV2": 1}
"""tensorflow/core/kernels/data/cache_dataset_ops.cc: with an empty file name they cache in memory."""


_MOST_FILES = 20
_LONGEST_FILE = 500
_LOOKS_AT_VARIABLE = frozenset({"ReadVariableOp", "VarIsInitializedOp"})


class _Use(msgspec.Struct, frozen=True):
    """The callers of a node: requests, these or initialisation, the restore op, or none of them."""

    asked: bool
    served: bool
    restoring: bool


class _Body(NamedTuple):
    """A function as called from somewhere; not `traced` if where its arguments come from is not known."""

    name: str
    scope: Scope
    use: _Use
    traced: bool


def effect_kind(op: str) -> EffectKind | None:
    """Return what kind of effect an operation may have, None if it has none."""
    kind = _KINDS.get(op)
    if kind is not None:
        return kind
    return next((kind for prefix, kind in _PREFIXES if op.startswith(prefix)), None)


def find_effects(meta_graph: Any, reader: GraphReader) -> tuple[Effect, ...]:
    """Return the operations with effects that a MetaGraph can reach, by name."""
    finder = _Finder(meta_graph, reader)
    found: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    for op, name, paths in finder.find():
        found.setdefault(op, set()).add(name)
        files.setdefault(op, set()).update(paths)
    return tuple(
        Effect(
            op=op,
            kind=effect_kind(op) or "process",
            nodes=tuple(sorted(found[op])),
            files=tuple(sorted(files[op]))[:_MOST_FILES],
        )
        for op in sorted(found)
    )


class _Finder:
    """A search through one MetaGraph."""

    def __init__(self, meta_graph: Any, reader: GraphReader) -> None:
        self.reader = reader
        saver = meta_graph.saver_def
        self.checkpoint = node_of(saver.filename_tensor_name)
        self.assets = {node_of(one.tensor_info.name) for one in asset_definitions(meta_graph)}
        definitions = meta_graph.signature_def
        self.fed = {
            node_of(info.name) for key in definitions for info in definitions[key].inputs.values()
        }
        fetched = {
            (key, alias): info.name
            for key in definitions
            for alias, info in definitions[key].outputs.items()
        }
        initial = fetched.pop((INIT_OP_KEY, INIT_OP_KEY), "")
        self.asked = reader.behind([*fetched.values()])
        self.served = self.asked | reader.behind([initial, *_main_ops(meta_graph)])
        self.restoring = reader.behind([saver.restore_op_name] if saver.restore_op_name else [])
        self.suspects: dict[str, list[Any]] = {}
        self.telling = self._functions_with_effects()
        self.untraced: set[tuple[str, _Use]] = set()
        self.kept: dict[str, bool] = {}
        self.traced = 0

    def find(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield each operation with an effect, its node, and the paths in the graph that it is given."""
        pending: list[_Body] = []
        main = self.reader.main
        for node in self._suspects(""):
            if not self._harmless(main, node, self._use(node)):
                yield node.op, node.name, self._files(main, node)
        for node, names in self.reader.calls():
            pending += self._enter(_Body("", main, self._use(node), traced=True), node, names)
        while pending:
            body = pending.pop()
            for node in self._suspects(body.name):
                if not self._harmless(body.scope, node, body.use):
                    yield node.op, f"{body.name}/{node.name}", self._files(body.scope, node)
            for node, names in self.reader.calls(body.name):
                pending += self._enter(body, node, names)

    def _files(self, scope: Scope, node: Any) -> tuple[str, ...]:
        """Return the paths that stand in the graph and that a node is given; none where a client feeds them."""
        place = _FILE_NAME_AT.get(node.op, 0 if node.op == "ReadFile" else None)
        tensor = self._constant(scope, node, place) if place is not None else None
        if tensor is None:
            return ()
        return tuple(one[:_LONGEST_FILE] for one in texts_of(tensor.string_val))

    def _constant(self, scope: Scope, node: Any, place: int) -> Any:
        """Return the TensorProto of the constant that an input has; None if it is none, or a client can feed it."""
        source = None
        for at, source in origins(scope, node.input[place]) if place < len(node.input) else ():
            if at is self.reader.main and source.name in self.fed:
                return None
        return source.attr["value"].tensor if source is not None and source.op == "Const" else None

    def _use(self, node: Any) -> _Use:
        name = node.name
        return _Use(name in self.asked, name in self.served, name in self.restoring)

    def _suspects(self, function: str) -> list[Any]:
        """Return the nodes of a function, or of the main graph, that have an effect unless they are harmless."""
        if function not in self.suspects:
            nodes = self.reader.body(function)
            ops = {op for op in {node.op for node in nodes} if effect_kind(op)}
            self.suspects[function] = [node for node in nodes if node.op in ops] if ops else []
        return self.suspects[function]

    def _enter(self, body: _Body, node: Any, names: tuple[str, ...]) -> Iterator[_Body]:
        """Yield the functions to look into that a node calls.

        Where a call is too deep, or there are too many, a function is looked into once as if nothing were known of
        its arguments: then nothing in it is harmless for what it is given.
        """
        for name in self.telling.intersection(names):
            function = self.reader.functions[name]
            self.traced += len(function.node_def)
            if body.traced and self.traced < MAX_TRACED and body.scope.depth < MAX_DEPTH:
                scope = self.reader.scope(function, body.scope, node)
                yield _Body(name, scope, body.use, traced=True)
            elif (name, body.use) not in self.untraced:
                self.untraced.add((name, body.use))
                scope = self.reader.scope(function, None, node)
                yield _Body(name, scope, body.use, traced=False)

    def _harmless(self, scope: Scope, node: Any, use: _Use) -> bool:
        """Tell whether a node does only what every export does."""
        if node.op in GUARDED:
            return False
        if node.op in _CHECKPOINTS:
            if use.served:
                return False
            if use.restoring:
                checkpoint = {self.checkpoint} - {""}
                return node.op in _RESTORES and self._comes_from(scope, node, 0, checkpoint)
            # Nothing runs it: a server calls neither the save op nor what nobody fetches.
            return True
        if node.op in _FILE_NAME_AT:
            return self._names_asset(scope, node, _FILE_NAME_AT[node.op], use)
        if node.op in _CACHES:
            tensor = self._constant(scope, node, _CACHES[node.op])
            empty = tensor is not None and list(tensor.string_val) in ([], [b""])
            return empty and not tensor.tensor_content
        return False

    def _comes_from(self, scope: Scope, node: Any, place: int, names: set[str]) -> bool:
        """Tell whether an input is one of these tensors of the main graph, unchanged."""
        return any(one.name in names for one in self._sources(scope, node, place))

    def _sources(self, scope: Scope, node: Any, place: int) -> Iterator[Any]:
        """Yield the nodes of the main graph that an input comes from unchanged, up to what a client can feed."""
        for at, one in origins(scope, node.input[place]) if place < len(node.input) else ():
            if at is self.reader.main:
                if one.name in self.fed:
                    return
                yield one

    def _names_asset(self, scope: Scope, node: Any, place: int, use: _Use) -> bool:
        """Tell whether an input is the path of one of the export's assets.

        A server feeds the paths while it loads (loader.cc, RunInitOp) and to no request: there the tensor has
        the value that the graph gives it, and a placeholder none. tf.saved_model.save keeps the path in a
        variable (saved_model/save.py, _process_asset), which has it in requests, too.
        """
        for one in self._sources(scope, node, place):
            if one.name in self.assets:
                return not use.asked or one.op == "Placeholder"
            if one.op == "ReadVariableOp" and one.input:
                variable = node_of(one.input[0])
                if variable not in self.kept:
                    self.kept[variable] = self._keeps_asset(variable)
                return self.kept[variable]
        return False

    def _keeps_asset(self, variable: str) -> bool:
        """Tell whether nothing ever puts anything but an asset's path into a variable of the main graph."""
        main = self.reader.main
        handle = main.nodes.get(variable)
        if handle is None or handle.op != "VarHandleOp" or self.handles[_shared_name(handle)] > 1:
            return False
        return all(
            user.op in _LOOKS_AT_VARIABLE
            or (
                user.op == "AssignVariableOp"
                and user.name not in self.asked
                and self._comes_from(main, user, 1, self.assets)
            )
            for user, _ in main.consumers.get(handle.name, ())
        )

    @cached_property
    def handles(self) -> Counter[bytes]:
        """How many operations of the graph and its functions name a variable, by its name."""
        bodies = [self.reader.body(), *map(self.reader.body, self.reader.functions)]
        return Counter(
            name
            for body in bodies
            for node in body
            if node.op in {"VarHandleOp", "_VarHandlesOp"}
            for name in (
                _shared_name(node),
                *(node.attr["shared_names"].list.s if "shared_names" in node.attr else ()),
            )
        )

    def _functions_with_effects(self) -> set[str]:
        """Return the functions that have an effect themselves or call one that has."""
        callers: dict[str, set[str]] = {}
        telling: list[str] = []
        for name in self.reader.functions:
            if self._suspects(name):
                telling.append(name)
            for _, inner in self.reader.calls(name):
                for one in inner:
                    callers.setdefault(one, set()).add(name)
        found: set[str] = set()
        while telling:
            name = telling.pop()
            if name not in found:
                found.add(name)
                telling.extend(callers.get(name, ()))
        return found


def _main_ops(meta_graph: Any) -> list[str]:
    """Return the ops that TensorFlow 1 runs when a model is loaded: the collections of loader_util.cc."""
    return [
        name
        for key in ("saved_model_main_op", "legacy_init_op")
        if key in meta_graph.collection_def
        for name in meta_graph.collection_def[key].node_list.value
    ]


def _shared_name(handle: Any) -> bytes:
    name: bytes = handle.attr["shared_name"].s if "shared_name" in handle.attr else b""
    return name or handle.name.encode()
