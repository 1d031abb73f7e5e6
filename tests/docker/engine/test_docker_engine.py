"""The docker engine on this machine's daemon: its containers, its proofs, and their removal."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import servingrepo
from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EngineUnavailable,
    LoadFailed,
    ServerDied,
    ServerTimeout,
    UsageError,
)
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.docker import DockerEngine
from servingrepo.servers.engines.processes import Beside
from servingrepo.testing.exports import write_export
from tests.docker.engine.conftest import owned_by
from tests.docker.fixtures import attempt, docker
from tests.neighbours import open_folder, refusal_to_neighbours, what_a_neighbour_says
from tests.support import command, run_with

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

SECONDS = 60
LISTENING = " 0A "
"""The state of a port that somebody listens on, in /proc/net/tcp."""


def inspect(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return found


def serve(
    engine: DockerEngine, export: Path, *, seconds: float = SECONDS, version: int = 12
) -> Any:
    return engine.serve(
        model="ranker",
        version=version,
        export=export,
        deadline=Deadline.after(seconds),
        txid="a-transaction",
    )


def test_container_is_made_as_promised(fake: str, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    with serve(DockerEngine(image=fake, memory="300m"), export) as server:
        (container,) = owned_by(os.getpid())
        facts = inspect(container)
        with ServingClient(server.endpoint) as client:
            (status,) = client.status("ranker", timeout=5)
        touch = attempt("exec", container, "touch", "/models/ranker/12/x")
        open_ports = attempt("exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
        config = docker("exec", container, "cat", "/servingrepo/models.config")
    assert (status.version, status.state) == (12, "AVAILABLE")
    assert server.server == "TensorFlow ModelServer: 2.10.1-rc1; TensorFlow Library: 2.10.1"
    assert server.image == f"{fake} ({inspect_image(fake)})"
    assert {mount["Destination"]: mount["RW"] for mount in facts["Mounts"]} == {
        "/models/ranker/12": False,
        "/servingrepo": False,
        "/servingrepo-socket": True,
    }
    assert os.strerror(errno.EROFS) in touch.stderr
    assert 'base_path: "/models/ranker"' in config
    assert "versions: 12" in config
    assert facts["HostConfig"]["Init"] is True
    assert facts["HostConfig"]["Memory"] == 300 << 20
    assert facts["Args"][-6:] == [
        "--model_config_file=/servingrepo/models.config",
        "--max_num_load_retries=0",
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_port=0",
        "--grpc_socket_path=/servingrepo-socket/grpc.sock",
        "--port=0",
    ]
    assert facts["Config"]["Labels"]["servingrepo.txid"] == "a-transaction"
    assert not any(facts["NetworkSettings"]["Ports"].values())
    assert LISTENING not in open_ports
    assert owned_by(os.getpid()) == []


def test_no_other_user_reaches_the_server(fake: str, tmp_path: Path) -> None:
    with serve(DockerEngine(image=fake), write_export(tmp_path / "e")) as server:
        assert server.endpoint.socket is not None
        assert refusal_to_neighbours(server.endpoint.socket) == "Permission denied"


def inspect_image(name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name)


def test_image_by_id_is_the_same_as_by_name(fake: str, tmp_path: Path) -> None:
    with serve(DockerEngine(image=inspect_image(fake)), write_export(tmp_path / "e")) as server:
        assert server.image == f"{inspect_image(fake)} ({inspect_image(fake)})"


@pytest.mark.parametrize("network", [None, "none"])
def test_server_runs_as_a_user_that_owns_nothing(
    fake: str, tmp_path: Path, network: str | None
) -> None:
    engine = DockerEngine(image=fake, user="1000:1000", network=network)
    with serve(engine, write_export(tmp_path / "e")) as server:
        (container,) = owned_by(os.getpid())
        assert docker("exec", container, "id", "-u") == "1000"
        assert server.endpoint.socket is not None
        assert inspect(container)["HostConfig"]["NetworkMode"] == (network or "default")


@pytest.mark.parametrize("network", [None, "none"])
def test_private_export_is_copied_for_another_user(
    fake: str, tmp_path: Path, network: str | None
) -> None:
    export = write_export(tmp_path / "e")
    export.chmod(0o700)
    (export / "saved_model.pb").chmod(0o600)
    engine = DockerEngine(image=fake, user="1000:1000", network=network)
    with serve(engine, export) as server:
        (container,) = owned_by(os.getpid())
        mounts = {mount["Destination"] for mount in inspect(container)["Mounts"]}
        assert mounts == {"/servingrepo", "/servingrepo-socket"}
        assert server.endpoint.socket is not None
    assert owned_by(os.getpid()) == []


def test_client_that_is_not_root_reaches_the_server(fake: str, tmp_path: Path) -> None:
    docker_group = Path("/var/run/docker.sock").stat().st_gid
    with open_folder() as folder:
        export = write_export(folder / "e")
        said = what_a_neighbour_says(CLIENT, fake, export, groups=[docker_group])
    # Root's socket would be root's alone.
    assert said.splitlines() == ["served to 0 by 0", "served to 65534 by 65534"]


CLIENT = """
import os, sys
from pathlib import Path
from servingrepo.servers.client import ServingClient
from servingrepo.deadline import Deadline
from servingrepo.servers.engines.docker import DockerEngine
from servingrepo.servers.engines.processes import Beside

