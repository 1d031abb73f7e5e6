"""Locks of other users, where somebody put something else, without flock(2), on read-only roots."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import Locked, StorageFailed
from servingrepo.repository import journal
from servingrepo.storage.lock import hold_lock, this_process
from tests.cli.trees import snapshot
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.api import OpenRepository


def take(path: Path) -> None:
    with hold_lock(path, this_process("test"), wait=0, what="the repository R"):
        pass


# users and places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_lock_file_is_for_all_to_read_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        take(tmp_path / "lock")
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o7777 == 0o644


AS_USER = """
import os, sys
from pathlib import Path
from servingrepo.storage.lock import hold_lock, this_process
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with hold_lock(Path(sys.argv[1]), this_process("nobody's"), wait=0, what="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_nobody(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", AS_USER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="servingrepo-test-"))
    os.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


def test_the_lock_file_of_another_user_is_taken_where_one_may_write(nobodys_folder: Path) -> None:
    path = nobodys_folder / "lock"
    before = os.umask(0o077)
    try:
        take(path)  # root was here
    finally:
        os.umask(before)
    with held_by_nobody(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="a process that left no name"):
            take(path)


def test_an_unreadable_lock_file_is_named_with_its_remedy(nobodys_folder: Path) -> None:
    path = nobodys_folder / "lock"
    path.touch()
    path.chmod(0o600)
    with held_by_nobody(path) as process:
        _, said = process.communicate(timeout=30)
    assert "NoPermission" in said
    assert os.strerror(errno.EACCES) in said
    assert str(path) in said


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "hard link"])
def test_what_takes_the_lock_s_place_is_left_alone(kind: str, tmp_path: Path) -> None:
    path, victim = tmp_path / "lock", tmp_path / "victim"
    victim.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.hardlink_to(victim)
    if kind == "hard link":
        take(path)
    else:
        with pytest.raises(StorageFailed, match="lock"):
            take(path)
    assert victim.read_text() == "precious"


# file systems without flock -------------------------------------------------------------------------

WITHOUT_FLOCK = """
import ctypes, errno, os, platform, struct, sys
# A seccomp filter (seccomp(2)) that lets flock(2) fail with an errno, as NFS without lockd does (ENOLCK).
number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
def rule(code, yes, no, k): return struct.pack("HBBI", code, yes, no, k)
rules = [
    rule(0x20, 0, 0, 0),  # load the system call's number
    rule(0x15, 0, 1, number),
    rule(0x06, 0, 0, 0x00050000 | int(sys.argv[1])),  # SECCOMP_RET_ERRNO
    rule(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
]
code = ctypes.create_string_buffer(b"".join(rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execv(sys.executable, [sys.executable, "-m", "servingrepo", *sys.argv[2:]])
"""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_flock_writers_say_so_and_change_nothing_and_readers_work(
    number: int, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "repo")
    repo.promote(run_with(tmp_path / "run", offset=1.0), model="m", smoke=False)
    repo.promote(run_with(tmp_path / "run2", offset=2.0), model="m", smoke=False)

    def without_flock(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-c", WITHOUT_FLOCK, str(number)),
                *("--root", str(repo.root), *arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    before = snapshot(repo.root)
    for writer in (["rollback", "m"], ["hold", "m"]):
        done = without_flock(*writer)
        assert done.returncode == 50, done.stderr
        assert "cannot lock" in done.stderr
        assert os.strerror(number) in done.stderr
        assert "flock(2)" in done.stderr
    for reader in (["list"], ["show", "m"], ["status"], ["history"], ["verify", "m"]):
        done = without_flock(*reader)
        assert done.returncode == 0, done.stderr
    # Nor can a reader tell then whether a command lives that began something.
    intent = repo.value.layout.intent("20260101T000000Z-00000000")
    with pytest.raises(ZeroDivisionError), journal.declare(repo.value.disk, intent, begun(intent)):
        raise ZeroDivisionError
    done = without_flock("status")
    assert (done.returncode, "cannot lock" in done.stderr) == (50, True)
    intent.unlink()
    assert snapshot(repo.root) == before


def begun(path: Path) -> journal.Intent:
    owner = this_process("x")
    return journal.Intent(txid=path.stem, command="promote", owner=owner, model="m", version=9)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[OpenRepository]:
    """A repository on a file system that is mounted read-only."""
    repo = new_repository(tmp_path / "disk" / "repo")
    repo.promote(run_with(tmp_path / "run", offset=1.0), model="m", smoke=False)
    place = tmp_path / "disk"
    for options in (("--bind", place, place), ("-o", "remount,bind,ro", place)):
        done = subprocess.run(["mount", *options], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot be mounted here: {done.stderr.decode()}")
    try:
        yield repo
    finally:
        subprocess.run(["umount", place], check=True)


def test_on_a_read_only_root_readers_work_and_writers_say_so(
    read_only: OpenRepository, tmp_path: Path
) -> None:
    root = read_only.root
    for reader in (["list"], ["show", "m"], ["status"], ["history"], ["verify"]):
        done = command("--root", root, *reader)
        assert done.code == 0, done.err
    for writer in (
        ["rollback", "m", "--to", "1"],
        ["promote", tmp_path / "run", "--model", "n", "--no-smoke"],
        ["recover"],
    ):
        done = command("--root", root, *writer)
        assert done.code == 52, done.err
        assert os.strerror(errno.EROFS) in done.err
        assert "mounted read-only" in done.err
    done = command("--root", root, "hold", "m", "--dry-run")
    assert done.code == 0, done.err
