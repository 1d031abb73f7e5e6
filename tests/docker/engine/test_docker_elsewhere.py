"""Daemons on other machines: over TCP with and without certificates, by ssh, from a container."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.docker import DockerEngine
from servingrepo.servers.engines.processes import free_port
from servingrepo.testing.exports import write_export
from tests.docker.daemons import make_certificates, own_daemon
from tests.docker.engine.conftest import owned_by, wait_until
from tests.docker.fixtures import attempt, docker, missing
from tests.neighbours import open_folder, what_a_neighbour_says
from tests.support import Outcome, command, run_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from servingrepo.servers.engines.processes import RunningServer
    from tests.docker.daemons import OwnDaemon

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

BIG = 300 << 20
PEAK = 150 << 20


def smoke(run: Path, image: str, *options: str, env: dict[str, str]) -> Outcome:
    # A daemon that is elsewhere must not be waited for till the end of days.
    engine = ["--engine", "docker", "--image", image, "--timeout", "60"]
    return command("smoke", f"{run}/", *engine, *options, "--json", env=env)


def proves(done: Outcome) -> bool:
    assert done.code == 0, done.out + done.err
    return [one["outcome"] for one in done.json["result"]["report"]["verdicts"]] == ["passed"]


def tls(daemon: OwnDaemon, address: str) -> dict[str, str]:
    return {
        "DOCKER_HOST": f"tcp://{address}:{daemon.tls_port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(daemon.folder / "certificates"),
        # About the world's certificates; it must not replace the daemon's.
        "REQUESTS_CA_BUNDLE": str(daemon.folder / "certificates" / "cert.pem"),
    }


@contextmanager
def passed_on(
    here: Path | None, there: str, changed: dict[bytes, bytes] | None = None
) -> Iterator[int]:
    """Lead a socket, or a loopback port, to a daemon's; words of its answers may become others of their size."""
    listener = socket.socket(socket.AF_INET if here is None else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if here is None else str(here))
    listener.listen()
    with listener, ExitStack() as sockets:

        def pump(source: socket.socket, target: socket.socket, words: dict[bytes, bytes]) -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    for old, new in words.items():
                        data = data.replace(old, new)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = sockets.enter_context(listener.accept()[0])
                    server = sockets.enter_context(socket.socket(socket.AF_UNIX))
                    server.connect(there)
                    for way in ((client, server, {}), (server, client, changed or {})):
                        threading.Thread(target=pump, args=way, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1] if here is None else 0
        listener.shutdown(socket.SHUT_RDWR)


def plain_tcp(daemon: OwnDaemon) -> AbstractContextManager[int]:
    """Lead a loopback port to the daemon's socket, as `docker context` over a plain tunnel does."""
    return passed_on(None, daemon.url.removeprefix("unix://"))


