"""The embedded server: a program that stands in for tensorflow_model_server where there is none.

It answers as TensorFlow Serving 2.19.1 does, over the same files and flags, with the same unfortunate behaviour. Its
state machine (`manager`, `core` and what they import) knows neither TensorFlow nor gRPC; `capi` reaches TensorFlow
through its C API. No other room imports this one: engines and `run-server` execute it.
"""
