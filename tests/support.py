"""What several tests use: real repositories, real servers in child processes, the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf import text_format

import servingrepo
from servingrepo.deadline import Deadline
from servingrepo.protos import predict_pb2, saved_model_pb2, types_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.servers.engines.processes import free_port, stop, wait_until_open
from servingrepo.servers.states import Endpoint
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servingrepo.api import OpenRepository
    from servingrepo.servers.engines.processes import RunningServer


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object that --json prints."""
        return msgspec.json.decode(self.out)


def command(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 60,
) -> Outcome:
    """Run the real command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "servingrepo", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Have a process for the block; however that ends, the process is gone afterwards and its pipes are closed."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def new_repository(root: Path) -> OpenRepository:
    """Make a repository that a server on this machine sees where it is."""
    repo, _ = servingrepo.init(root, server_root=str(root / "models"))
    return repo


def run_with(run: Path, *, offset: float, slope: float = 0.5, **options: Any) -> Path:
    """Leave a run directory whose SavedModel answers slope * x + offset."""
    write_export(run / "saved_model", slope=slope, offset=offset, **options)
    return run


def put(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def as_text(export: Path) -> Path:
    """Write the graph of an export as saved_model.pbtxt instead; return that file."""
    binary = export / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    binary.unlink()
    file = export / "saved_model.pbtxt"
    file.write_text(text_format.MessageToString(message))
    return file


def write_binary(folder: Path) -> Path:
    """Write a program with tensorflow_model_server's name, flags and behaviour."""
    path = folder / "bin" / "tensorflow_model_server"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m servingrepo run-server "$@"\n')
    path.chmod(0o755)
    return path


def git(folder: Path, *arguments: str | Path, check: bool = True) -> str:
    """Run git in a folder, as somebody."""
    who = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", *who, "-C", folder, *arguments], capture_output=True, text=True, check=check
    )
    return done.stdout.strip()


def work_tree(folder: Path) -> str:
    """Make a work tree with one commit, whose id is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "add", "train.py")
    git(folder, "commit", "-qm", "one")
    return git(folder, "rev-parse", "HEAD")


@contextmanager
def without_root() -> Iterator[Path]:
    """A folder that others may enter, and no privileges while it is used: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        before = os.geteuid()
        if before == 0:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(before)
            for each in folder.rglob("*"):
                each.chmod(0o755)


@dataclass(frozen=True)
class Meanwhile:
    """The embedded engine, in whose time something happens."""

    happens: Callable[[], object]
    name: str = "embedded"

    def expected_version(self) -> None:
        return

    @contextmanager
    def serve(self, **options: Any) -> Iterator[RunningServer]:
        with EmbeddedEngine().serve(**options) as server:
            self.happens()
            yield server


@contextmanager
def live_server(repo: OpenRepository, *flags: str, log: Path) -> Iterator[Endpoint]:
    """Run a server that starts with the repository's models.config, for the block."""
    with running_server(repo, *flags, log=log) as (endpoint, _):
        yield endpoint


@contextmanager
def running_server(
    repo: OpenRepository, *flags: str, log: Path, port: int | None = None
) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    """Run such a server and give its process too, to be stopped or killed."""
    endpoint = Endpoint("127.0.0.1", port or free_port())
    arguments = [
        sys.executable,
        "-m",
        "servingrepo",
        "run-server",
        f"--port={endpoint.port}",
        f"--model_config_file={repo.value.layout.config}",
        "--allow_version_labels_for_unavailable_models=true",
        "--max_num_load_retries=0",
        *flags,
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_open(
            process, endpoint, log=log, deadline=Deadline.after(60), what="the test's models"
        )
        yield endpoint, process
    finally:
        stop(process)


def bytes_read() -> int:
    """Return how many bytes this process has read from files so far (proc(5), rchar)."""
    return int(Path("/proc/self/io").read_text().split()[1])


def ask(endpoint: Endpoint, *, model: str = "half", label: str | None = None) -> tuple[int, float]:
    """Return which version of a model answers x = 0, and what: the offset of its run."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if label is not None:
        request.model_spec.version_label = label
    tensor = request.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(0.0)
    with ServingClient(endpoint) as client:
        reply = client.predict(request, timeout=10)
    return reply.model_spec.version.value, reply.outputs["y"].float_val[0]
