"""Where the images' packages come from."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from servingrepo.servers.engines.processes import free_port
from tests.architecture.test_lock import pinned
from tests.docker import images
from tests.docker.fixtures import docker
from tests.servers.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

VERSIONS = (
    "import importlib.metadata as m, json;"
    "print(json.dumps({one.name.lower(): one.version for one in m.distributions()}))"
)


def test_image_has_the_locked_versions_and_no_others(own_image: str) -> None:
    found = json.loads(docker("run", "--rm", "--entrypoint", "python", own_image, "-c", VERSIONS))
    del found["servingrepo"]
    locked = pinned("image", images.BASE_PYTHON)
    assert {name.replace("_", "-"): version for name, version in found.items()} == locked


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@contextmanager
def package_index(wheels: Path, folder: Path, authority: Authority) -> Iterator[str]:
    """Serve wheels as a package index over TLS, on this machine alone."""
    for wheel in wheels.iterdir():
        place = folder / "simple" / wheel.name.partition("-")[0].replace("_", "-").lower()
        place.mkdir(parents=True, exist_ok=True)
        (place / wheel.name).symlink_to(wheel)
    handler = partial(_Quiet, directory=str(folder))
    address = ("127.0.0.1", free_port())
    with http.server.ThreadingHTTPServer(address, handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class's name
        pass


def test_build_uses_but_never_names_a_package_index(
    docker_daemon: None, authority: Authority, tmp_path: Path
) -> None:
    def build(index: str, extra: dict[str, Path], *target: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                *("docker", "build", "--network", "host", "--file", images.OWN.dockerfile),
                *("--build-arg", f"BASE={images.BASE}", "--build-arg", f"PIP_INDEX_URL={index}"),
                *(*target, "-"),
            ],
            input=images.context(images.OWN.sources, {**parts, **extra}),
            capture_output=True,
            check=False,
            timeout=images.BUILD_SECONDS,
        )
        return done.returncode, (done.stdout[-2000:] + done.stderr).decode()

    parts = {"prepared/tensorflow": images.message_modules()}
    trusted = {"prepared/ca.pem": authority.folder / "ca.crt"}
    tag = f"servingrepo-test-index:{free_port()}"
    stage = f"{tag}-dependencies"
    with package_index(images.wheels(), tmp_path / "index", authority) as index:
        try:
            assert build(index, {}, "--target", "dependencies", "--tag", stage)[0]
            # With a name, so that it can be removed: the old builder keeps it otherwise.
            done = build(index, trusted, "--target", "dependencies", "--tag", stage)
            assert done[0] == 0, done[1]
            done = build(index, trusted, "--tag", tag)
            assert done[0] == 0, done[1]
            assert index not in docker("history", "--no-trunc", tag)
            assert index not in docker("image", "inspect", tag)
            docker("run", "--rm", tag, "--version")
        finally:
            for name in (tag, stage):
                subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)
