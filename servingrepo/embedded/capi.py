"""TensorFlow through its C API, without `import tensorflow`.

The first load opens the two libraries of the wheel with ctypes: 0.4 s, where the import takes 3 s and five times the
memory. TF_LoadSessionFromSavedModel is the code of tensorflow_model_server, LoadSavedModel and a DirectSession, with
its error texts. Unlike Python's `Session.run` it does not check shapes. C++ logs to file descriptor 2.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from servingrepo.embedded.runtime import Tensor
from servingrepo.embedded.status import Code, Status, invalid
from servingrepo.embedded.wire import signatures_of, varint
from servingrepo.protos import types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TensorFlowRuntime"]

STRING_SIZE = 24  # sizeof(TF_TString), ctstring_internal.h
MAX_INDEX = 2**31 - 1


class _Buffer(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


_TENSORS = (POINTER(_Output), POINTER(c_void_p), c_int)
"""Arguments for inputs or outputs of a session: their places in the graph, their tensors, and how many there are."""
# Result and arguments of each, from c_api.h, tf_tensor.h, tf_status.h and tf_tstring.h.
_FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "TF_AllocateTensor": (c_void_p, (c_int, c_void_p, c_int, c_size_t)),
    "TF_CloseSession": (None, (c_void_p, c_void_p)),
    "TF_DeleteBuffer": (None, (c_void_p,)),
    "TF_DeleteGraph": (None, (c_void_p,)),
    "TF_DeleteSession": (None, (c_void_p, c_void_p)),
    "TF_DeleteSessionOptions": (None, (c_void_p,)),
    "TF_DeleteStatus": (None, (c_void_p,)),
    "TF_DeleteTensor": (None, (c_void_p,)),
    "TF_Dim": (c_int64, (c_void_p, c_int)),
    "TF_GetCode": (c_int, (c_void_p,)),
    "TF_GraphOperationByName": (c_void_p, (c_void_p, c_char_p)),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        (c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p),
    ),
    "TF_Message": (c_char_p, (c_void_p,)),
    "TF_NewBuffer": (POINTER(_Buffer), ()),
    "TF_NewBufferFromString": (c_void_p, (c_char_p, c_size_t)),
    "TF_NewGraph": (c_void_p, ()),
    "TF_NewSessionOptions": (c_void_p, ()),
    "TF_NewStatus": (c_void_p, ()),
    "TF_NumDims": (c_int, (c_void_p,)),
    "TF_SessionRun": (
        None,
        (c_void_p, c_void_p, *_TENSORS, *_TENSORS, c_void_p, c_int, c_void_p, c_void_p),
    ),
    "TF_SetConfig": (None, (c_void_p, c_char_p, c_size_t, c_void_p)),
    "TF_StringGetDataPointer": (c_void_p, (c_void_p,)),
    "TF_StringGetSize": (c_size_t, (c_void_p,)),
    "TF_TensorByteSize": (c_size_t, (c_void_p,)),
    "TF_TensorData": (c_void_p, (c_void_p,)),
    "TF_TensorElementCount": (c_int64, (c_void_p,)),
    "TF_TensorFromProto": (None, (c_void_p, c_void_p, c_void_p)),
    "TF_TensorType": (c_int, (c_void_p,)),
}


class _Library:
    """The functions of both shared libraries, typed."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("tensorflow")
        if spec is None or not spec.submodule_search_locations:
            raise OSError("the Python package tensorflow is not installed")
        folder = Path(spec.submodule_search_locations[0])
        libraries = [
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")
        ]
        for name, (result, arguments) in _FUNCTIONS.items():
            found = next((getattr(one, name) for one in libraries if hasattr(one, name)), None)
            if found is None:
                raise OSError(f"this TensorFlow's libraries in {folder} have no {name}")
            found.restype, found.argtypes = result, arguments
            setattr(self, name, found)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class _Status:
    """A TF_Status for the length of a `with`."""

    def __init__(self, library: _Library) -> None:
        self._library = library

    def __enter__(self) -> Self:
        self.pointer = self._library.TF_NewStatus()
        return self

    def __exit__(self, *_: object) -> None:
        self._library.TF_DeleteStatus(self.pointer)

    @property
    def ok(self) -> bool:
        return bool(self._library.TF_GetCode(self.pointer) == Code.OK)

    @property
    def value(self) -> Status:
        code = self._library.TF_GetCode(self.pointer)
        text = self._library.TF_Message(self.pointer).decode(errors="surrogateescape")
        return Status(Code(code) if 0 <= code <= max(Code) else Code.UNKNOWN, text)


