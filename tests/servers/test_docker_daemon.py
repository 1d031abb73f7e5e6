"""Errors for a Docker daemon that is missing or silent. The tests need no daemon."""

from __future__ import annotations

import gc
import socket
import warnings
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable, ServerTimeout
from servingrepo.servers.engines.docker_daemon import connect

if TYPE_CHECKING:
    from pathlib import Path


def test_connect_without_listener_leaves_no_socket_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for path in (left, tmp_path / "never.sock"):
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            with (
                pytest.raises(EngineUnavailable, match=f"no Docker daemon at unix://{path}"),
                connect(deadline=Deadline.after(5)),
            ):
                pass
        gc.collect()
    assert [str(one.message) for one in seen if one.category is ResourceWarning] == []


def test_connect_to_a_full_socket_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "full.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as caller:
        full.bind(str(path))
        full.listen(0)
        caller.connect(str(path))
        with (
            pytest.raises(ServerTimeout, match="did not answer in time"),
            connect(deadline=Deadline.after(1)),
        ):
            pass
