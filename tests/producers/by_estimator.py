"""Run in the environment `estimator`: TensorFlow 2.15's Estimators. The argument is where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

COLUMNS = [tf.feature_column.numeric_column("x")]


def data() -> Any:
    x = np.linspace(-1, 1, 64).astype(np.float32)[:, None]
    return tf.data.Dataset.from_tensor_slices(({"x": x}, 3 * x + 1))


def train() -> Any:
    return data().repeat().batch(16)


def evaluate() -> Any:
    return data().batch(16)


def serving() -> Any:
    specification = tf.feature_column.make_parse_example_spec(COLUMNS)
    return tf.estimator.export.build_parsing_serving_input_receiver_fn(specification)()


def evaluating() -> Any:
    """What an export for evaluation takes: features and labels."""
    one = tf.zeros([1, 1])
    return tf.estimator.experimental.build_raw_supervised_input_receiver_fn({"x": one}, one)()


def estimator(model_dir: Path, steps: int = 20) -> Any:
    config = tf.estimator.RunConfig(
        model_dir=str(model_dir),
        save_checkpoints_steps=steps,
        save_summary_steps=10,
        tf_random_seed=1,
    )
    return tf.estimator.LinearRegressor(COLUMNS, config=config)


def train_with(model_dir: Path, *exporters: Any) -> None:
    tf.estimator.train_and_evaluate(
        estimator(model_dir),
        tf.estimator.TrainSpec(train, max_steps=60),
        tf.estimator.EvalSpec(
            evaluate, steps=None, exporters=exporters, start_delay_secs=0, throttle_secs=0
        ),
    )


def main(root: Path) -> None:
    latest = tf.estimator.LatestExporter("latest", serving, exports_to_keep=2)
    best = tf.estimator.BestExporter(serving_input_receiver_fn=serving)
    train_with(root / "latest", latest)
    train_with(root / "best_and_latest", best, latest)
    estimator(root / "bare").train(train, steps=40)
    by_hand = estimator(root / "by_hand")
    by_hand.train(train, steps=40)
    by_hand.export_saved_model(str(root / "by_hand/export"), serving)
    # TFX's Trainer for estimators gave Format-Serving as the model_dir, and TFMA's
    # export_eval_savedmodel exported to Format-TFMA, by this call.
    train_with(root / "tfx/Format-Serving", latest)
    estimator(root / "tfx/Format-Serving").experimental_export_all_saved_models(
        str(root / "tfx/Format-TFMA"), {tf.estimator.ModeKeys.EVAL: evaluating}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
