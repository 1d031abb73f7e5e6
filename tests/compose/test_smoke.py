"""The smoke service of compose/: promote starts it, proves on it what it publishes, and nothing of it stays."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.storage.lock import hold_lock, this_process
from servingrepo.testing.exports import Served, write_export
from tests.compose.environment import USER, Environment
from tests.docker.fixtures import docker
from tests.support import ending

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def add_run(environment: Environment, name: str, **export: Any) -> None:
    """Add a run that containers can read."""
    write_export(environment.folder / "runs" / name / "saved_model", **export)
    if not os.getuid():
        for path in (environment.folder / "runs").rglob("*"):
            os.chown(path, *USER)


@contextmanager
def taken(environment: Environment) -> Iterator[None]:
    """Hold the lock of smoke tests on running servers, as another promotion would."""
    lock = environment.folder / "serving" / ".servingrepo" / "smoke-lock"
    with hold_lock(lock, this_process("another promotion"), wait=0, what="it"):
        yield


@contextmanager
def promoting(environment: Environment, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Promote in the background."""
    command = environment.command_line("run", "--rm", "-T", "promote", *arguments)
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ending(process):
        yield process


def told_to_wait(process: subprocess.Popen[str]) -> str:
    """Return the line by which a promotion says that it waits."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "waiting up to" in line:
            return line
    raise AssertionError("".join(said))


def proofs(environment: Environment, version: str) -> list[dict[str, Any]]:
    """Return the proofs in a version's record."""
    model, _, number = version.partition("@")
    records = environment.folder / "serving" / ".servingrepo" / "models"
    record = json.loads((records / model / f"{number}.json").read_text())
    return list(record["proofs"])


def test_a_version_is_proven_and_the_server_goes(environment: Environment) -> None:
    environment.up()
    assert environment.promote("one") == 1
    (proof,) = proofs(environment, "m@1")
    standin = environment.variables["SERVING_IMAGE"]
    assert (proof["engine"], proof["declared"], proof["image"]) == ("remote", standin, "")
    assert proof["server"] == f"{standin}, as declared"
    assert [one["outcome"] for one in proof["report"]["verdicts"]] == ["passed"]
    assert proof["staged"]
    assert "as declared" in environment.command("history")
    environment.wait_until_gone()
    assert environment.predict() == (1, 3.0)
    # And again, with the container that has ended.
    assert environment.promote("two") == 2
    environment.wait_until_gone()


def test_a_broken_export_fails_there_and_nothing_is_served(environment: Environment) -> None:
    add_run(environment, "broken", offset=9.0, signatures=[Served(fault="uninitialized")])
    environment.up()
    assert environment.promote("one") == 1
    config = environment.folder / "serving" / "models" / "models.config"
    before = config.read_bytes()
    environment.wait_until_gone()
    refused = environment.attempt("run", "--rm", "promote", "broken", "--model", "m")
    assert refused.returncode == 70, refused.stderr
    assert "smoke:8500" in refused.stderr
    assert config.read_bytes() == before
    versions = config.parent / "m"
    assert sorted(path.name for path in versions.iterdir()) == [".staging", "1"]
    assert list((versions / ".staging").iterdir()) == []
    assert environment.predict() == (1, 3.0)
    environment.wait_until_gone()


def test_a_run_that_does_not_exist_leaves_no_server(environment: Environment) -> None:
    environment.up()
    refused = environment.attempt("run", "--rm", "promote", "no-such-run", "--model", "m")
    assert refused.returncode == 20, refused.stderr
    environment.wait_until_gone()


def test_a_second_promotion_waits_and_says_for_whom(environment: Environment) -> None:
    environment.up()
    with promoting(environment, "one", "--model", "m") as waiting:
        with taken(environment):
            line = told_to_wait(waiting)
            assert "the server for smoke tests, smoke:8500, is locked by" in line
            assert "(another promotion)" in line
            assert "smoke" in environment.compose("ps", "--services").split()
            assert environment.attempt(
                *("run", "--rm", "promote", "two", "--model", "other", "--lock-wait", "0.2")
            ).returncode == 40  # fmt: skip
        assert waiting.wait(60) == 0
    assert environment.predict() == (1, 3.0)
    environment.wait_until_gone()


