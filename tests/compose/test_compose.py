"""compose/ on a real Docker Engine, with the stand-in for tensorflow/serving."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.compose.environment import PREDICT, PROJECT, USER, Environment
from tests.docker.fixtures import attempt, docker

if TYPE_CHECKING:
    from pathlib import Path

# The first test waits for the images, which take a minute or two where nothing is cached.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ONE, TWO = (1, 3.0), (2, 4.0)


def test_promote_twice_and_roll_back_with_restarts_between_serves_what_is_pinned(
    environment: Environment,
) -> None:
    environment.up()
    environment.restart()
    assert environment.promote("one") == 1
    assert environment.predict() == ONE
    environment.restart()
    assert environment.predict() == ONE
    assert environment.promote("two") == 2
    assert environment.predict() == TWO
    environment.restart()
    assert environment.predict() == TWO
    environment.rollback()
    assert environment.predict() == ONE
    environment.restart()
    assert environment.predict() == ONE
    assert environment.left()
    environment.down()
    assert environment.left() == []
    # And up again: everything that counts is in the repository.
    environment.up()
    assert environment.predict() == ONE


def test_server_is_restarted_by_up_while_it_is_down_for_a_promotion_follows_the_config(
    environment: Environment,
) -> None:
    environment.up()
    assert environment.promote("one") == 1
    environment.compose("stop", "--timeout", "5", "serving")
    refused = environment.attempt("run", "--rm", "promote", "two", "--model", "m")
    assert refused.returncode
    assert "serving:8500" in refused.stderr
    environment.compose(
        "run", "--rm", "--entrypoint", "servingrepo", "promote", "serve", "m@2",
        SERVINGREPO_ENDPOINT="",
    )  # fmt: skip
    environment.up()
    assert environment.predict() == TWO


def test_server_that_lacks_a_pinned_version_is_unhealthy_until_it_is_told(
    environment: Environment,
) -> None:
    environment.up()
    environment.promote("one")
    assert environment.wait_for_health("healthy") == ""
    environment.promote("two", SERVINGREPO_ENDPOINT="")
    assert environment.wait_for_health("unhealthy") == "m@2 is not loaded"
    environment.command("reload")
    environment.wait_for_health("healthy")
    assert environment.predict() == TWO


def test_broken_version_that_was_promoted_unproven_is_seen_and_rolled_back(
    environment: Environment,
) -> None:
    broken = environment.folder / "runs" / "two" / "saved_model" / "variables"
    for shard in broken.glob("variables.data-*"):
        shard.write_bytes(b"")
    environment.up()
    environment.promote("one")
    refused = environment.attempt("run", "--rm", "promote", "two", "--model", "m")
    assert refused.returncode, "a switch to a version that does not load must not succeed"
    assert environment.predict() == ONE
    assert environment.wait_for_health("healthy") == ""


def test_polling_server_follows_promote_and_rollback_without_being_told(
    environment: Environment,
) -> None:
    polled = replace(
        environment,
        variables={**environment.variables, "SERVING_POLL": "1", "SERVINGREPO_ENDPOINT": ""},
    )
    polled.up()
    for act, expected in (
        (lambda: polled.promote("one"), ONE),
        (lambda: polled.promote("two"), TWO),
        (polled.rollback, ONE),
    ):
        act()
        polled.compose("exec", "serving", "bash", "-c", UNTIL_HEALTHY)
        polled.command("status", "--endpoint", "serving:8500")
        assert polled.predict() == expected


UNTIL_HEALTHY = "for i in {1..150}; do bash /healthcheck.sh && exit; sleep 0.2; done; exit 1"


def test_containers_run_as_the_user_on_a_read_only_root_file_system(
    environment: Environment,
) -> None:
    environment.up()
    environment.promote("one")
    uid = environment.compose("exec", "serving", "bash", "-c", "echo $UID").strip()
    assert uid == str(USER[0])
    written = environment.attempt("exec", "serving", "bash", "-c", "> /written")
    assert os.strerror(errno.EROFS) in written.stderr
    written = environment.attempt("exec", "serving", "bash", "-c", "> /models/written")
    assert os.strerror(errno.EROFS) in written.stderr
    owners = {path.stat().st_uid for path in (environment.folder / "serving").rglob("*")}
    assert owners == {USER[0]}


def test_up_without_the_repositorys_folder_says_what_is_missing(environment: Environment) -> None:
    (environment.folder / "serving" / "models").rmdir()
    refused = environment.attempt("up", "--detach")
    assert refused.returncode
    assert f"{environment.folder}/serving/models" in refused.stderr
    assert not (environment.folder / "serving" / "models").exists()


def test_published_ports_are_on_loopback_only(environment: Environment) -> None:
    environment.up()
    state: Any = environment.state()
    bindings = state["NetworkSettings"]["Ports"]
    assert set(bindings) == {"8500/tcp", "8501/tcp"}
    assert {one["HostIp"] for ports in bindings.values() for one in ports} == {"127.0.0.1"}
    assert state["HostConfig"]["Init"] is True


def test_fragment_included_in_a_users_own_file_serves_his_services(
    environment: Environment, tmp_path: Path
) -> None:
    environment.up()
    environment.promote("one")
    environment.down()
    (tmp_path / "predict.py").write_text(PREDICT)
    (tmp_path / "compose.yml").write_text(
        f"""
include:
  - path: {PROJECT}/compose/include.yml
services:
  app:
    image: {environment.own_image}
    entrypoint: [python, /predict.py, "serving:8500", m]
    volumes: ["./predict.py:/predict.py:ro"]
    depends_on: {{ serving: {{ condition: service_healthy }} }}
"""
    )
    own = replace(environment, file=tmp_path / "compose.yml")
    assert own.compose("run", "--rm", "--quiet-pull", "app").split() == ["1", "3"]
    own.down()
    assert own.left() == []


def test_every_image_is_a_variable_and_the_official_one_is_the_default(
    compose_plugin: None,
) -> None:
    file = str(PROJECT / "compose" / "docker-compose.yml")
    images = docker("compose", "--file", file, "--profile", "release", "config", "--images")
    assert set(images.split()) == {"servingrepo", "tensorflow/serving:2.19.1"}
    assert attempt("compose", "--file", file, "config", "--quiet").returncode == 0


def test_settings_that_lie_in_the_runs_or_the_repository_run_nothing(
    environment: Environment,
) -> None:
    """Whoever trains may be the very user that promotes, so who owns a file tells nothing here."""
    for folder in ("runs", "runs/one", "serving"):
        planted = environment.folder / folder / "servingrepo.toml"
        planted.write_text('[promote]\nbefore = "touch /serving/marker"\n')
        planted.chmod(0o644)
        os.chown(planted, *USER)
    environment.up()
    assert environment.promote("one") == 1
    assert environment.command("scan", "two", "-q") == "/runs/two/saved_model\n"
    assert not (environment.folder / "serving" / "marker").exists()


def test_settings_of_the_environment_are_those_that_it_names(environment: Environment) -> None:
    own = environment.folder / "own.toml"
    own.write_text('[promote]\nbefore = "touch /serving/marker"\n')
    own.chmod(0o644)
    environment.up()
    assert environment.promote("one", SERVINGREPO_SETTINGS=str(own)) == 1
    assert (environment.folder / "serving" / "marker").exists()
