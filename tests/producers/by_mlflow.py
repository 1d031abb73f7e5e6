"""Run in the environment `mlflow`: MLflow's runs in a file store and in its default store. The argument is where."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import mlflow
import tensorflow as tf


def doubling() -> Any:
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    spec = [tf.TensorSpec([None, 3], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module.factor * x}, input_signature=spec)
    return module


# Said here, because MLflow would find them out in a process of its own for each model.
NEEDS = ["tensorflow"]


def main(root: Path) -> None:
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, name="out")])
    model.compile("sgd", "mse")
    model.export(root / "export/saved_model", verbose=False)
    mlflow.tensorflow.save_model(model, root / "saved/keras", pip_requirements=NEEDS)
    mlflow.tensorflow.save_model(doubling(), root / "saved/module", pip_requirements=NEEDS)
    runs = {}
    for store in ("files", "default"):
        (root / store).mkdir()
        os.chdir(root / store)
        if store == "files":
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            mlflow.set_tracking_uri((root / "files/mlruns").as_uri())
        else:
            mlflow.set_tracking_uri(None)
        runs[store] = ids(root / store, model)
    (root / "ids.json").write_text(json.dumps(runs))


def ids(store: Path, model: Any) -> dict[str, str]:
    """Log a run with two models and an export among its artifacts, and one with a model only; say where they are."""
    mlflow.set_experiment("prices")
    with mlflow.start_run(run_name="baseline") as run:
        mlflow.log_params({"lr": 0.1, "api_token": "s3cr3t"})
        for step, value in enumerate([0.5, 0.75, 0.7]):
            mlflow.log_metric("validation/auc", value, step=step)
        of_keras = mlflow.tensorflow.log_model(model, name="keras_model", pip_requirements=NEEDS)
        of_module = mlflow.tensorflow.log_model(doubling(), name="module", pip_requirements=NEEDS)
        mlflow.log_artifacts(str(store.parent / "export"), "exported")
    with mlflow.start_run(run_name="bare") as bare:
        mlflow.log_text("a summary", "model_summary.txt")
        mlflow.tensorflow.log_model(model, name="model", pip_requirements=NEEDS)
    mlflow.artifacts.download_artifacts(of_module.model_uri, dst_path=str(store / "download"))
    experiment = store / "mlruns" / run.info.experiment_id
    return {
        "experiment": run.info.experiment_id,
        "run": str(experiment / run.info.run_id),
        "bare": str(experiment / bare.info.run_id),
        "keras_model": str(experiment / "models" / of_keras.model_id),
        "module": str(experiment / "models" / of_module.model_id),
        "download": str(store / "download"),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
