"""Runs inside a container in place of tensorflow_model_server: a fake that starts in half a second.

Its config, flags, ports and words are the real ones as far as the docker engine looks at them; what it answers is
made up. `--fake=…` makes it misbehave: `refuse` a model, be `deaf` (never listen), `quit`, answer `http`, be
`stubborn` (ignore signals), be `greedy` (for memory), be `slow`. `--unlisted=…` is a flag
that the server does not know.
"""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc

from servingrepo.modelconfig import models, parse
from servingrepo.protos import (
    get_model_status_pb2,
    predict_pb2,
    saved_model_pb2,
    service_modules,
    types_pb2,
)
from servingrepo.testing.fake_server import FakeServing, _Services

SLOW_SECONDS = 5


class Fake(FakeServing):
    def GetModelStatus(self, *_: Any) -> Any:  # noqa: N802 - gRPC's name
        reply = get_model_status_pb2.GetModelStatusResponse()
        one = reply.model_version_status.add(version=self.version)
        one.state = get_model_status_pb2.ModelVersionStatus.State.Value("AVAILABLE")
        return reply

    def Predict(self, request: Any, _: Any) -> Any:  # noqa: N802 - gRPC's name
        reply = predict_pb2.PredictResponse()
        reply.model_spec.version.value = self.version
        given = request.inputs["x"]
        answer = reply.outputs["y"]
        answer.dtype = types_pb2.DT_FLOAT
        answer.tensor_shape.CopyFrom(given.tensor_shape)
        count = 1
        for dim in given.tensor_shape.dim:
            count *= dim.size
        answer.float_val.extend([2.0] * count)
        return reply


def serve(flags: dict[str, str]) -> None:
    if "unlisted" in flags:
        print(f"unknown argument: --unlisted={flags['unlisted']}\nusage: …", flush=True)
    config = parse(Path(flags["model_config_file"]).read_text())
    (entry,) = models(config)
    (version,) = entry.versions
    content = (Path(entry.base_path) / str(version) / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    fake = Fake(dict(graph.signature_def))
    fake.version = version
    prediction, model = service_modules()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    prediction.add_PredictionServiceServicer_to_server(
        _Services(fake, prediction.PredictionServiceServicer), server
    )
    model.add_ModelServiceServicer_to_server(_Services(fake, model.ModelServiceServicer), server)
    port = flags.get("port", "8500")
    if port != "0":
        server.add_insecure_port(f"0.0.0.0:{port}")
    if "grpc_socket_path" in flags:
        server.add_insecure_port(f"unix:{flags['grpc_socket_path']}")
    server.start()
    print("Running gRPC ModelServer ...", flush=True)
    server.wait_for_termination()


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(418)


def main(arguments: list[str]) -> int:
    flags = dict(one.lstrip("-").split("=", 1) for one in arguments)
    match flags.get("fake"):
        case "refuse":
            print(
                "Failed to start server. Error: Unknown: 1 servable(s) did not become available: {{{name: model "
                "version: 1} due to error: NOT_FOUND: Op type not registered 'FromTheFuture'}, }"
            )
            return 255
        case "deaf":
            print("thinking about it", flush=True)
            time.sleep(3600)
        case "quit":
            print("done", flush=True)
            return 0
        case "http":
            HTTPServer(("", 8500), Hello).serve_forever()
        case "stubborn":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            print("I stay", flush=True)
            time.sleep(3600)
        case "greedy":
            kept = []
            while True:
                kept.append(bytearray(b"x") * (16 << 20))
        case "slow":
            time.sleep(SLOW_SECONDS)
            serve(flags)
        case _:
            serve(flags)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