def test_promotions_of_two_models_at_once_both_end_well(environment: Environment) -> None:
    """Once the service's container was made: Compose cannot make it twice at once, and says so."""
    environment.variables["SMOKE_LINGER"] = "60"
    environment.up()
    environment.promote("one")
    with (
        promoting(environment, "one", "--model", "other") as one,
        promoting(environment, "two", "--model", "third") as two,
    ):
        assert [one.wait(120), two.wait(120)] == [0, 0], (one.communicate(), two.communicate())
    for model in ("other", "third"):
        assert [one["engine"] for one in proofs(environment, f"{model}@1")] == ["remote"]
    environment.wait_until_gone()


def test_ctrl_c_leaves_no_server(environment: Environment) -> None:
    """On a terminal: without one, Compose itself ends at a SIGINT, and the promotion goes on to its end."""
    environment.up()
    terminal, theirs = pty.openpty()
    with taken(environment), os.fdopen(terminal, "r+b", buffering=0) as keyboard:
        with os.fdopen(theirs, "r+b", buffering=0) as screen:
            promotion = subprocess.Popen(
                environment.command_line("run", "--rm", "promote", "one", "--model", "m"),
                env={**os.environ, **environment.variables},
                stdin=screen,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )
        with ending(promotion):
            said = b""
            while b"waiting up to" not in said:
                said += keyboard.read(4096)
            keyboard.write(b"\x03")
            assert promotion.wait(60) == 130
    environment.wait_until_gone()
    assert environment.promote("one") == 2, "the number was burnt"
    environment.wait_until_gone()


def test_a_killed_promotion_leaves_no_server(environment: Environment) -> None:
    environment.up()
    with taken(environment), promoting(environment, "one", "--model", "m") as promotion:
        told_to_wait(promotion)
        label = f"label=com.docker.compose.project={environment.name}"
        oneoff = "label=com.docker.compose.oneoff=True"
        docker("kill", docker("ps", "--quiet", "--filter", label, "--filter", oneoff))
        assert promotion.wait(60) == 137
    environment.wait_until_gone()
    assert environment.promote("one") == 2
    environment.wait_until_gone()


def test_the_server_is_nobody_elses(environment: Environment) -> None:
    """It has no published ports, a network for promotions alone, writes nothing, and reads no live config."""
    environment.up()
    environment.promote("one")
    environment.wait_until_gone()
    with taken(environment), promoting(environment, "two", "--model", "m") as promotion:
        told_to_wait(promotion)
        (facts,) = json.loads(docker("inspect", environment.compose("ps", "-q", "smoke").strip()))
        assert not any(facts["NetworkSettings"]["Ports"].values())
        assert list(facts["NetworkSettings"]["Networks"]) == [f"{environment.name}_smoke"]
        assert not any(mount["RW"] for mount in facts["Mounts"])
        assert facts["HostConfig"]["ReadonlyRootfs"]
        assert facts["HostConfig"]["Init"]
        assert facts["State"]["Health"]["Status"] == "healthy"
        read = ("exec", "smoke", "bash", "-c", "cat /tmp/models.config; cat /proc/*/cmdline")
        said = environment.compose(*read)
        assert said.startswith("model_config_list {}\n")
        assert "--model_config_file=/tmp/models.config" in said
        assert "/models/models.config" not in said
        with pytest.raises(AssertionError):
            environment.compose("exec", "smoke", "bash", "-c", "> /models/written")
    environment.wait_until_gone()


def test_a_down_without_the_profile_breaks_no_promotion(environment: Environment) -> None:
    """It leaves the smoke service's container and removes the default network, without which that would not start."""
    environment.up()
    environment.promote("one")
    environment.wait_until_gone()
    environment.compose("down", "--timeout", "5")
    environment.up()
    assert environment.promote("two") == 2
    environment.down()
    assert environment.left() == []


def test_without_a_smoke_test_no_server_is_needed(environment: Environment) -> None:
    environment.up()
    unproven = ("promote", "one", "--model", "m", "--no-smoke", "-q")
    assert environment.compose("run", "--rm", "--no-deps", *unproven).strip() == "1"
    assert proofs(environment, "m@1") == []
    assert environment.compose("ps", "--all", "--services").split() == ["init", "serving"]


def test_a_server_for_nobody_ends_by_itself(environment: Environment) -> None:
    """As when the command was killed before it made the promotion's container."""
    environment.compose("run", "--rm", "init")
    environment.compose(
        *("run", "--detach", "--no-deps", "-e", "SMOKE_WAIT=2", "--name", f"{environment.name}-s"),
        "smoke",
    )
    assert docker("wait", f"{environment.name}-s") == "0"
    docker("rm", f"{environment.name}-s")
