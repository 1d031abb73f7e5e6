"""Make `servingrepo/savedmodel/op_lists.json`: which operations the servers 2.12 to 2.21 have.

    python -m pip download --no-deps tensorflow-cpu==2.12.1 && unzip -d 2.12 tensorflow_cpu-2.12.1-*.whl
    python tools/op_lists.py collect 2.12 [PLUGIN.so…] > 2.12.json     # for each release
    python tools/op_lists.py merge 2.12.json 2.13.json …          # writes the file

TensorFlow Serving has no list of its own: tensorflow_model_server is linked from the TensorFlow of the same
minor version, whose libraries tell their operations and kernels through the C API (TF_GetAllOpList and
TF_GetAllRegisteredKernels in tensorflow/c/{c_api,kernels}.cc). TensorFlow Text and the inference operations
of TensorFlow Decision Forests, which the server links too (model_servers/BUILD), are loaded as plugins:
the libraries that their packages hold. An operation is runnable if it has a kernel for CPUs, else registered.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

from servingrepo.protos import import_without_tensorflow

TARGET = Path(__file__).parent.parent / "servingrepo" / "savedmodel" / "op_lists.json"
CPU = {"CPU", "DEFAULT"}


class Buffer(ctypes.Structure):
    """TF_Buffer of tensorflow/c/tf_buffer.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


def collect(release: Path, plugins: list[Path]) -> dict[str, Any]:
    """Return the release's name and its operations, with whether each has a kernel for CPUs.

    The libraries of one release fill the process: call it once per process.
    """
    (kernel_def_pb2,) = import_without_tensorflow(["tensorflow.core.framework.kernel_def_pb2"])
    root = release / "tensorflow"
    # It brings libtensorflow_framework.so.2 along; loaded in the other order, both register everything.
    library = ctypes.CDLL(str(root / "libtensorflow_cc.so.2"), mode=ctypes.RTLD_GLOBAL)
    library.TF_NewStatus.restype = ctypes.c_void_p
    library.TF_GetCode.argtypes = [ctypes.c_void_p]
    library.TF_Message.argtypes = [ctypes.c_void_p]
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_LoadLibrary.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.TF_LoadLibrary.restype = ctypes.c_void_p
    library.TF_GetAllOpList.restype = ctypes.POINTER(Buffer)
    library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    library.TF_GetAllRegisteredKernels.argtypes = [ctypes.c_void_p]
    status = library.TF_NewStatus()
    own = _ops(library)
    for plugin in plugins:
        library.TF_LoadLibrary(str(plugin).encode(), status)
        if library.TF_GetCode(status):
            raise SystemExit(f"{plugin}: {library.TF_Message(status).decode()}")
    linked = sorted(_ops(library) - own)
    kernels = kernel_def_pb2.KernelList.FromString(
        _bytes(library.TF_GetAllRegisteredKernels(status))
    )
    runnable = {one.op for one in kernels.kernel if one.device_type in CPU}
    version = re.search(r"tensorflow(?:_cpu)?-(\d+\.\d+)", _dist_info(release))
    if version is None:
        raise SystemExit(f"{release} has no tensorflow-*.dist-info")
    header = (root / "include/tensorflow/core/public/version.h").read_text()
    graph_version = re.search(r"#define TF_GRAPH_DEF_VERSION (\d+)", header)
    if graph_version is None:
        raise SystemExit(f"{release} has no TF_GRAPH_DEF_VERSION in version.h")
    return {
        "version": version[1],
        "graph_version": int(graph_version[1]),
        "runnable": sorted(own & runnable),
        "registered": sorted(own - runnable),
        "linked": linked,
    }


def merge(releases: list[dict[str, Any]]) -> str:
    """Return the file's text: names by the versions that have them, so that each stands there once or twice.

    Operations of plugins count for all versions: a plugin that is built for another release cannot be loaded.
    """
    releases = sorted(releases, key=lambda one: _minor(one["version"]))
    versions = [one["version"] for one in releases]
    linked = sorted({name for one in releases for name in one["linked"]})
    document: dict[str, Any] = {
        "versions": dict(zip(versions, (one["graph_version"] for one in releases), strict=True))
    }
    for kind in ("runnable", "registered"):
        groups: dict[str, list[str]] = {}
        names = sorted({name for one in releases for name in one[kind]})
        for name in names:
            having = [one["version"] for one in releases if name in set(one[kind])]
            groups.setdefault(" ".join(having), []).append(name)
        document[kind] = {
            "*" if having == " ".join(versions) else having: " ".join(names)
            for having, names in sorted(groups.items())
        }
    document["linked"] = " ".join(linked)
    return json.dumps(document, indent=0) + "\n"


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _ops(library: Any) -> set[str]:
    (op_def_pb2,) = import_without_tensorflow(["tensorflow.core.framework.op_def_pb2"])
    listed = op_def_pb2.OpList.FromString(_bytes(library.TF_GetAllOpList()))
    return {one.name for one in listed.op}


def _bytes(buffer: Any) -> bytes:
    return ctypes.string_at(buffer.contents.data, buffer.contents.length)


def _dist_info(release: Path) -> str:
    return next((one.name for one in release.glob("tensorflow*.dist-info")), "")


def main(arguments: list[str]) -> None:
    """Do what the module's docstring shows."""
    what, *paths = arguments
    if what == "collect":
        release, *plugins = map(Path, paths)
        json.dump(collect(release, plugins), sys.stdout)
    else:
        TARGET.write_text(merge([json.loads(Path(one).read_text()) for one in paths]))


if __name__ == "__main__":
    main(sys.argv[1:])
