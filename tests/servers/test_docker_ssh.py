"""A daemon's URL from the environment or a docker context must not become an option of ssh."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.docker_daemon import connect

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "ssh://-oProxyCommand=touch ran",
    "ssh://-oProxyCommand=touch${IFS}ran",
    "ssh://-oProxyCommand=touch${IFS}ran/var/run/docker.sock",
    "ssh://-oProxyCommand=touch%20ran",
    "ssh://%2DoProxyCommand=touch%20ran",
    "ssh://me@-oProxyCommand=touch${IFS}ran",
    "ssh://-oProxyCommand=touch${IFS}ran@host.invalid",
    "ssh://%2doProxyCommand=touch@host.invalid",
    "ssh://-Fran@host.invalid:22",
    "ssh://me@host.invalid;touch${IFS}ran",
    "ssh://`touch${IFS}ran`@host.invalid",
    "ssh://me@host$(touch${IFS}ran)",
    "ssh://me@:22",
    "ssh:///var/run/docker.sock",
    "ssh://me@host.invalid:99999",
    "ssh://me@host.invalid:x",
)


def connected() -> None:
    with connect(deadline=Deadline.after(5)):
        pass


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh program")
    monkeypatch.chdir(tmp_path)
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("url", HOSTILE)
def test_host_that_ssh_reads_as_option_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        connected()
    assert list(tmp_path.iterdir()) == []


def test_such_a_host_of_a_docker_context_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "docker"
    meta = settings / "contexts/meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": HOSTILE[0]}}
    (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": endpoints}))
    (settings / "config.json").write_text('{"currentContext": "far"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(settings))
    with pytest.raises(EngineUnavailable, match="can be no host's name"):
        connected()
    assert [one.name for one in tmp_path.iterdir()] == ["docker"]


def test_nothing_behind_the_options_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake ssh writes down what it is given, and logs in nowhere."""
    folder = tmp_path / "fake_ssh"
    folder.mkdir()
    fake = folder / "ssh"
    fake.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/given\nexit 255\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@host.invalid:2222")
    with pytest.raises(EngineUnavailable, match="cannot log in"):
        connected()
    given = (tmp_path / "given").read_text().splitlines()
    assert given[-5:] == ["-p", "2222", "--", "me@host.invalid", "cat"]
