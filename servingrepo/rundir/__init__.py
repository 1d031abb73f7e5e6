"""What a training run left behind: finds the SavedModel in a run directory and says what else is there.

Read-only. It looks at names and at a few bytes of small files, never reads weights, never opens pickles, and
follows no link out of the run. Whether the SavedModel is whole and can be served is another room's question.

One module per producer: savedmodels.py (tf.saved_model, Keras export), estimator.py, checkpoints.py,
keras.py, and others.py for all that is only named.
"""

from servingrepo.rundir.scan import scan_run
from servingrepo.rundir.values import Candidate, ExportKind, Other, OtherKind, RunScan

__all__ = ["Candidate", "ExportKind", "Other", "OtherKind", "RunScan", "scan_run"]
