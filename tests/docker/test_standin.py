"""The stand-in image behaves as tensorflow/serving in what matters to clients."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.modelconfig import EMPTY, pin, render
from servingrepo.testing.exports import write_export
from tests.docker.fixtures import attempt, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

HEALTHCHECK = Path(__file__).resolve().parents[2] / "compose" / "healthcheck.sh"
USER = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1234:1234"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two versions of `m` and a models.config that pins both."""
    folder = tmp_path / "models"
    for version in (1, 2):
        write_export(folder / "m" / str(version), offset=float(version), variables=True)
    config = pin(EMPTY, name="m", base_path="/models/m", versions=[1, 2])
    (folder / "models.config").write_text(render(config))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@contextmanager
def running(image: str, models: Path, *options: str, flags: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a container for the block; it is removed in any case."""
    check = f"{HEALTHCHECK}:/healthcheck.sh:ro"
    mounts = ("--volume", f"{models}:/models:ro", "--volume", check)
    container = docker("run", "--detach", *mounts, *options, image, *flags)
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def wait_healthy(container: str, *, seconds: float = 60) -> None:
    begun = time.monotonic()
    while (done := attempt("exec", container, "bash", "/healthcheck.sh")).returncode:
        said = done.stdout + attempt("logs", container).stderr
        assert time.monotonic() - begun < seconds, said
        time.sleep(0.1)


CONFIG = "--model_config_file=/models/models.config"


def test_image_has_the_official_ones_entrypoint_ports_and_variables(standin_image: str) -> None:
    (image,) = json.loads(docker("image", "inspect", standin_image))
    config = image["Config"]
    assert config["Entrypoint"] == ["/usr/bin/tf_serving_entrypoint.sh"]
    assert set(config["ExposedPorts"]) == {"8500/tcp", "8501/tcp"}
    assert {"MODEL_NAME=model", "MODEL_BASE_PATH=/models"} <= set(config["Env"])
    assert not config["User"]
    assert not config["Cmd"]
    assert "Healthcheck" not in config
    script = docker("run", "--rm", "--entrypoint", "cat", standin_image, *config["Entrypoint"])
    assert script.startswith("#!/bin/bash")
    assert "exec" not in script
    tools = "command -v bash tensorflow_model_server; ! command -v curl wget; test -d /models"
    docker("run", "--rm", "--entrypoint", "bash", standin_image, "-c", tools)


def test_version_is_printed_in_the_real_servers_two_lines(standin_image: str) -> None:
    lines = docker("run", "--rm", standin_image, "--version").splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "TensorFlow ModelServer",
        "TensorFlow Library",
    ]


def test_variables_name_the_only_model(standin_image: str, models: Path) -> None:
    (models / "models.config").unlink()
    with running(standin_image, models, "--env", "MODEL_NAME=m", "--init") as container:
        config = render(pin(EMPTY, name="m", base_path="/models/m", versions=[2]))
        docker("exec", "-i", container, "bash", "-c", "cat > /tmp/config", stdin=config)
        check = ("exec", "--env", "MODEL_CONFIG_FILE=/tmp/config", container, "bash")
        begun = time.monotonic()
        while attempt(*check, "/healthcheck.sh").returncode:
            assert time.monotonic() - begun < 60, attempt("logs", container)
            time.sleep(0.1)


def test_stop_takes_its_whole_grace_period_without_an_init(
    standin_image: str, models: Path
) -> None:
    with running(standin_image, models, flags=(CONFIG,)) as container:
        wait_healthy(container)
        begun = time.monotonic()
        docker("stop", "--time", "2", container)
        assert time.monotonic() - begun >= 2
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "137"


def test_stop_takes_a_moment_with_an_init(standin_image: str, models: Path) -> None:
    with running(standin_image, models, "--init", flags=(CONFIG,)) as container:
        wait_healthy(container)
        begun = time.monotonic()
        docker("stop", "--time", "10", container)
        assert time.monotonic() - begun < 5
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "143"


def test_labels_end_a_cold_start_but_for_the_flag(standin_image: str, models: Path) -> None:
    config = pin(EMPTY, name="m", base_path="/models/m", versions=[1, 2], labels={"stable": 1})
    (models / "models.config").write_text(render(config))
    with running(standin_image, models, "--init", flags=(CONFIG,)) as container:
        assert docker("wait", container) == "255"
        assert "not currently available for inference" in docker("logs", container)
    allow = "--allow_version_labels_for_unavailable_models=true"
    with running(standin_image, models, "--init", flags=(CONFIG, allow)) as container:
        wait_healthy(container)


def test_stand_in_serves_without_network_or_root(standin_image: str, models: Path) -> None:
    options = ("--network", "none", "--user", USER, "--read-only", "--tmpfs", "/tmp", "--init")
    hardened = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    with running(standin_image, models, *options, *hardened, flags=(CONFIG,)) as container:
        wait_healthy(container)


def test_broken_model_ends_the_container_with_255(standin_image: str, models: Path) -> None:
    (models / "m" / "2" / "saved_model.pb").write_bytes(b"\xff" * 100)
    flags = (CONFIG, "--max_num_load_retries=0")
    with running(standin_image, models, "--init", flags=flags) as container:
        assert docker("wait", container) == "255"
        assert "Failed to start server. Error: " in docker("logs", container)
