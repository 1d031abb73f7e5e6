"""Training runs: find the SavedModel in a run directory, and read what else training left there.

This room only reads. It reads names, events, metrics and configuration, but no weights. It opens no pickle and
follows no link out of the run. The room `savedmodel` checks whether the SavedModel is whole and can be served.

Each producer has a module: savedmodels.py (tf.saved_model, Keras export, tf.estimator), checkpoints.py, keras.py,
tensorboard.py, mlflow.py and metric_files.py. The module others.py recognizes files that are only named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from

if TYPE_CHECKING:
    from servingrepo.runs.measure import measure_run
    from servingrepo.runs.measurements import EventRun, Measured, Measurement, Point
    from servingrepo.runs.scan import scan_run
    from servingrepo.runs.values import Candidate, ExportKind, Other, OtherKind, RunScan

__all__ = [
    "Candidate",
    "EventRun",
    "ExportKind",
    "Measured",
    "Measurement",
    "Other",
    "OtherKind",
    "Point",
    "RunScan",
    "measure_run",
    "scan_run",
]

_HOMES = {
    "Candidate": "values",
    "EventRun": "measurements",
    "ExportKind": "values",
    "Measured": "measurements",
    "Measurement": "measurements",
    "Other": "values",
    "OtherKind": "values",
    "Point": "measurements",
    "RunScan": "values",
    "measure_run": "measure",
    "scan_run": "scan",
}

# Records of versions have some of these values, so importing them is cheap. Code that reads runs is imported on use.
__getattr__ = names_from(__name__, _HOMES)
