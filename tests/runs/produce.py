"""Run in a child process: real producers leave what they leave. The argument is where."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

TF1 = tf.compat.v1


def main(root: Path) -> None:
    events(root)
    checkpoints(root)
    keras_run(root / "keras_run")
    awkward_models(root / "awkward")
    sharded(root / "sharded")
    expected(root)


def events(root: Path) -> None:
    with tf.summary.create_file_writer(str(root / "tf2/train")).as_default():
        for step in range(300):
            tf.summary.scalar("loss", 1 / (step + 1), step=step)
            tf.summary.scalar("accuracy", 0.5 + 0.001 * min(step, 200), step=step)
        tf.summary.histogram("weights", np.arange(9.0), step=3)
        tf.summary.image("image", np.zeros([1, 200, 200, 3]), step=3)
        tf.summary.image("noise", np.random.default_rng(1).random([1, 300, 300, 3]), step=3)
        tf.summary.text("note", "hello", step=3)
    with tf.Graph().as_default() as graph:
        tf.constant(1.0)
        with TF1.summary.FileWriter(str(root / "tf1"), graph) as writer:
            for step in range(0, 1000, 10):
                values = [
                    TF1.Summary.Value(tag=tag, simple_value=value)
                    for tag, value in {"loss": 10 / (step + 1), "global_step/sec": 8.5}.items()
                ]
                writer.add_summary(TF1.Summary(value=values), step)
    # Two jobs that were given one directory, at the same time.
    two = [
        tf.summary.create_file_writer(str(root / "mixed"), filename_suffix=f".{n}") for n in (1, 2)
    ]
    for step in range(5):
        for number, writer2 in enumerate(two):
            with writer2.as_default():
                tf.summary.scalar("loss", number + step, step=step)
    for writer2 in two:
        writer2.close()


def checkpoints(root: Path) -> None:
    step, weights = tf.Variable(1, dtype=tf.int64), tf.Variable(np.ones([4, 2], np.float32))
    checkpoint = tf.train.Checkpoint(step=step, weights=weights)
    manager = tf.train.CheckpointManager(checkpoint, str(root / "manager/ckpts"), max_to_keep=3)
    for _ in range(5):
        manager.save()
    # The prefix is a path, not a directory: without the last name the files lie beside it.
    checkpoint.save(str(root / "prefix/ckpts/"))
    checkpoint.save(str(root / "accident/checkpoints"))
    (root / "accident/checkpoints").mkdir()


def keras_run(run: Path) -> None:
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, name="out")])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones([32, 3], np.float32), np.zeros([32, 2], np.float32)
    (run / "checkpoints").mkdir(parents=True)
    model.fit(
        x,
        y,
        epochs=4,
        validation_split=0.25,
        verbose=0,
        callbacks=[
            keras.callbacks.TensorBoard(str(run / "logs")),
            keras.callbacks.CSVLogger(str(run / "training.csv")),
            keras.callbacks.ModelCheckpoint(
                str(run / "checkpoints/best.keras"), save_best_only=True
            ),
        ],
    )
    model.save(run / "models.h5")
    model.save_weights(run / "model.weights.h5")
    model.export(run / "saved_model", verbose=False)
    metrics = {"validation": model.evaluate(x, y, verbose=0, return_dict=True), "examples": 32}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "config.json").write_text(json.dumps({"layers": [2], "lr": 0.01, "api_token": "s3cr3t"}))


def sharded(folder: Path) -> None:
    """Weights in files of 50 bytes, two of them."""
    import keras

    folder.mkdir()
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2), keras.layers.Dense(2)])
    model.save_weights(folder / "model.weights.json", max_shard_size=5e-8)


CUSTOM = """
import keras

@keras.saving.register_keras_serializable(package="ours")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def awkward_models(folder: Path) -> None:
    """Models whose loading runs code."""
    import keras

    folder.mkdir()
    (folder / "custom.py").write_text(CUSTOM)
    names: dict[str, Any] = {}
    exec(CUSTOM, names)  # noqa: S102 - the text above
    model = keras.Sequential([keras.Input([3]), names["Twice"]()])
    model.save(folder / "custom.keras")
    model.save(folder / "custom.h5")
    model = keras.Sequential([keras.Input([3]), keras.layers.Lambda(lambda x: x + 1)])
    model.save(folder / "lambda.keras")
    model.save(folder / "lambda.h5")


def expected(root: Path) -> None:
    """Leave what TensorFlow's own reader reads of each event file."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for path in sorted(root.rglob("*tfevents*")):
        tags = found.setdefault(str(path.relative_to(root)), {})
        for event in TF1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = scalar(value)
                if number is not None:
                    tags.setdefault(value.tag, []).append((event.step, number))
    (root / "expected.json").write_text(json.dumps(found))


def scalar(value: Any) -> float | None:
    if value.WhichOneof("value") == "simple_value":
        return float(value.simple_value)
    if value.metadata.plugin_data.plugin_name == "scalars":
        return float(tf.make_ndarray(value.tensor))
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
