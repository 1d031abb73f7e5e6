"""Run in the environment `tfx`: TFX's Pusher pushes what lies where its Trainer leaves it. The argument is where."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from tfx.components.pusher.executor import Executor
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.utils import path_utils, proto_utils


def trained(root: Path, execution: int, factor: float) -> Any:
    """Leave a model in the place that the Trainer gives its module (fn_args.serving_model_dir)."""
    model = standard_artifacts.Model()
    model.uri = str(root / f"Trainer/model/{execution}")
    module = tf.Module()
    module.factor = tf.Variable(factor)
    spec = [tf.TensorSpec([None], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module.factor * x}, input_signature=spec)
    to = path_utils.serving_model_dir(model.uri)
    tf.saved_model.save(module, to, signatures=module.serve)
    return model


def push(root: Path, model: Any, execution: int, to: Path) -> None:
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(root / f"Pusher/pushed_model/{execution}")
    where = pusher_pb2.PushDestination.Filesystem(base_directory=str(to))
    destination = pusher_pb2.PushDestination(filesystem=where)
    Executor().Do(
        {specs.MODEL_KEY: [model]},
        {specs.PUSHED_MODEL_KEY: [pushed]},
        {specs.PUSH_DESTINATION_KEY: proto_utils.proto_to_json(destination)},
    )


def main(root: Path) -> None:
    first = trained(root, 5, 2.0)
    push(root, first, 6, root / "serving_model/once")
    push(root, first, 7, root / "serving_model/twice")
    time.sleep(1.1)  # the Pusher numbers versions by the second
    push(root, trained(root, 8, 3.0), 9, root / "serving_model/twice")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