def test_files_are_mounted_if_visible_else_copied(
    elsewhere: OwnDaemon,
    fake: str,
    run: Path,
    nothing_left: Callable[[], AbstractContextManager[None]],
) -> None:
    seen = elsewhere.folder / "seen"
    seen.mkdir(exist_ok=True)
    shutil.copytree(run, seen / "run", dirs_exist_ok=True)
    events = subprocess.Popen(
        ["docker", "-H", elsewhere.url, "events", "--format", "{{json .}}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with nothing_left():
            env = {"DOCKER_HOST": elsewhere.url}
            assert proves(smoke(run, fake, env=env))
            assert proves(smoke(seen / "run", fake, env={**env, "TMPDIR": str(seen)}))
    finally:
        events.terminate()
    said, _ = events.communicate(timeout=10)
    actions = [json.loads(line)["Action"] for line in said.splitlines()]
    assert actions.count("extract-to-dir") == 1
    assert actions.count("destroy") == 2


def test_container_with_copied_files_is_reached_by_network(
    elsewhere: OwnDaemon, fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", elsewhere.url)
    export = write_export(tmp_path / "e")
    # An internal one publishes no ports: the container's own address is used.
    elsewhere.run("network", "create", "--internal", "srt-internal")
    try:
        with serve(DockerEngine(image=fake, network="srt-internal"), export) as server:
            (container,) = elsewhere.run("ps", "--quiet").split()
            facts = json.loads(elsewhere.run("inspect", container))[0]
            address = facts["NetworkSettings"]["Networks"]["srt-internal"]["IPAddress"]
            assert str(server.endpoint) == f"{address}:8500"
    finally:
        elsewhere.run("network", "rm", "srt-internal")
    with serve(DockerEngine(image=fake, network="host"), export) as server:
        # The machine's own 8500 may be in use.
        assert server.endpoint.port not in {0, 8500}
    with (
        pytest.raises(EngineUnavailable, match="does not see our files"),
        serve(DockerEngine(image=fake, network="none"), export),
    ):
        pass


def serve(engine: DockerEngine, export: Path) -> AbstractContextManager[RunningServer]:
    return engine.serve(model="m", version=1, export=export, deadline=Deadline.after(60))


def test_daemon_on_another_kernel_gets_a_port(
    fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Docker Desktop: its virtual machine sees the files, and no sockets work across."""
    ours = os.uname().release.encode()
    with passed_on(tmp_path / "d.sock", "/var/run/docker.sock", {ours: b"x" * len(ours)}):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
        with serve(DockerEngine(image=fake), write_export(tmp_path / "e")) as server:
            (container,) = owned_by(os.getpid())
            facts = json.loads(docker("inspect", container))[0]
            ((binding,),) = [one for one in facts["NetworkSettings"]["Ports"].values() if one]
            assert binding["HostIp"] == "127.0.0.1"
            assert int(binding["HostPort"]) == server.endpoint.port
            assert "/servingrepo-socket" not in {one["Destination"] for one in facts["Mounts"]}
        assert owned_by(os.getpid()) == []


def test_daemon_with_other_numbers_for_users_is_reached(fake: str, tmp_path: Path) -> None:
    with own_daemon(remapped=True) as daemon, open_folder() as folder:
        daemon.load(fake)
        env = {"DOCKER_HOST": daemon.url}
        write_export(folder / "run" / "saved_model")
        for options in ((), ("--docker-user", "1000:1000"), ("--docker-network", "none")):
            done = smoke(folder / "run", fake, *options, env=env)
            assert proves(done)
            assert done.json["result"]["report"]["endpoint"].startswith("unix:")
        # Nobody can connect to the sockets of the container's users but root: then a port is published.
        Path(daemon.url.removeprefix("unix://")).chmod(0o666)
        export = folder / "run" / "saved_model"
        said = what_a_neighbour_says(CLIENT, fake, export, env=env)
        assert said.splitlines() == ["served to 0 by a socket", "served to 65534 by a port"]


CLIENT = """
import os, sys
from pathlib import Path
from servingrepo.deadline import Deadline
from servingrepo.servers.engines.docker import DockerEngine

def serve():
    engine, export, deadline = DockerEngine(image=sys.argv[1]), Path(sys.argv[2]), Deadline.after(60)
    with engine.serve(model="m", version=1, export=export, deadline=deadline) as server:
        print("served to", os.getuid(), "by a", "port" if server.endpoint.port else "socket")

serve()  # imports everything
become_nobody()
serve()
"""


def test_daemon_by_tcp_with_certificates_on_another_address(
    elsewhere: OwnDaemon,
    fake: str,
    run: Path,
    nothing_left: Callable[[], AbstractContextManager[None]],
) -> None:
    with nothing_left():
        for address in (elsewhere.address, "127.0.0.1"):
            assert proves(smoke(run, fake, env=tls(elsewhere, address)))


def test_daemon_by_plain_tcp(
    elsewhere: OwnDaemon,
    fake: str,
    run: Path,
    nothing_left: Callable[[], AbstractContextManager[None]],
) -> None:
    with nothing_left(), plain_tcp(elsewhere) as port:
        assert proves(smoke(run, fake, env={"DOCKER_HOST": f"tcp://127.0.0.1:{port}"}))
        assert proves(smoke(run, fake, env={"DOCKER_HOST": f"tcp://localhost:{port}"}))


def test_docker_contexts_are_followed(
    elsewhere: OwnDaemon, fake: str, run: Path, tmp_path: Path
) -> None:
    certificates = elsewhere.folder / "certificates"
    env = {"DOCKER_CONFIG": str(tmp_path / "docker")}
    endpoint = (
        f"host=tcp://{elsewhere.address}:{elsewhere.tls_port},ca={certificates}/ca.pem,"
        f"cert={certificates}/cert.pem,key={certificates}/key.pem"
    )
    create = ["docker", "context", "create", "there", "--docker", endpoint]
    subprocess.run(create, env={**os.environ, **env}, check=True, capture_output=True)
    assert proves(smoke(run, fake, env={**env, "DOCKER_CONTEXT": "there"}))
    use = ["docker", "context", "use", "there"]
    subprocess.run(use, env={**os.environ, **env}, check=True, capture_output=True)
    assert proves(smoke(run, fake, env=env))
    done = smoke(run, fake, env={**env, "DOCKER_CONTEXT": "nowhere"})
    assert done.code == EngineUnavailable.exit_code
    assert "no docker context nowhere" in done.json["error"]["message"]


def test_wrong_certificates_are_explained(
    elsewhere: OwnDaemon, fake: str, run: Path, tmp_path: Path
) -> None:
    make_certificates(tmp_path / "others", elsewhere.address)
    env = {**tls(elsewhere, elsewhere.address), "DOCKER_CERT_PATH": str(tmp_path / "others")}
    for wrong in (env, {**env, "DOCKER_CERT_PATH": str(tmp_path / "nothing")}):
        done = smoke(run, fake, env=wrong)
        assert done.code == EngineUnavailable.exit_code
        assert "DOCKER_CERT_PATH" in done.json["error"]["hint"]


def test_big_model_is_copied_in_constant_memory(
    elsewhere: OwnDaemon, fake: str, tmp_path: Path
) -> None:
    run = tmp_path / "big"
    write_export(run / "saved_model", payload_bytes=BIG)
    # Zeros have no line ends: whoever reads by lines reads all of them at once.
    with (run / "saved_model" / "assets.extra" / "zeros").open("wb") as file:
        file.truncate(BIG)
    script = (
        "import sys; from servingrepo.cli.main import run; code = run(sys.argv[1:]); "
        # Not ru_maxrss: that is inherited from whoever forked us (exec_mmap in fs/exec.c), the tests' own memory.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status')); "
        "print(status['VmHWM'].split()[0], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "smoke", f"{run}/", "--engine", "docker", "--image", fake],
        env={**os.environ, "DOCKER_HOST": elsewhere.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) * 1024 < PEAK


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Run an ssh server on loopback; yield its port and an environment whose ssh may log in there."""
    sshd, ssh = shutil.which("sshd", path="/usr/sbin:/usr/bin"), shutil.which("ssh")
    if sshd is None or ssh is None:
        missing("there is no sshd: apt-get install openssh-server")
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(generate, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n"
    )
    host_key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}box {host_key}")
    (folder / "config").write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias box\n"
        f"Host *\n  IdentityFile {folder}/user\n  UserKnownHostsFile {folder}/known\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {folder}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [str(sshd), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _listens(port), "sshd does not listen")
        yield port, {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_daemon_by_ssh(
    elsewhere: OwnDaemon,
    fake: str,
    run: Path,
    tmp_path: Path,
    nothing_left: Callable[[], AbstractContextManager[None]],
) -> None:
    there = elsewhere.url.removeprefix("unix://")
    user = pwd.getpwuid(os.getuid()).pw_name
    with nothing_left(), ssh_server(tmp_path / "ssh") as (port, env):
        hosts = (f"ssh://{user}@127.0.0.1:{port}{there}", f"ssh://box{there}")
        for host in hosts:
            assert proves(smoke(run, fake, env={**env, "DOCKER_HOST": host}))
        context = {**env, "DOCKER_CONFIG": str(tmp_path / "docker")}
        create = ["docker", "context", "create", "there", "--docker", f"host={hosts[1]}"]
        subprocess.run(create, env={**os.environ, **context}, check=True, capture_output=True)
        assert proves(smoke(run, fake, env={**context, "DOCKER_CONTEXT": "there"}))
        done = smoke(run, fake, env={**env, "DOCKER_HOST": f"ssh://{user}@127.0.0.1:{port}/no"})
        assert done.code == EngineUnavailable.exit_code
        (tmp_path / "ssh" / "authorized").write_text("")
        done = smoke(run, fake, env={**env, "DOCKER_HOST": hosts[0]})
        assert done.code == EngineUnavailable.exit_code
        assert "ssh cannot log in" in done.json["error"]["message"]
    done = smoke(run, fake, env={**env, "DOCKER_HOST": hosts[0]})
    assert os.strerror(errno.ECONNREFUSED) in done.json["error"]["message"]


@pytest.mark.tf
@pytest.mark.parametrize("network", ["", "own"])
def test_client_in_a_container_with_the_docker_socket(
    own_image: str, standin_image: str, fake: str, tmp_path: Path, network: str
) -> None:
    run_with(tmp_path / "runs" / "run", offset=2.0)
    name = f"srt-client-{os.getpid()}"
    if network:
        docker("network", "create", name)
    try:
        # The run is at a path that the daemon's machine does not have; /tmp is nobody else's.
        done = attempt(
            *("run", "--rm", "--user", "0:0", *(["--network", name] if network else [])),
            *("--volume", "/var/run/docker.sock:/var/run/docker.sock"),
            *("--volume", f"{tmp_path}/runs:/srt-runs:ro", own_image),
            *("smoke", "/srt-runs/run/", "--engine", "docker", "--json"),
            # The first by its real server, the second in half a second.
            *("--image", fake if network else standin_image),
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["result"]["report"]["verdicts"][0]["outcome"] == "passed"
    finally:
        if network:
            docker("network", "rm", name)


def test_same_path_on_the_daemons_machine_is_noticed(
    own_image: str, fake: str, tmp_path: Path
) -> None:
    """The client's folders are other ones than those of the same names on the daemon's machine."""
    run_with(tmp_path / "good", offset=2.0)
    run_with(tmp_path / "here", offset=2.0)
    namesake = tmp_path / "here" / "saved_model" / "saved_model.pb"
    namesake.write_bytes(b"not the same")
    done = attempt(
        *("run", "--rm", "--user", "0:0", "--volume", "/var/run/docker.sock:/var/run/docker.sock"),
        *("--volume", "/tmp:/tmp", "--volume", f"{tmp_path}/good:{tmp_path}/here:ro", own_image),
        *("smoke", f"{tmp_path}/here/", "--engine", "docker", "--image", fake, "--json"),
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_client_in_a_container_of_another_daemon(
    elsewhere: OwnDaemon,
    own_image: str,
    fake: str,
    tmp_path: Path,
    nothing_left: Callable[[], AbstractContextManager[None]],
) -> None:
    """A CI job and its docker:dind service: another daemon, by TCP with certificates, at an address of its own."""
    run_with(tmp_path / "runs" / "run", offset=2.0)
    settings = tls(elsewhere, elsewhere.address)
    settings["DOCKER_CERT_PATH"] = "/srt-certificates"
    del settings["REQUESTS_CA_BUNDLE"]
    with nothing_left():
        done = attempt(
            *("run", "--rm", "--user", "0:0", "--volume", f"{tmp_path}/runs:/srt-runs:ro"),
            *("--volume", f"{elsewhere.folder}/certificates:/srt-certificates:ro"),
            *(f"--env={name}={value}" for name, value in settings.items()),
            *(
                own_image,
                "smoke",
                "/srt-runs/run/",
                "--engine",
                "docker",
                "--image",
                fake,
                "--json",
            ),
            timeout=60,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["result"]["report"]["verdicts"][0]["outcome"] == "passed"
