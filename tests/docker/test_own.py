"""servingrepo's own image: every command but the embedded server, on a repository that is mounted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from servingrepo.testing.exports import write_export
from tests.docker.fixtures import attempt, docker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

USER = (os.getuid(), os.getgid()) if os.getuid() else (1234, 1234)


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, ...]:
    """How to run the image: as anybody, read-only, on a repository and two runs."""
    for run, offset in (("one", 1.0), ("two", 2.0)):
        write_export(tmp_path / "runs" / run / "saved_model", offset=offset, variables=True)
    (tmp_path / "serving").mkdir()
    if not os.getuid():
        os.chown(tmp_path / "serving", *USER)
    return (
        *("run", "--rm", "--user", f"{USER[0]}:{USER[1]}", "--network", "none"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *("--volume", f"{tmp_path}/serving:/serving", "--volume", f"{tmp_path}/runs:/runs:ro"),
    )


def test_commands_of_the_release_path_work_without_tensorflow(
    own_image: str, options: tuple[str, ...]
) -> None:
    def run(*arguments: str) -> str:
        return docker(*options, own_image, *arguments)

    run("init")
    assert run("promote", "-q", "one", "--model", "m", "--no-smoke") == "1"
    assert run("promote", "-q", "two", "--model", "m", "--no-smoke") == "2"
    run("verify")
    run("config", "check")
    assert "m" in run("list")
    assert "not checked" in run("show", "m@2")
    assert run("rollback", "-q", "m") == "1"
    assert "rollback" in run("history")
    run("scan", "one")
    run("recover")


def test_embedded_engine_is_refused_with_what_to_do(
    own_image: str, options: tuple[str, ...]
) -> None:
    docker(*options, own_image, "init")
    promote = ("promote", "one", "--model", "m", "--engine", "embedded")
    done = attempt(*options, own_image, *promote)
    assert done.returncode
    assert "TensorFlow" in done.stderr
    assert "--no-smoke" in done.stderr
    assert "Traceback" not in done.stderr


def test_image_has_of_tensorflow_the_message_modules_alone(own_image: str) -> None:
    shell = ("run", "--rm", "--entrypoint", "sh", own_image, "-c")
    packages = "/opt/servingrepo/lib/python3*/site-packages"
    kinds = docker(*shell, f"find {packages}/tensorflow -type f -not -name '*_pb2.py*'")
    assert kinds == ""
    size = int(docker(*shell, f"du -sm {packages}/tensorflow").split()[0])
    assert size < 10
    every = (
        "import servingrepo.protos as p; [getattr(p, m) for m in p._MODULES]; p.service_modules()"
    )
    docker("run", "--rm", "--entrypoint", "python", own_image, "-c", every)


def test_image_runs_as_nobody_and_shows_help(own_image: str) -> None:
    assert docker("run", "--rm", "--entrypoint", "id", own_image, "-u") == "65534"
    assert "promote" in docker("run", "--rm", own_image)
