"""A training run: finds the SavedModel in its directory and says what else is there.

Read-only. It reads names and a few bytes of small files, never weights; it opens no pickle and follows no link out
of the run. Whether the SavedModel is whole and can be served is another room's question.

One module per producer: savedmodels.py (tf.saved_model, Keras export, tf.estimator), checkpoints.py,
keras.py, tensorboard.py, mlflow.py, metric_files.py, and others.py for all that is only named.
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

# Records of versions hold some of these values: what looks into runs is imported when it is asked for.
__getattr__ = names_from(__name__, _HOMES)
