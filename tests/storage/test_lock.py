from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import Locked, StorageFailed
from servingrepo.storage.lock import (
    Owner,
    hold_lock,
    introduce,
    is_held,
    read_owner,
    this_process,
    try_flock,
    user_name,
    was_left,
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


def test_a_lock_tells_that_its_last_holder_died_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path, this_process("x"), wait=0, what="it") as first:
        assert not first.was_left
    assert not was_left(path)
    with held_elsewhere(path) as other:
        assert not was_left(path)
        other.kill()
        other.wait()
    assert was_left(path)
    with hold_lock(path, this_process("x"), wait=0, what="it") as second:
        assert second.was_left
    assert not was_left(path)
    assert not was_left(tmp_path / "gone")


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


def test_two_that_ask_at_once_name_no_holder(tmp_path: Path) -> None:
    path = tmp_path / "intent"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert try_flock(descriptor, path, shared=True)  # the other one, in the middle of asking
        assert not is_held(path)
    finally:
        os.close(descriptor)


def test_a_lock_in_a_missing_place_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="open the lock"):
        take(tmp_path / "missing" / "lock")


def test_an_owner_says_who_where_what_and_since_when() -> None:
    owner = Owner(user="eva", host="h", pid=7, command="promote", since="2026-01-01T00:00:00")
    assert str(owner) == "eva@h, pid 7 (promote), since 2026-01-01T00:00:00"


# who holds it, and for how long ---------------------------------------------------------------------

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("2026-01-01T11:59:15+00:00", "(45 s ago)"),
        ("2026-01-01T11:46:00+00:00", "(14 min ago)"),
        ("2025-12-31T12:00:00+00:00", "(24 h ago)"),
        ("2025-12-29T12:00:00+00:00", "(3 days ago)"),
        ("2026-01-01T12:10:00+00:00", "(by a clock that is 10 min ahead of this one)"),
        ("yesterday", "since yesterday"),
        ("2026-01-01T11:00:00", "since 2026-01-01T11:00:00"),
    ],
)
def test_an_owner_is_introduced_with_its_age(since: str, said: str) -> None:
    owner = Owner(user="eva", host="h", pid=7, command="promote", since=since)
    text = introduce(owner, now=NOW)
    assert text.endswith(said)
    assert f"since {since}" in text


def leave(path: Path, owner: Owner) -> None:
    path.write_bytes(msgspec.json.encode(owner))


@pytest.mark.parametrize("since", ["2001-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
@pytest.mark.parametrize("host", ["", "another-host"])
def test_a_name_without_a_lock_keeps_nobody_out_whatever_pid_host_and_clock_it_has(
    host: str, since: str, tmp_path: Path
) -> None:
    """The pid was used again (it is ours), on this host or another, long ago or in the future."""
    owner = this_process("promote")
    leave(tmp_path / "lock", msgspec.structs.replace(owner, since=since, host=host or owner.host))
    assert take(tmp_path / "lock") < 0.5


@pytest.mark.parametrize("since", ["2001-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
@pytest.mark.parametrize("host", ["", "another-host"])
def test_a_live_lock_keeps_others_out_whatever_pid_host_and_clock_its_name_has(
    host: str, since: str, tmp_path: Path
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with held_elsewhere(tmp_path / "lock"):
        owner = msgspec.structs.replace(this_process("x"), since=since, pid=gone.pid)
        leave(tmp_path / "lock", msgspec.structs.replace(owner, host=host or owner.host))
        with pytest.raises(Locked) as caught:
            take(tmp_path / "lock", wait=0.2)
    if host:
        assert "locked by root@another-host" in caught.value.message or user_name() != "root"
    else:  # nobody is blamed who is not there
        assert "a process that left no name" in caught.value.message
        assert "there is no such pid here" in caught.value.message


def test_two_hosts_whose_holders_have_one_pid_exclude_each_other(tmp_path: Path) -> None:
    """Namespaces stand for hosts: each process has its own host name, and is pid 1 on its host."""
    path = tmp_path / "lock"

    def on_host(name: str, script: str) -> subprocess.Popen[str]:
        inside = f'hostname {name}; exec "{sys.executable}" -c "$0" "$@"'
        return subprocess.Popen(
            ["unshare", "--uts", "--pid", "--fork", "sh", "-c", inside, script, path, "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    first = on_host("host-a", HOLDER)
    assert first.stdout is not None
    try:
        if first.stdout.readline() != "held\n":
            pytest.skip(f"namespaces cannot be made here: {first.communicate()[1]}")
        owner = read_owner(path)
        assert owner is not None
        assert (owner.host, owner.pid) == ("host-a", 1)
        second = on_host("host-b", HOLDER)
        _, said = second.communicate(timeout=30)
        assert "Locked" in said
        assert "host-a, pid 1" in said
        with pytest.raises(Locked, match="host-a, pid 1"):
            take(path)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert take(path, wait=5) < 5


def test_a_lock_file_that_was_removed_and_made_again_is_one_lock(tmp_path: Path) -> None:
    """Who waits on the removed file must not think that it excludes those who open the new one."""
    path = tmp_path / "lock"
    with path.open("w") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        waiter = subprocess.Popen(
            [sys.executable, "-c", HOLDER.replace("wait=0", "wait=20"), path, "60"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiter.stdout is not None
        try:
            time.sleep(0.3)
            path.unlink()
            assert waiter.stdout.readline() == "held\n"  # the new file's, which it made itself
            with pytest.raises(Locked):
                take(path)
        finally:
            waiter.kill()
            waiter.communicate()
