"""Run in the environment `tfx`: TFX's Trainer trains and its Pusher pushes. The argument is where."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from tfx.components.pusher import executor as pusher
from tfx.components.trainer import executor as trainer
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.utils import proto_utils


def run_fn(given: Any) -> None:
    """What a user of the Trainer writes: it saves the model where it is told to."""
    module = tf.Module()
    module.factor = tf.Variable(given.custom_config["factor"])
    spec = [tf.TensorSpec([None], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module.factor * x}, input_signature=spec)
    tf.saved_model.save(module, given.serving_model_dir, signatures=module.serve)
    with tf.summary.create_file_writer(given.model_run_dir).as_default():
        tf.summary.scalar("loss", 0.5, step=1)


def trained(root: Path, execution: int, factor: float) -> Any:
    """Let the Trainer's executor call the function above."""
    examples = standard_artifacts.Examples()
    examples.uri = str(root / "CsvExampleGen/examples/1")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    model, model_run = standard_artifacts.Model(), standard_artifacts.ModelRun()
    model.uri = str(root / f"Trainer/model/{execution}")
    model_run.uri = str(root / f"Trainer/model_run/{execution}")
    trainer.GenericExecutor().Do(
        {specs.EXAMPLES_KEY: [examples]},
        {specs.MODEL_KEY: [model], specs.MODEL_RUN_KEY: [model_run]},
        {
            specs.TRAIN_ARGS_KEY: "{}",
            specs.EVAL_ARGS_KEY: "{}",
            specs.MODULE_FILE_KEY: __file__,
            specs.CUSTOM_CONFIG_KEY: json.dumps({"factor": factor}),
        },
    )
    return model


def push(root: Path, model: Any, execution: int, to: Path) -> None:
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(root / f"Pusher/pushed_model/{execution}")
    where = pusher_pb2.PushDestination.Filesystem(base_directory=str(to))
    destination = pusher_pb2.PushDestination(filesystem=where)
    pusher.Executor().Do(
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
