"""The embedded server as a child process of a test, and how tests talk to it over gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from servingrepo.deadline import Deadline
from servingrepo.protos import model_server_config_pb2, predict_pb2, types_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.security import PLAIN, Security
from servingrepo.servers.states import Endpoint
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODULE = [sys.executable, "-m", "servingrepo.embedded"]
READY, STEP = 60.0, 10.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def eventually(condition: Callable[[], Any], seconds: float = STEP) -> None:
    deadline = Deadline.after(seconds)
    while not condition():
        assert not deadline.passed
        deadline.pause(0.02)


def config_of(base: Path, *models: str) -> Any:
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.SetInParent()
    for name in models:
        config.model_config_list.config.add(
            name=name, base_path=str(base / name), model_platform="tensorflow"
        )
    return config


class Server:
    """A server process of the test, with its output in files."""

    def __init__(
        self, base: Path, *models: str, flags: tuple[str, ...] = (), rest: bool = False
    ) -> None:
        self.base = base
        self.port, self.rest_port = free_port(), free_port()
        if rest:
            flags = (f"--rest_api_port={self.rest_port}", *flags)
        self.ports = (self.port, self.rest_port) if rest else (self.port,)
        self.config = base / "models.config"
        self.config.write_text(str(config_of(base, *models)))
        self.out, self.err = base / "stdout", base / "stderr"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *MODULE,
                    f"--port={self.port}",
                    f"--model_config_file={self.config}",
                    "--max_num_load_retries=0",
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def wait_until_ready(self) -> None:
        eventually(lambda: self.process.poll() is not None or all(map(is_open, self.ports)), READY)
        assert self.process.poll() is None, self.err.read_text()

    def client(self, security: Security = PLAIN) -> ServingClient:
        return ServingClient(Endpoint("127.0.0.1", self.port, security))

    def wait_for(self, *lines: str) -> None:
        eventually(lambda: all(line in self.err.read_text() for line in lines), READY)


def predict(client: ServingClient, model: str, x: float) -> tuple[float, int]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].dtype = types_pb2.DT_FLOAT
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(x)
    response = client.predict(request, timeout=STEP)
    return response.outputs["y"].float_val[0], response.model_spec.version.value


def states(client: ServingClient, model: str) -> dict[int, str]:
    return {one.version: one.state for one in client.status(model, timeout=STEP)}


def publish(base: Path, version: str, **options: Any) -> None:
    staging = write_export(base / ".staging", **options)
    (base / version).parent.mkdir(exist_ok=True)
    staging.rename(base / version)
