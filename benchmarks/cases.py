"""Cases: how much a smoke test of 1,000 cases costs beside a bare gRPC loop, and how fast a large array is encoded.

The bare loop sends the very same requests, built before, one after the other, to the same warm embedded server, and
reads nothing of the answers. The encoding of 64 MB is of an array into a TensorProto, against numpy's `tobytes`. Both
are compared in turns.
"""

from __future__ import annotations

import gc
import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks import timing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES = 1000
LOOP_LIMIT, ENCODING_LIMIT = 1.15, 5.0
ELEMENTS = 16 << 20


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=7)
    with timing.workplace(options.dir) as folder:
        loop, smoke = measure_loop(folder, options.rounds)
        raw, encoded, whole = measure_encoding(options.rounds)
    ratio = timing.middle([one / other for one, other in zip(smoke, loop, strict=True)])
    encoding = timing.middle([one / other for one, other in zip(encoded, raw, strict=True)])
    targets = [
        timing.Target(f"{CASES} cases / a bare gRPC loop", ratio, LOOP_LIMIT),
        timing.Target("encoding 64 MB / numpy's tobytes", encoding, ENCODING_LIMIT),
    ]
    measured = {
        "rounds": options.rounds,
        "loop_seconds": timing.middle(loop),
        "cases_seconds": timing.middle(smoke),
        "cases_ratio": ratio,
        "tobytes_seconds": timing.middle(raw),
        "encoding_seconds": timing.middle(encoded),
        "encoding_ratio": encoding,
        "array_to_tensor_seconds": timing.middle(whole),
    }
    timing.report("cases", measured, targets, folder=options.dir)


def measure_loop(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the bare loop and of the smoke test, in turns."""
    import grpc

    from servingrepo.deadline import Deadline
    from servingrepo.protos import service_modules
    from servingrepo.savedmodel.inspection import inspect_export
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.engines.embedded import EmbeddedEngine
    from servingrepo.smoke.files import Cases, as_source
    from servingrepo.smoke.run import run_smoke
    from servingrepo.testing.exports import write_export

    export = write_export(folder / "1")
    inspection = inspect_export(export)
    path = write_cases(folder / "cases.jsonl")
    deadline = Deadline.after(600.0)
    requests = bare_requests()
    bare: list[float] = []
    smoke: list[float] = []
    with (
        EmbeddedEngine().serve(model="m", version=1, export=export, deadline=deadline) as server,
        ServingClient(server.endpoint) as client,
        grpc.insecure_channel(str(server.endpoint)) as channel,
    ):
        stub = service_modules()[0].PredictionServiceStub(channel)
        for number in range(rounds + 1):
            loop = seconds(lambda: [stub.Predict(one, timeout=60) for one in requests])
            cases = Cases(sources=(as_source(path),))
            start = time.perf_counter()
            report = run_smoke(
                client,
                model="m",
                version=1,
                inspection=inspection,
                cases=cases,
                deadline=deadline,
            )
            took = time.perf_counter() - start
            if report.count("passed") != CASES:
                raise SystemExit(f"{report.count('passed')} of {CASES} cases passed")
            if number:  # the first pair warms up
                bare.append(loop)
                smoke.append(took)
    return bare, smoke


def write_cases(path: Path) -> Path:
    """Write cases that expect an answer each: y = 0.5 x + 2."""
    with path.open("w") as file:
        file.write('{"schema": 1}\n')
        for number in range(CASES):
            values = [float(number + place) for place in range(8)]
            answers = {"y": {"close": [0.5 * one + 2 for one in values]}}
            case = {"inputs": {"x": values}, "expect": {"outputs": answers}}
            file.write(json.dumps(case) + "\n")
    return path


def bare_requests() -> list[Any]:
    """Return the requests of the same cases."""
    from servingrepo.protos import predict_pb2, types_pb2

    requests = []
    for number in range(CASES):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.model_spec.version.value = 1
        request.model_spec.signature_name = "serving_default"
        tensor = request.inputs["x"]
        tensor.dtype = types_pb2.DT_FLOAT
        tensor.tensor_shape.dim.add(size=8)
        tensor.float_val.extend(float(number + place) for place in range(8))
        requests.append(request)
    return requests


def measure_encoding(rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of tobytes, of an Array into a TensorProto, and of a numpy array into one."""
    import numpy as np

    from servingrepo.smoke.npz import array_of
    from servingrepo.smoke.tensors import array_tensor

    values = np.arange(ELEMENTS, dtype="float32")
    raw: list[float] = []
    encoded: list[float] = []
    whole: list[float] = []
    array = array_of(values)
    for number in range(rounds + 1):
        took = (
            seconds(values.tobytes),
            seconds(lambda: array_tensor(array)),
            seconds(lambda: array_tensor(array_of(values))),
        )
        if number:
            for times, one in zip((raw, encoded, whole), took, strict=True):
                times.append(one)
    return raw, encoded, whole


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
