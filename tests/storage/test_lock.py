from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import Locked, StorageFailed
from servingrepo.storage.lock import (
    Owner,
    hold_lock,
    is_held,
    read_owner,
    this_process,
    try_flock,
    user_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from servingrepo.storage.lock import hold_lock, this_process
with hold_lock(Path(sys.argv[1]), this_process("promote x"), wait=0, what="it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held_elsewhere(path: Path, *, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def take(path: Path, *, wait: float = 0.0) -> float:
    """Take the lock and return how long that took."""
    start = time.monotonic()
    with hold_lock(path, this_process("test"), wait=wait, what="the repository R"):
        return time.monotonic() - start


def test_a_free_lock_is_taken_at_once_and_freed(tmp_path: Path) -> None:
    for _ in range(2):
        assert take(tmp_path / "lock") < 0.5


def test_a_held_lock_is_refused_and_its_owner_is_named(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock") as other, pytest.raises(Locked) as caught:
        take(tmp_path / "lock")
    message = caught.value.message
    assert "the repository R is locked by" in message
    assert f"pid {other.pid}" in message
    assert "promote x" in message
    assert user_name() in message
    assert caught.value.retryable
    assert caught.value.hint


def test_waiting_for_a_lock_times_out(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock"):
        start = time.monotonic()
        with pytest.raises(Locked, match=r"waited 0\.3 s"):
            take(tmp_path / "lock", wait=0.3)
        assert 0.3 <= time.monotonic() - start < 5


def test_a_waiter_gets_the_lock_when_its_owner_lets_go(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock", seconds=0.3):
        assert 0.05 < take(tmp_path / "lock", wait=20) < 15


def test_the_lock_of_a_killed_owner_is_free_at_once(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock") as other:
        assert is_held(tmp_path / "lock")
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert read_owner(tmp_path / "lock") is not None  # what it wrote is still there
        assert not is_held(tmp_path / "lock")
        assert take(tmp_path / "lock") < 0.5


def test_an_owner_without_a_name_is_said_to_have_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="a process that left no name"):
            take(path)


def test_the_name_goes_with_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path, this_process("x"), wait=0, what="it"):
        assert read_owner(path) == msgspec.structs.replace(
            this_process("x"),
            since=read_owner(path).since,  # type: ignore[union-attr]
        )
    assert read_owner(path) is None


def test_the_lock_is_freed_when_the_block_raises(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        hold_lock(tmp_path / "lock", this_process("x"), wait=0, what="it"),
    ):
        raise ZeroDivisionError
    assert not is_held(tmp_path / "lock")


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "lock", this_process("x"), wait=0, what="it"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        assert not is_held(tmp_path / "lock")
    finally:
        child.kill()
        child.wait()


def test_a_lock_file_that_is_gone_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "gone")


def test_two_who_ask_at_once_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "intent"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert try_flock(descriptor, path, shared=True)  # the other one, in the middle of asking
        assert not is_held(path)
    finally:
        os.close(descriptor)


def test_a_lock_in_a_place_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="open the lock"):
        take(tmp_path / "missing" / "lock")


def test_an_owner_says_who_where_what_and_since_when() -> None:
    owner = Owner(user="eva", host="h", pid=7, command="promote", since="2026-01-01T00:00:00")
    assert str(owner) == "eva@h, pid 7 (promote), since 2026-01-01T00:00:00"
