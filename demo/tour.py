"""`make demo`: the main job from end to end, with real models, on this machine, without Docker.

Everything is made below demo/work; each command is printed before it runs, and what it prints is real.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from servingrepo.modelconfig.paths import START_FLAGS
from servingrepo.protos import predict_pb2, types_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
ROOT = WORK / "serving"
SERVINGREPO = Path(sys.executable).with_name("servingrepo")


def main() -> int:
    """Run the tour."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    say("Train and export two small models with TensorFlow")
    training = subprocess.run(  # nosec B603 # our own programs, with our own arguments
        [sys.executable, str(HERE / "train.py"), str(WORK)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(training.stdout, end="")
    if training.returncode != 0:
        print(training.stderr, file=sys.stderr)
        return 1

    say("A model repository, and what a run directory holds")
    servingrepo("init", "--server-root", str(ROOT / "models"))
    servingrepo("scan", "runs/2026_05_10_prices")

    say("Promote both models: staged, served from there, sent requests over gRPC, then published")
    servingrepo("promote", "runs/2026_05_10_prices", "--model", "prices", "-m", "first")
    servingrepo("promote", "runs/2026_05_11_opinions", "--model", "opinions")

    say("A server that follows models.config (yours would be tensorflow/serving)")
    port = free_port()
    endpoint = f"localhost:{port}"
    server = subprocess.Popen(  # nosec B603 # our own server
        [
            str(SERVINGREPO),
            "run-server",
            f"--port={port}",
            f"--model_config_file={ROOT}/models/models.config",
            *START_FLAGS,
        ],
        stdout=subprocess.DEVNULL,
        stderr=(WORK / "server.log").open("w"),
    )
    try:
        wait_for(port)
        print(f"serving on {endpoint}; its log is {shown(WORK / 'server.log')}")
        predict(endpoint)

        say(
            "Promote a better one to the live server: loaded beside the old one, proven, then switched"
        )
        servingrepo(
            "promote",
            "runs/2026_05_17_prices",
            "--model",
            "prices",
            "-m",
            "600 steps",
            "--endpoint",
            endpoint,
        )
        predict(endpoint)

        say("A broken one is refused before anything is copied")
        servingrepo("promote", "runs/2026_05_18_prices_broken", "--model", "prices", expect=22)

        say("Three in the morning: roll back")
        servingrepo("rollback", "prices", "-m", "complaints", "--endpoint", endpoint)
        predict(endpoint)

        say("Where we are, and how we got here")
        servingrepo("status", "--endpoint", endpoint)
        servingrepo("history")
        servingrepo("verify", "prices@served", "opinions@served")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)

    say("What to try next")
    print(
        f"  {shown(SERVINGREPO)} --root {shown(ROOT)} show prices@2\n"
        f"  {shown(SERVINGREPO)} --root {shown(ROOT)} promote {shown(WORK)}/runs/2026_05_17_prices --model prices"
        "   # refused: marked bad\n"
        f"  {shown(SERVINGREPO)} --root {shown(ROOT)} mark-bad prices@2 --clear\n"
        f"  {shown(SERVINGREPO)} --help"
    )
    return 0


def say(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def servingrepo(*arguments: str, expect: int = 0) -> None:
    """Print a command and run it; another exit code than expected ends the tour."""
    print(f"\n$ servingrepo {shlex.join(arguments)}", flush=True)
    code = subprocess.run(  # nosec B603 # our own programs, with our own arguments
        [str(SERVINGREPO), "--root", str(ROOT), *arguments],
        cwd=WORK,
        # Left to itself, promote takes Docker where that has the image, and the tour would be another one.
        env={**os.environ, "SERVINGREPO_ENGINE": "embedded"},
        check=False,
    ).returncode
    if code != expect:
        sys.exit(f"the tour expected exit code {expect} and got {code}")
    if code:
        print(f"(exit code {code})")


def predict(endpoint: str) -> None:
    """Ask the server for a price, as a client without a version would."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "prices"
    features = request.inputs["features"]
    features.dtype = types_pb2.DT_FLOAT
    features.tensor_shape.dim.add(size=1)
    features.tensor_shape.dim.add(size=2)
    features.float_val.extend([1.0, 4.0])
    with ServingClient(Endpoint.parse(endpoint)) as client:
        answer = client.predict(request, timeout=10)
    price = answer.outputs["price"].float_val[0]
    print(f"\nprices@{answer.model_spec.version.value} says: 100 m², 4 rooms: {price:.0f} thousand")


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: int, *, seconds: float = 60.0) -> None:
    """Wait until the server listens: it does once its models are loaded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"the server did not come up; see {WORK / 'server.log'}")


def shown(path: Path) -> str:
    """Return a path as seen from the project."""
    return str(path.relative_to(HERE.parent)) if path.is_relative_to(HERE.parent) else str(path)


if __name__ == "__main__":
    sys.exit(main())