class _Feed:
    """A TF_Tensor that is freed with the last reference to it."""

    def __init__(self, library: _Library, pointer: int) -> None:
        self._library = library
        self.pointer = pointer

    def __del__(self) -> None:
        self._library.TF_DeleteTensor(self.pointer)


class _Handle:
    """A tensor of resource handles. No session gives one to a client, so to feed one always fails.

    The C API takes a serialized handle only, and has another error for the rest. This error is DirectSession's
    (ResourceHandleToInputTensor, direct_session.cc), which checks this before any dtype.
    """

    def __init__(self, proto: Any) -> None:
        handle = next(iter(proto.resource_handle_val), None)
        number, name, kind = (
            (handle.hash_code, handle.name, handle.maybe_type_name) if handle else (0, "", "")
        )
        text = f"Invalid resource type hash code: {number}(name: {name} type: {kind})"
        self.refusal = invalid(text)


class TensorFlowRuntime:
    """Loads SavedModels with the TensorFlow that is installed; `config` is a serialized ConfigProto."""

    def __init__(self, config: bytes = b"") -> None:
        self._config = config
        self._lock = threading.Lock()
        self._open = cache(_Library)

    def load(self, path: str, tags: Sequence[str]) -> TensorFlowSession | Status:
        """Load a SavedModel and run its init op."""
        try:
            with self._lock:
                library = self._open()
        except OSError as error:
            return Status(Code.INTERNAL, f"TensorFlow cannot be loaded: {error}")
        return _load(library, self._config, path, tags)


def _load(
    library: _Library, config: bytes, path: str, tags: Sequence[str]
) -> TensorFlowSession | Status:
    names = (c_char_p * len(tags))(*(tag.encode() for tag in tags))
    options = library.TF_NewSessionOptions()
    graph = library.TF_NewGraph()
    meta = library.TF_NewBuffer()
    with _Status(library) as status:
        try:
            library.TF_SetConfig(options, config, len(config), status.pointer)
            session = None
            if status.ok:
                session = library.TF_LoadSessionFromSavedModel(
                    options,
                    None,
                    path.encode(errors="surrogateescape"),
                    names,
                    len(tags),
                    graph,
                    meta,
                    status.pointer,
                )
            if not status.ok or session is None:
                library.TF_DeleteGraph(graph)
                return status.value
            serialized = ctypes.string_at(meta.contents.data, meta.contents.length)
            return TensorFlowSession(library, session, graph, signatures_of(serialized))
        finally:
            library.TF_DeleteBuffer(meta)
            library.TF_DeleteSessionOptions(options)