def serve():
    engine, export, deadline = DockerEngine(image=sys.argv[1]), Path(sys.argv[2]), Deadline.after(60)
    with engine.serve(model="m", version=1, export=export, deadline=deadline) as server:
        with ServingClient(server.endpoint) as client:
            assert client.status("m", timeout=5)
        print("served to", os.getuid(), "by", server.endpoint.socket.stat().st_uid)

serve()  # imports everything
become_nobody()
serve()
"""


def test_container_joins_the_network_that_was_asked_for(fake: str, tmp_path: Path) -> None:
    export = write_export(tmp_path / "e")
    name = f"srt-net-{os.getpid()}"
    docker("network", "create", "--internal", name)
    try:
        for network in (name, "host"):
            with serve(DockerEngine(image=fake, network=network), export) as server:
                (container,) = owned_by(os.getpid())
                assert list(inspect(container)["NetworkSettings"]["Networks"]) == [network]
                assert server.endpoint.socket is not None
    finally:
        docker("network", "rm", name)
    with (
        pytest.raises(EngineUnavailable, match="no such network"),
        serve(DockerEngine(image=fake, network=name), export),
    ):
        pass
    assert owned_by(os.getpid()) == []


def test_failure_removes_the_container_and_has_its_log(fake: str, tmp_path: Path) -> None:
    with (
        pytest.raises(LoadFailed) as failed,
        serve(DockerEngine(image=fake), write_export(tmp_path / "e")),
    ):
        raise LoadFailed("made up")
    assert "Running gRPC ModelServer" in (failed.value.log or "")
    with (
        pytest.raises(ZeroDivisionError),
        serve(DockerEngine(image=fake), write_export(tmp_path / "e")),
    ):
        raise ZeroDivisionError
    assert owned_by(os.getpid()) == []


def test_refused_model_has_text_log_and_exit_code(fake: str, tmp_path: Path) -> None:
    engine = DockerEngine(image=fake, arguments=("--fake=refuse",))
    with pytest.raises(LoadFailed) as failed, serve(engine, write_export(tmp_path / "e")):
        pass
    assert "Op type not registered 'FromTheFuture'" in failed.value.message
    assert "operation that this server does not have" in (failed.value.hint or "")
    assert failed.value.details["exit_code"] == 255
    assert "Failed to start server" in (failed.value.log or "")
    assert owned_by(os.getpid()) == []


def test_server_never_ready_ends_at_the_deadline(fake: str, tmp_path: Path) -> None:
    for fault in ("deaf", "stubborn"):
        engine = DockerEngine(image=fake, arguments=(f"--fake={fault}",))
        with (
            pytest.raises(ServerTimeout) as failed,
            serve(engine, write_export(tmp_path / "e"), seconds=3),
        ):
            pass
        assert "after 3 s" in failed.value.message
        assert failed.value.log in {"thinking about it", "I stay"}
    assert owned_by(os.getpid()) == []


def test_container_killed_or_removed_by_somebody_is_said(fake: str, tmp_path: Path) -> None:
    export = write_export(tmp_path / "e")
    for how, words in (
        (("kill",), "was killed"),
        (("rm", "--force"), "another program removed the container"),
    ):
        with pytest.raises(ServerDied, match=words):
            ask_after(how, fake, export)
    assert owned_by(os.getpid()) == []


def ask_after(how: tuple[str, ...], image: str, export: Path) -> None:
    """Ask a server for its status after its container was dealt with."""
    with serve(DockerEngine(image=image), export) as server:
        docker(*how, *owned_by(os.getpid()))
        with ServingClient(server.endpoint) as client:
            client.status("ranker", timeout=5)


def test_bad_options_are_refused_before_anything_starts(fake: str) -> None:
    for option in ({"memory": "lots"}, {"gpus": "some"}):
        with (
            pytest.raises(UsageError, match="cannot be"),
            serve(DockerEngine(image=fake, **option), None),  # type: ignore[arg-type]
        ):
            pass


def test_unknown_flag_in_a_container_is_a_usage_error(fake: str, run: Path) -> None:
    export = run / "saved_model"
    with (
        pytest.raises(UsageError, match="unknown argument: --unlisted=1"),
        serve(DockerEngine(image=fake, arguments=("--unlisted=1",)), export),
    ):
        pass
    assert owned_by(os.getpid()) == []


def test_out_of_memory_is_called_so(fake: str, tmp_path: Path) -> None:
    engine = DockerEngine(image=fake, memory="200m", arguments=("--fake=greedy",))
    with pytest.raises(ServerDied) as failed, serve(engine, write_export(tmp_path / "e")):
        pass
    assert "out of memory" in failed.value.message
    assert failed.value.details["exit_code"] == 137
    assert owned_by(os.getpid()) == []


def test_export_newer_than_the_server_is_noted(fake: str, run: Path) -> None:
    words = "TensorFlow 2.19.1 wrote it, and the server has 2.10"
    done = command("smoke", f"{run}/", "--engine", "docker", "--image", fake, "--json")
    (note,) = done.json["result"]["notes"]
    assert words in note
    refused = ["--image", fake, "--server-arg=--fake=refuse", "--json"]
    failed = command("smoke", f"{run}/", "--engine", "docker", *refused)
    assert failed.code == LoadFailed.exit_code
    assert words in str(failed.json["error"])


@pytest.mark.tf
@pytest.mark.parametrize(
    "options", [(), ("--docker-network", "none", "--docker-user", "1000:1000")]
)
def test_promote_records_the_image_and_version(
    standin_image: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    root = tmp_path / "serving"
    assert command("--root", root, "init").code == 0
    run = run_with(tmp_path / "run", offset=2.0)
    promote = ["promote", str(run), "--model", "half", "--engine", "docker"]
    done = command(
        "--root", root, *promote, "--image", standin_image, *options, "--json", timeout=120
    )
    assert done.code == 0, done.err
    proof = done.json["result"]["proof"]
    assert proof["engine"] == "docker"
    assert proof["image"].startswith(f"{standin_image} (sha256:")
    assert "TensorFlow Library: 2." in proof["server"]
    assert [one["outcome"] for one in proof["report"]["verdicts"]] == ["passed"]
    assert servingrepo.open(root).verify("half@1")


@pytest.mark.tf
def test_stand_in_without_model_or_memory_is_refused(standin_image: str, tmp_path: Path) -> None:
    broken = write_export(tmp_path / "broken")
    (broken / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(LoadFailed) as failed, serve(DockerEngine(image=standin_image), broken):
        pass
    assert failed.value.details["exit_code"] == 255
    engine = ["--engine", "docker", "--image", standin_image, "--json"]
    good = run_with(tmp_path / "good", offset=2.0)
    done = command("smoke", f"{good}/", *engine, "--memory", "48m", timeout=120)
    assert done.code == ServerDied.exit_code, done.out + done.err
    assert "out of memory" in done.json["error"]["message"]


def test_two_exports_are_served_side_by_side(standin_image: str, tmp_path: Path) -> None:
    engine = DockerEngine(image=standin_image)
    beside = Beside(model="ranker-served", version=7, export=write_export(tmp_path / "live"))
    with (
        engine.serve(
            model="ranker",
            version=12,
            export=write_export(tmp_path / "export"),
            deadline=Deadline.after(SECONDS),
            beside=beside,
        ) as server,
        ServingClient(server.endpoint) as client,
    ):
        for name, version in (("ranker", 12), ("ranker-served", 7)):
            (status,) = client.status(name, timeout=5)
            assert (status.version, status.state) == (version, "AVAILABLE")
