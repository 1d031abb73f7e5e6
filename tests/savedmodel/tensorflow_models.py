"""Let TensorFlow write models and bundles, and say what it makes of them: the other side of a comparison.

It runs in a process of its own: `python tensorflow_models.py FOLDER` writes `m` and `plain` (SavedModels),
`loose` (variables in two shards, one of them partitioned), and `said.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2
from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting


class Model(tf.Module):  # type: ignore[misc]
    """Variables of many dtypes, tables, functions whose arguments have names that begin alike."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        words = tf.lookup.TextFileInitializer(str(vocabulary), tf.string, whole, tf.int64, line)
        self.words = tf.lookup.StaticHashTable(words, -1)
        self.weights = tf.Variable(tf.random.normal([7, 3]))
        self.many = [
            tf.Variable(tf.constant([1, 0], dtype))
            for dtype in (tf.float64, tf.bfloat16, tf.float16, tf.int8, tf.uint16, tf.int64)
        ]
        self.others = [
            tf.Variable([True, False]),
            tf.Variable(tf.constant([1 + 2j], tf.complex128)),
            tf.Variable(["a", "b" * 300, ""]),
            tf.Variable(tf.zeros([0, 3])),
            tf.Variable(tf.zeros([0], tf.string)),
        ]
        values = tf.lookup.KeyValueTensorInitializer(
            tf.constant(["x", "y"]), tf.constant([1, 2], tf.int64)
        )
        self.table = tf.lookup.StaticHashTable(values, -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 7]), tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
    def answer(self, x: tf.Tensor, x_1: tf.Tensor) -> dict[str, tf.Tensor]:
        y = tf.matmul(x, self.weights) + tf.cast(self.many[0][0], tf.float32)
        looked_up = self.table.lookup(x_1) + self.words.lookup(x_1)
        return {"y": tf.reshape(y, [-1]), "y_1": looked_up, "y_10": tf.reduce_sum(y)}

    @tf.function(input_signature=[tf.TensorSpec([])])  # type: ignore[untyped-decorator]
    def choose(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cond(x > 0, lambda: self.weights * 2, lambda: self.weights)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("a\nb\n")
    model = Model(folder / "words.txt")
    signatures = {"serving_default": model.answer, "serving": model.choose}
    tf.saved_model.save(model, folder / "m", signatures=signatures)
    tf.saved_model.save(tf.Module(), folder / "plain")
    write_bundle(folder / "loose" / "variables")
    said = {}
    for name in ("m", "plain"):
        found = fingerprinting.CreateFingerprintDef(str(folder / name))
        message = fingerprint_pb2.FingerprintDef.FromString(found)
        said[name] = {
            field.name: value for field, value in message.ListFields() if value and field.type == 4
        }
    (folder / "said.json").write_text(json.dumps(said))


def write_bundle(folder: Path) -> None:
    folder.mkdir(parents=True)
    tensors = {
        "list": tf.raw_ops.TensorListFromTensor(
            tensor=tf.range(6.0), element_shape=tf.constant([], tf.int32)
        ),
        "texts": tf.constant([b"x" * 200, b"", b"y" * 70_000]),
        "words": tf.constant([b"%d" % number for number in range(5_000)]),
        "plain": tf.random.normal([1000]),
    }
    first, second = str(folder / "first"), str(folder / "second")
    tf.raw_ops.SaveV2(
        prefix=first,
        tensor_names=[*tensors, "sliced"],
        shape_and_slices=[""] * len(tensors) + ["10 4 0,3:0,4"],
        tensors=[*tensors.values(), tf.random.normal([3, 4])],
    )
    tf.raw_ops.SaveV2(
        prefix=second,
        tensor_names=["sliced"],
        shape_and_slices=["10 4 3,7:0,4"],
        tensors=[tf.random.normal([7, 4])],
    )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[first, second], destination_prefix=str(folder / "variables")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