class TensorFlowSession:
    """A DirectSession with its graph."""

    def __init__(
        self, library: _Library, session: int, graph: int, signatures: Mapping[str, Any]
    ) -> None:
        self.signatures = signatures
        self._library = library
        self._session = session
        self._graph = graph
        self._endpoints: dict[str, _Output] = {}

    def decode(self, proto: Any) -> _Feed | _Handle | None:
        """Return a TF_Tensor, or None if Tensor::FromProto refuses."""
        library = self._library
        serialized = proto.SerializeToString()
        source = library.TF_NewBufferFromString(serialized, len(serialized))
        feed = _Feed(library, library.TF_AllocateTensor(types_pb2.DT_FLOAT, None, 0, 4))
        try:
            with _Status(library) as status:
                library.TF_TensorFromProto(source, feed.pointer, status.pointer)
                if not status.ok:
                    return None
                return _Handle(proto) if proto.dtype == types_pb2.DT_RESOURCE else feed
        finally:
            library.TF_DeleteBuffer(source)

    def run(
        self,
        feeds: Sequence[tuple[str, _Feed | _Handle]],
        fetches: Sequence[str],
        *,
        timeout_ms: int,
    ) -> list[Tensor] | Status:
        """Run the graph in TensorFlow's threads, without Python's lock."""
        library = self._library
        inputs = self._resolve(
            [name for name, _ in feeds], "FeedInputs: unable to find feed output {}"
        )
        if isinstance(inputs, Status):
            return inputs
        wanted = self._resolve(fetches, "FetchOutputs node {}: not found")
        if isinstance(wanted, Status):
            return wanted
        values = (c_void_p * len(feeds))()
        for i, (_, feed) in enumerate(feeds):
            if isinstance(feed, _Handle):
                return feed.refusal
            values[i] = feed.pointer
        results = (c_void_p * len(fetches))()
        # A RunOptions with field 2, timeout_in_ms.
        options = b"\x10" + varint(timeout_ms) if timeout_ms > 0 else b""
        run_options = library.TF_NewBufferFromString(options, len(options)) if options else None
        try:
            with _Status(library) as status:
                given, got = (inputs, values, len(feeds)), (wanted, results, len(fetches))
                targets = (None, 0, None)  # operations to run besides, and RunMetadata
                library.TF_SessionRun(
                    self._session, run_options, *given, *got, *targets, status.pointer
                )
                if not status.ok:
                    return status.value
                return [_tensor(library, pointer) for pointer in results if pointer]
        finally:
            if run_options is not None:
                library.TF_DeleteBuffer(run_options)
            for pointer in results:
                if pointer:
                    library.TF_DeleteTensor(pointer)

    def close(self) -> None:
        """Close the session and free its graph."""
        with _Status(self._library) as status:
            self._library.TF_CloseSession(self._session, status.pointer)
            self._library.TF_DeleteSession(self._session, status.pointer)
        self._library.TF_DeleteGraph(self._graph)

    def _resolve(self, names: Sequence[str], unknown: str) -> ctypes.Array[_Output] | Status:
        outputs = (_Output * len(names))()
        for i, name in enumerate(names):
            output = self._endpoint(name, unknown)
            if isinstance(output, Status):
                return output
            outputs[i] = output
        return outputs

    def _endpoint(self, name: str, unknown: str) -> _Output | Status:
        # The C API takes operations, not names, so the errors for unknown names are here (subgraph.cc).
        found = self._endpoints.get(name)
        if found is not None:
            return found
        operation, _, index = name.partition(":")
        pointer = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer or (index and not index.isdecimal()):
            return Status(Code.NOT_FOUND, unknown.format(name))
        # TensorFlow itself refuses an index that the operation does not have.
        number = min(int(index or 0), MAX_INDEX)
        self._endpoints[name] = _Output(pointer, number)
        return self._endpoints[name]


def _tensor(library: _Library, pointer: int) -> Tensor:
    dtype = library.TF_TensorType(pointer)
    shape = tuple(library.TF_Dim(pointer, i) for i in range(library.TF_NumDims(pointer)))
    data = library.TF_TensorData(pointer)
    if dtype == types_pb2.DT_STRING:
        count = library.TF_TensorElementCount(pointer)
        starts = [data + i * STRING_SIZE for i in range(count)]
        strings = tuple(
            ctypes.string_at(library.TF_StringGetDataPointer(one), library.TF_StringGetSize(one))
            for one in starts
        )
        return Tensor(dtype, shape, strings=strings)
    size = library.TF_TensorByteSize(pointer)
    return Tensor(dtype, shape, ctypes.string_at(data, size) if size else b"")
