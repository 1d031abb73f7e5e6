"""Write one small SavedModel with the TensorFlow that is installed: `python write_model.py FOLDER`.

The folders beside this file were written so, by the TensorFlow that each is named after.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf


class Model(tf.Module):  # type: ignore[misc]
    """Variables, one of them of strings, and a table whose vocabulary is a file."""

    def __init__(self, vocabulary: str) -> None:
        super().__init__()
        self.weights = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        self.names = tf.Variable(["a", "b" * 200])
        whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        words = tf.lookup.TextFileInitializer(vocabulary, tf.string, whole, tf.int64, line)
        self.words = tf.lookup.StaticHashTable(words, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
    def look_up(self, words: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"numbers": self.words.lookup(words), "names": self.names}

    @tf.function(input_signature=[tf.TensorSpec([None, 2])])  # type: ignore[untyped-decorator]
    def multiply(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.matmul(x, self.weights)}


def main(folder: str) -> None:
    target = Path(folder).resolve()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # a table's name has its vocabulary's path
        Path("words.txt").write_text("one\ntwo\n")
        model = Model("words.txt")
        signatures = {"serving_default": model.multiply, "look_up": model.look_up}
        tf.saved_model.save(model, str(target), signatures=signatures)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1])
