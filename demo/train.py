"""Train two small real models with TensorFlow and leave run directories behind, as a training job does.

    python demo/train.py WORK

makes WORK/runs/<run>/{saved_model,checkpoints,config.json,metrics.json} for a house price model, trained twice, and
a text classifier with a vocabulary file, and one run whose SavedModel has lost its variables.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(7)
TEXTS = [
    "great product",
    "really great",
    "bad bad thing",
    "awful",
    "good and great",
    "bad awful day",
]
LIKED = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


class Prices(tf.Module):
    """Price in thousands from area and rooms: linear regression by gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.zeros([2, 1]), name="weights")
        self.bias = tf.Variable(tf.zeros([1]), name="bias")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="features")])
    def price(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return a price for each row of area (in 100 m²) and rooms."""
        return {"price": tf.matmul(features, self.weights) + self.bias}


class Opinions(tf.Module):
    """Whether a text is friendly: a bag of words over a vocabulary file, and logistic regression."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.words = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )
        size = len(vocabulary.read_text().split()) + 1
        self.weights = tf.Variable(tf.zeros([size]), name="weights")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def friendly(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the probability that each text is friendly."""
        ids = self.words.lookup(tf.strings.split(text).to_tensor())
        return {"probability": tf.sigmoid(tf.reduce_sum(tf.gather(self.weights, ids), axis=1))}


def train_prices(run: Path, *, steps: int) -> None:
    """Train for some steps and export."""
    model = Prices()
    features = RNG.uniform([0.3, 1], [2.0, 6], size=(200, 2)).astype("float32")
    prices = features @ np.array([[180.0], [12.0]], dtype="float32") + 30.0
    optimizer = 0.05
    loss = tf.constant(0.0)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model.price(features)["price"] - prices) ** 2)
        for variable, slope in zip(
            (model.weights, model.bias),
            tape.gradient(loss, (model.weights, model.bias)),
            strict=True,
        ):
            variable.assign_sub(optimizer * slope)
    tf.saved_model.save(
        model, str(run / "saved_model"), signatures={"serving_default": model.price}
    )
    tf.train.Checkpoint(model=model).save(str(run / "checkpoints" / "ckpt"))
    finish(run, loss=float(loss), steps=steps)


def train_opinions(run: Path) -> None:
    """Train the text classifier and export it with its vocabulary."""
    vocabulary = run / "vocabulary.txt"
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_text(
        "\n".join(sorted({word for text in TEXTS for word in text.split()})) + "\n"
    )
    model = Opinions(vocabulary)
    loss = tf.constant(0.0)
    for _ in range(100):
        with tf.GradientTape() as tape:
            probability = model.friendly(tf.constant(TEXTS))["probability"]
            loss = tf.reduce_mean(tf.keras.losses.binary_crossentropy(LIKED, probability))
        slopes = tf.convert_to_tensor(tape.gradient(loss, model.weights))
        model.weights.assign_sub(0.5 * slopes)
    tf.saved_model.save(
        model, str(run / "saved_model"), signatures={"serving_default": model.friendly}
    )
    finish(run, loss=float(loss), steps=100)


def finish(run: Path, *, loss: float, steps: int) -> None:
    """Leave a config and metrics, as training jobs do."""
    (run / "config.json").write_text(json.dumps({"steps": steps, "optimizer": "sgd"}) + "\n")
    (run / "metrics.json").write_text(json.dumps({"loss": loss}) + "\n")
    print(f"trained {run.name}: {steps} steps, loss {loss:.3g}")


def main(work: Path) -> None:
    """Make all run directories."""
    runs = work / "runs"
    train_prices(runs / "2026_05_10_prices", steps=60)
    train_prices(runs / "2026_05_17_prices", steps=600)
    train_opinions(runs / "2026_05_11_opinions")
    broken = runs / "2026_05_18_prices_broken"
    shutil.copytree(runs / "2026_05_17_prices", broken)
    shutil.rmtree(broken / "saved_model" / "variables")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
