"""Run in the environment `packed`: SageMaker's SDK packs what a training container left. The argument is where.

The service's own packing is not public; its local mode, which is the SDK's code, does the same: everything below
/opt/ml/model becomes model.tar.gz, everything below /opt/ml/output becomes output.tar.gz.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import tensorflow as tf
from sagemaker.local.image import _SageMakerContainer
from sagemaker.utils import repack_model


def main(root: Path) -> None:
    ml = root / "ml"
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    spec = [tf.TensorSpec([None], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module.factor * x}, input_signature=spec)
    tf.saved_model.save(module, str(ml / "model/000000001"), signatures=module.serve)
    (ml / "output/data").mkdir(parents=True)
    (ml / "output/data/metrics.json").write_text('{"auc": 0.9}')
    tf.train.Checkpoint(factor=module.factor).save(str(ml / "checkpoints/ckpt"))
    volumes = [f"{ml}/model:/opt/ml/model", f"{ml}/output:/opt/ml/output:z"]
    job = SimpleNamespace(container_root=str(root), hosts=["algo-1"], sagemaker_session=None)
    packed = _SageMakerContainer.retrieve_artifacts(
        job, {"services": {"algo-1": {"volumes": volumes}}}, {"S3OutputPath": ""}, "job"
    )
    (root / "inference.py").write_text("def input_handler(data, context): ...\n")
    session = SimpleNamespace(settings=None)
    repack_model(
        str(root / "inference.py"),
        None,
        None,
        packed,
        f"file://{root}/repacked.tar.gz",
        session,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
