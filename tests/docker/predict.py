"""Runs inside a container: sends one Predict for x=[4] and prints the version and y.

usage: python - HOST:PORT MODEL < predict.py
"""

from __future__ import annotations

import sys

import grpc

from servingrepo.protos import predict_pb2, service_modules, types_pb2

endpoint, model = sys.argv[1:]
request = predict_pb2.PredictRequest()
request.model_spec.name = model
request.inputs["x"].dtype = types_pb2.DT_FLOAT
request.inputs["x"].tensor_shape.dim.add().size = 1
request.inputs["x"].float_val.append(4.0)
prediction, _ = service_modules()
stub = prediction.PredictionServiceStub(grpc.insecure_channel(endpoint))
reply = stub.Predict(request, timeout=10)
sys.stdout.write(f"{reply.model_spec.version.value} {reply.outputs['y'].float_val[0]:g}\n")
