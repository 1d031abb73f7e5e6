"""Run in the environment `estimator`: what Keras 2, which TensorFlow had until 2.15, saves. The argument is where."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(root: Path) -> None:
    keras = tf.keras
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, name="out")])
    model.compile("sgd", "mse")
    (root / "best").mkdir()
    model.fit(
        np.ones([32, 3], np.float32),
        np.zeros([32, 2], np.float32),
        epochs=2,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(str(root / "saved/model-{epoch:02d}")),
            keras.callbacks.ModelCheckpoint(str(root / "best/best.h5")),
            keras.callbacks.ModelCheckpoint(
                str(root / "weights/cp-{epoch:04d}.ckpt"), save_weights_only=True
            ),
        ],
    )
    (root / "zipped").mkdir()
    model.save(root / "zipped/model.keras")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
