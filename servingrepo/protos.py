"""The only door to TensorFlow's and TensorFlow Serving's generated message classes.

`import tensorflow_serving.apis.predict_pb2` runs `tensorflow/__init__.py`, which starts all of TensorFlow:
2.5 to 3.4 s and 537 MB. The generated modules themselves need only `google.protobuf`. So they are imported
behind a bare package object that has the real package's search path; it is taken away again at once, and a
real `import tensorflow` afterwards works and finds the same message classes (the descriptor pool is one).
Measured: 0.09 s and 33 MB. Nothing else in servingrepo knows of this.

The message modules are untyped (TensorFlow ships no stubs for them), so they are `Any` here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from servingrepo.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_lock = threading.RLock()


def import_without_tensorflow(names: Iterable[str]) -> list[Any]:
    """Import generated modules by full name without running `tensorflow/__init__.py`.

    Raises:
        EngineUnavailable: The packages that hold the modules are not installed.
    """
    with _lock:
        if "tensorflow" in sys.modules:
            return [importlib.import_module(name) for name in names]
        spec = importlib.util.find_spec("tensorflow")
        if spec is None or not spec.submodule_search_locations:
            raise EngineUnavailable(
                "the Python package tensorflow is not installed: its message classes are needed",
                hint="pip install tensorflow tensorflow-serving-api",
            )
        bare = ModuleType("tensorflow")
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules["tensorflow"] = bare
        try:
            return [importlib.import_module(name) for name in names]
        except ImportError as error:
            raise EngineUnavailable(
                f"generated message classes cannot be imported: {error}",
                hint="pip install tensorflow tensorflow-serving-api",
            ) from error
        finally:
            del sys.modules["tensorflow"]


_MODULES = {
    name.rpartition(".")[2]: name
    for name in (
        "tensorflow.core.framework.types_pb2",
        "tensorflow.core.framework.tensor_pb2",
        "tensorflow.core.framework.tensor_shape_pb2",
        "tensorflow.core.framework.graph_pb2",
        "tensorflow.core.framework.summary_pb2",
        "tensorflow.core.protobuf.saved_model_pb2",
        "tensorflow.core.protobuf.meta_graph_pb2",
        "tensorflow.core.protobuf.fingerprint_pb2",
        "tensorflow.core.protobuf.tensor_bundle_pb2",
        "tensorflow.core.protobuf.error_codes_pb2",
        "tensorflow.core.util.event_pb2",
        "tensorflow.core.example.example_pb2",
        "tensorflow.core.example.feature_pb2",
        "tensorflow_serving.apis.model_pb2",
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow_serving.apis.classification_pb2",
        "tensorflow_serving.apis.regression_pb2",
        "tensorflow_serving.apis.inference_pb2",
        "tensorflow_serving.apis.input_pb2",
        "tensorflow_serving.apis.get_model_metadata_pb2",
        "tensorflow_serving.apis.get_model_status_pb2",
        "tensorflow_serving.apis.model_management_pb2",
        "tensorflow_serving.apis.prediction_log_pb2",
        "tensorflow_serving.apis.status_pb2",
        "tensorflow_serving.config.model_server_config_pb2",
        "tensorflow_serving.config.file_system_storage_path_source_pb2",
    )
}


def __getattr__(name: str) -> Any:
    """Import a message module when it is first asked for, with only what it needs itself."""
    if name not in _MODULES:
        raise AttributeError(f"servingrepo.protos has no message module {name}")
    (module,) = import_without_tensorflow([_MODULES[name]])
    globals()[name] = module
    return module


def service_modules() -> tuple[Any, Any]:
    """Return `prediction_service_pb2_grpc` and `model_service_pb2_grpc`; importing them imports grpc."""
    prediction, model = import_without_tensorflow(
        [
            "tensorflow_serving.apis.prediction_service_pb2_grpc",
            "tensorflow_serving.apis.model_service_pb2_grpc",
        ]
    )
    return prediction, model
