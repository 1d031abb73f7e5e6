"""Training runs: find the SavedModel in a run directory, and read what else training left there.

This room only reads. It reads names, events, metrics and configuration, but no weights. It opens no pickle and
follows no link out of the run. The room `savedmodel` checks whether the SavedModel is whole and can be served.

Each producer has a module: savedmodels.py (tf.saved_model, Keras export, tf.estimator), checkpoints.py, keras.py,
tensorboard.py, mlflow.py and metric_files.py. The module others.py recognizes files that are only named.
"""
