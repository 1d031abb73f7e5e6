"""The embedded server: requests per second, p50 and p99 with 1, 8 and 32 clients; its start and its end.

The targets are the issue's: ready in at most 1.2 times a process that imports TensorFlow and loads the same
model, in interleaved pairs; ended within a second of SIGTERM, under load too. Clients are threads of one
process that send the same bytes again and again, so that what they cost beside the server stays small.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks import timing
from servingrepo.deadline import Deadline
from servingrepo.protos import predict_pb2, types_pb2
from servingrepo.servers.engines.processes import free_port, wait_until_open
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS = (1, 8, 32)
SECONDS = 4.0
WARM_SECONDS = 1.0
READY_LIMIT, STOP_LIMIT = 1.2, 1.0
METHOD = "/tensorflow.serving.PredictionService/Predict"
PEER = "import sys, tensorflow; tensorflow.saved_model.load(sys.argv[1])"


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=7)
    with timing.workplace(options.dir) as folder:
        export = make_model(folder)
        starts, peers, stops = [], [], []
        peer: timing.Command = [sys.executable, "-c", PEER, export]
        for number in range(options.rounds + 1):
            begun = time.perf_counter()
            with running(folder) as (process, _):
                ready = time.perf_counter() - begun
                stopped = stop(process)
            whole = timing.run(peer, folder=folder).seconds
            if number:  # the first pair fills caches
                starts.append(ready)
                stops.append(stopped)
                peers.append(whole)
        ratio = timing.middle([one / other for one, other in zip(starts, peers, strict=True)])
        with running(folder) as (process, endpoint):
            load = {str(clients): measure(endpoint, clients) for clients in CLIENTS}
            with busy(endpoint, CLIENTS[1]):
                stops.append(under_load := stop(process))
    targets = [
        timing.Target("ready / import tensorflow and load the model", ratio, READY_LIMIT),
        timing.Target("seconds from SIGTERM to the end, the slowest", max(stops), STOP_LIMIT),
    ]
    measured: dict[str, Any] = {
        "rounds": options.rounds,
        "ready_seconds": timing.middle(starts),
        "peer_seconds": timing.middle(peers),
        "ready_ratio": ratio,
        "stop_seconds": timing.middle(stops[:-1]),
        "stop_seconds_under_load": under_load,
        "clients": load,
    }
    timing.report("serving", measured, targets, folder=options.dir)


def make_model(folder: Path) -> Path:
    """Write y = 0.5 x + 2 as version 1 of a model."""
    from servingrepo.testing.exports import write_export

    return write_export(folder / "models" / "half" / "1", slope=0.5, offset=2.0)


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    """Run the server for the block, from when it listens, which is when the model is loaded."""
    endpoint = Endpoint("127.0.0.1", free_port())
    log = folder / "log"
    command = timing.servingrepo(
        "run-server",
        f"--port={endpoint.port}",
        "--model_name=half",
        f"--model_base_path={folder / 'models' / 'half'}",
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env=timing.environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_open(process, endpoint, log=log, deadline=Deadline.after(60), what="the model")
        yield process, endpoint
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> float:
    """End the server as an orchestrator does, and return how long that took."""
    begun = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    return time.perf_counter() - begun


def measure(endpoint: Endpoint, clients: int) -> dict[str, float]:
    """Let so many clients ask without pause for a while, and return how that went."""
    with busy(endpoint, clients) as times:
        time.sleep(WARM_SECONDS)
        for one in times:
            one.clear()
        begun = time.perf_counter()
        time.sleep(SECONDS)
        lasted = time.perf_counter() - begun
        taken = sorted(took for one in times for took in one.copy())
    return {
        "requests_per_second": len(taken) / lasted,
        "p50_ms": 1000 * taken[len(taken) // 2],
        "p99_ms": 1000 * taken[len(taken) * 99 // 100],
    }


@contextmanager
def busy(endpoint: Endpoint, clients: int) -> Iterator[list[list[float]]]:
    """Keep clients asking for the block; yield for each the seconds that its requests took."""
    ended = threading.Event()
    times: list[list[float]] = [[] for _ in range(clients)]
    threads = [threading.Thread(target=ask, args=(endpoint, one, ended)) for one in times]
    for thread in threads:
        thread.start()
    try:
        yield times
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def ask(endpoint: Endpoint, times: list[float], ended: threading.Event) -> None:
    """Send one request after the other over a connection of its own, until the server is gone."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].dtype = types_pb2.DT_FLOAT
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(1.0)
    message = request.SerializeToString()
    # A pool of its own makes it a connection of its own: gRPC would share one.
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(str(endpoint), options=alone) as channel:
        call = channel.unary_unary(METHOD, None, None)
        while not ended.is_set():
            begun = time.perf_counter()
            try:
                call(message, timeout=10)
            except grpc.RpcError:
                return
            times.append(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
