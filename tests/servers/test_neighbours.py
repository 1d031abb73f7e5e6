"""Another user of the machine can neither reach nor replace the servers of smoke tests."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.binary import BinaryEngine
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.servers.sockets import listener_at
from servingrepo.testing.exports import write_export
from tests.neighbours import (
    NOBODY,
    listening_ports,
    open_folder,
    refusal_to_neighbours,
    start_neighbour,
    what_a_neighbour_says,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.servers.engines.processes import RunningServer

pytestmark = [pytest.mark.tf, pytest.mark.timeout(180)]

Engine = EmbeddedEngine | BinaryEngine

FIND = """
import os, re, socket, sys, time
from pathlib import Path

def address(parent):
    "Read in the list of processes where a child of that one will listen; anybody may."
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                children = f"PPid:\\t{parent}\\n" in (folder / "status").read_text()
                line = (folder / "cmdline").read_bytes().decode() if children else ""
            except OSError:
                continue
            if "\\0--model_config_file=" in line:
                port = re.search("--port=([1-9][0-9]*)", line)
                path = re.search("--grpc_socket_path=([^\\0]+)", line)
                return ("127.0.0.1", int(port[1])) if port else path[1]
        time.sleep(0.005)
"""

RELOAD = (
    FIND
    + """
from servingrepo.modelconfig import EMPTY, pin, to_proto
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint
from servingrepo.errors import ServingRepoError

become_nobody()
found = address(sys.argv[1])
endpoint = Endpoint.unix(found) if isinstance(found, str) else Endpoint(*found)
with ServingClient(endpoint) as client:
    try:
        wanted = pin(EMPTY, name="half", base_path=sys.argv[2], versions=[9])
        client.reload(to_proto(wanted), timeout=20)
        print("reloaded")
    except ServingRepoError as error:
        print(error.message)
"""
)

FORGE = (
    FIND
    + """
print("ready", flush=True)
become_nobody()
found = address(sys.argv[1])
forged = socket.socket(socket.AF_UNIX if isinstance(found, str) else socket.AF_INET)
try:
    forged.bind(found)
    forged.listen()
    print("bound first", flush=True)
    forged.accept()
    print("was asked", flush=True)
except OSError as error:
    print(error.strerror, flush=True)
"""
)


@pytest.fixture(params=["embedded", "binary"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "embedded":
        return EmbeddedEngine()
    return BinaryEngine(path=program(tmp_path, "exec SERVER"))


def program(folder: Path, line: str) -> str:
    """Write a script that starts a tensorflow_model_server, which here is ours."""
    path = folder / "tensorflow_model_server"
    server = f'{sys.executable} -m servingrepo run-server "$@"'
    path.write_text(f"#!/bin/sh\n{line.replace('SERVER', server)}\n")
    path.chmod(0o755)
    return str(path)


@contextmanager
def served(engine: Engine, export: Path) -> Iterator[RunningServer]:
    deadline = Deadline.after(60)
    with engine.serve(model="half", version=1, export=export, deadline=deadline) as running:
        yield running


def answering_version(running: RunningServer) -> int:
    with ServingClient(running.endpoint) as client:
        return client.metadata("half", timeout=10).version


def test_no_other_user_reloads_a_smoke_server(engine: Engine, tmp_path: Path) -> None:
    with open_folder() as theirs, served(engine, write_export(tmp_path / "1")) as running:
        write_export(theirs / "half" / "9")
        said = what_a_neighbour_says(RELOAD, str(os.getpid()), theirs / "half")
        assert said != "reloaded"
        assert "Permission denied" in said
        assert answering_version(running) == 1


def test_smoke_server_has_no_port_and_a_closed_folder(engine: Engine, tmp_path: Path) -> None:
    with served(engine, write_export(tmp_path / "1")) as running:
        path = running.endpoint.socket
        assert path is not None
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert refusal_to_neighbours(path) == "Permission denied"
        assert listening_ports(listener_at(path).pid) == set()


def test_no_other_user_answers_for_a_server(engine: Engine, tmp_path: Path) -> None:
    export = write_export(tmp_path / "1")
    forger = start_neighbour(FORGE, str(os.getpid()))
    assert forger.stdout is not None
    assert forger.stdout.readline() == "ready\n"
    try:
        with served(engine, export) as running:
            assert answering_version(running) == 1
        said, errors = forger.communicate(timeout=20)
        assert said == "Permission denied\n", errors
    finally:
        forger.kill()


def test_server_started_by_a_script_is_known(tmp_path: Path) -> None:
    engine = BinaryEngine(path=program(tmp_path, "SERVER"))
    with served(engine, write_export(tmp_path / "1")) as running:
        assert answering_version(running) == 1


def test_listener_that_was_not_started_is_refused(tmp_path: Path) -> None:
    if shutil.which("setsid") is None:
        pytest.skip("there is no setsid")
    # In a session of its own it is no more to be told from a stranger.
    engine = BinaryEngine(path=program(tmp_path, "setsid SERVER --exit_with_parent=$$ & wait"))
    with (
        pytest.raises(EngineUnavailable, match="and not the server that was started"),
        served(engine, write_export(tmp_path / "1")),
    ):
        pass


def test_listener_is_known_with_process_and_user(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        found = listener_at(tmp_path / "s")
    assert (found.pid, found.user) == (os.getpid(), os.getuid())
    assert found.user != NOBODY
