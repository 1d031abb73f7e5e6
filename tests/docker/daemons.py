"""Docker daemons of the tests' own: to be elsewhere, to be killed, to be full. They end with their block.

Each has its own data, its own bridge, and a /tmp of its own, so that it does not see the tests' files there.
Host and containers reach each other by the bridge; iptables, which belong to the machine's daemon, are left
alone. Needs root and the programs dockerd, ip and unshare.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.servers.engines.processes import free_port
from tests.docker import images
from tests.docker.fixtures import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60
PROGRAMS = ("dockerd", "ip", "unshare", "openssl", "mount")
_numbers = iter(range(64))
_starting = threading.Lock()


def need_programs() -> None:
    """Skip, or fail in CI, where no daemon of our own can be started."""
    if os.getuid() != 0:
        missing("a Docker daemon of our own needs root")
    for program in PROGRAMS:
        if shutil.which(program) is None:
            missing(f"there is no {program} for a Docker daemon of our own")


class OwnDaemon:
    """A daemon: `url` is its socket, `address` the bridge's, `tls_port` its port for clients with certificates."""

    def __init__(self, folder: Path, data: Path, number: int, options: tuple[str, ...]) -> None:
        self.folder = folder
        self.data = data
        self.options = options
        self.url = f"unix://{folder}/docker.sock"
        block = (os.getpid() * 8 + number) % 250
        self.bridge = f"srt{os.getpid()}-{number}"
        self.address = f"10.231.{block}.1"
        self.tls_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.remapped = False

    def run(self, *arguments: str, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run a docker command on it, which must work."""
        done = subprocess.run(
            ["docker", "-H", self.url, *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {(done.stdout + done.stderr).decode()}"
        return done.stdout.decode().strip()

    def load(self, image: str) -> str:
        """Take an image over from the machine's daemon; return its name."""
        load = ["docker", "-H", self.url, "load", "--quiet"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(load, stdin=save.stdout, check=True, capture_output=True, timeout=120)
        assert save.returncode == 0
        return image

    def things(self) -> tuple[str, ...]:
        """Return all containers, volumes and networks that it has."""
        lines: list[str] = []
        for command in (
            ("ps", "--all", "--quiet"),
            ("volume", "ls", "--quiet"),
            ("network", "ls", "--quiet"),
        ):
            lines += self.run(*command).split()
        return tuple(sorted(lines))

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            "dockerd",
            f"--data-root={self.data}",
            f"--exec-root={self.folder}/x",
            f"--pidfile={self.folder}/pid",
            f"--host={self.url}",
            f"--bridge={self.bridge}",
            "--iptables=false",
            "--ip-masq=false",
            *self.options,
        ]
        users = f"mount --bind {self.folder}/users /etc/sub"
        script = (
            f"{users}uid && {users}gid" if self.remapped else "mount -t tmpfs tmpfs /tmp"
        ) + ' && exec "$@"'
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, "sh", *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        begun = time.monotonic()
        while not self._answers():
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self.process.poll() is None, said
            assert time.monotonic() - begun < START_SECONDS, said
            time.sleep(0.1)

    def _answers(self) -> bool:
        ask = ["docker", "-H", self.url, "version"]
        try:
            done = subprocess.run(ask, capture_output=True, check=False, timeout=5)
        except subprocess.TimeoutExpired:
            return False  # it opens its socket before it has taken its old containers over
        return done.returncode == 0

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, so that its containers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # Its containerd dies with it; where nobody reaps that, its id would look alive to the next one.
        (self.folder / "x" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, and everything that it started."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        # Its containers first: killed with it, they would live on. Its own way to end takes 15 s.
        if (
            self.process.poll() is None
            and self._answers()
            and (left := self.run("ps", "--all", "--quiet").split())
        ):
            self.run("rm", "--force", *left)
        self.process.kill()
        self.process.wait()
        for pid in _processes_of(self.folder):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _processes_of(folder: Path) -> list[int]:
    """Return the processes whose command line names a daemon's folder: its containerd, its shims."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


@contextmanager
def own_daemon(
    *, megabytes: int = 2000, tls: bool = False, remapped: bool = False
) -> Iterator[OwnDaemon]:
    """Run a daemon for the block.

    Args:
        megabytes: How much room it has for everything; it is in memory.
        tls: Whether its port wants certificates: they are in its folder, under `certificates`.
        remapped: Whether users in containers have other numbers outside; it then sees the tests' files.
    """
    need_programs()
    with _starting:
        number = next(_numbers)
    # Not below /tmp: it has one of its own.
    folder = Path(tempfile.mkdtemp(prefix="srd-", dir="/var/tmp"))
    data = folder / "data"
    data.mkdir()
    options: tuple[str, ...] = ()
    daemon = OwnDaemon(folder, data, number, options)
    try:
        if tls:
            make_certificates(folder / "certificates", daemon.address)
            # Without certificates dockerd would wait for 15 s before it opens a port.
            daemon.options = (
                f"--host=tcp://0.0.0.0:{daemon.tls_port}",
                "--tlsverify",
                f"--tlscacert={folder}/certificates/ca.pem",
                f"--tlscert={folder}/certificates/server-cert.pem",
                f"--tlskey={folder}/certificates/server-key.pem",
            )
        if remapped:
            daemon.remapped = True
            daemon.options = ("--userns-remap=nobody:nogroup",)
            (folder / "users").write_text("nobody:200000:65536\nnogroup:200000:65536\n")
            folder.chmod(0o755)
        # In memory: removing ten thousand files from a disk takes longer than all the tests.
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(data))
        _run("ip", "link", "add", daemon.bridge, "type", "bridge")
        _run("ip", "address", "add", f"{daemon.address}/24", "dev", daemon.bridge)
        _run("ip", "link", "set", daemon.bridge, "up")
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        subprocess.run(["ip", "link", "delete", daemon.bridge], capture_output=True, check=False)
        for place in _mounts_below(folder):
            subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((one for one in places if one.startswith(f"{folder}/")), reverse=True)


def make_certificates(folder: Path, address: str) -> None:
    """Make a CA, a server's certificate for an address and 127.0.0.1, and a client's: ca, cert, key."""
    folder.mkdir()
    # Of different names: a certificate named as its issuer is taken for its own.
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    ca_key = folder / "ca-key.pem"
    _run(
        *new,
        "/CN=ca",
        "-x509",
        "-days",
        "2",
        "-keyout",
        str(ca_key),
        "-out",
        str(folder / "ca.pem"),
    )
    uses = {
        "server-": f"subjectAltName=IP:{address},IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
        "": "extendedKeyUsage=clientAuth\n",
    }
    for prefix, extensions in uses.items():
        (folder / "extensions").write_text(extensions)
        key, request = folder / f"{prefix}key.pem", folder / f"{prefix}request.pem"
        _run(*new, f"/CN={prefix}end", "-keyout", str(key), "-out", str(request))
        _run(
            *("openssl", "x509", "-req", "-days", "2", "-in", str(request)),
            *("-CA", str(folder / "ca.pem"), "-CAkey", str(ca_key), "-CAcreateserial"),
            *("-extfile", str(folder / "extensions"), "-out", str(folder / f"{prefix}cert.pem")),
        )


def _run(*command: str, stdin: bytes = b"") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"


def fake_image(own: str) -> str:
    """Return the name of an image that holds fake_serving.py behind tensorflow/serving's entrypoint.

    Its tag names a TensorFlow, as the official image's does.
    """
    script = Path(__file__).with_name("fake_serving.py")
    name = f"servingrepo-test-fake-{own.rpartition(':')[2]}:2.10.1"
    dockerfile = f"""\
FROM {own}
USER 0:0
COPY tests/docker/{script.name} /fake_serving.py
RUN printf '%s\\n' '#!/bin/sh' 'echo "TensorFlow ModelServer: 2.10.1-rc1"' 'echo "TensorFlow Library: 2.10.1"' \\
  > /usr/bin/tensorflow_model_server && chmod 755 /usr/bin/tensorflow_model_server
EXPOSE 8500 8501
ENTRYPOINT ["python", "/fake_serving.py"]
"""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "tests", "docker")
        target.mkdir(parents=True)
        shutil.copy(script, target)
        Path(folder, "Dockerfile").write_text(dockerfile)
        _run("docker", "build", "--quiet", "--network", "none", "--tag", name, folder)
    return name


def base_image_with(entrypoint: str, name: str, daemon: OwnDaemon) -> str:
    """Make an image of the base image with an entrypoint, as JSON."""
    dockerfile = f"FROM {images.BASE}\nENTRYPOINT {entrypoint}\n"
    daemon.run("build", "--quiet", "--tag", name, "-", stdin=dockerfile.encode())
    return name


def tiny_image(name: str, daemon: OwnDaemon, *, architecture: str = "amd64") -> str:
    """Make an image of one small file, which cannot run, for some machine."""
    layer = _tar({"file": b"nothing\n"})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/file"], "ExposedPorts": {"8500/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": config, "manifest.json": manifest}
    files = {path: json.dumps(value).encode() for path, value in parts.items()}
    daemon.run("load", stdin=_tar({**files, "layer.tar": layer}))
    return name


def _tar(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()
