"""doctor on hostile trees: it does not hang, runs nothing, opens no device, and does not leave the tree."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from servingrepo.runs.mounts import bucket_mount
from tests.cli.test_hung_mounts import mounted
from tests.support import command
from tests.verbs.doctoring import compose, configure, entry, examine, export, models, slugs, the

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PRIVATE = "what another user wrote"

_OPENED, _READ, _DONT_WAIT = 0x20, 0x1, 0o4000
"""IN_OPEN and IN_ACCESS of inotify(7), and O_NONBLOCK."""


@contextmanager
def watched(*paths: Path) -> Iterator[Callable[[], bool]]:
    """Let the kernel watch paths for the block; the value says whether one of them was opened or read."""
    libc = ctypes.CDLL(None, use_errno=True)
    watching = libc.inotify_init1(_DONT_WAIT)
    assert watching >= 0
    for path in paths:
        assert libc.inotify_add_watch(watching, os.fsencode(path), _OPENED | _READ) >= 0

    def touched() -> bool:
        try:
            return bool(os.read(watching, 1 << 16))
        except BlockingIOError:
            return False

    yield touched
    os.close(watching)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A tree with links out of it, to devices and in circles; with FIFOs, sockets and huge files; deep and wide."""
    shelf = models(tmp_path / "root")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "saved_model.pb").write_text(PRIVATE)
    (tmp_path / "secret" / "1").mkdir()
    (shelf / "out").symlink_to(tmp_path / "secret")
    (shelf / "half" / "3").symlink_to(tmp_path / "secret")
    (shelf / "half" / "4").symlink_to("/dev/zero")
    (shelf / "half" / "5").symlink_to("..")
    (shelf / "half" / "6").symlink_to("6")
    os.mkfifo(shelf / "half" / "7")
    os.mkfifo(shelf / "fifo")
    (shelf / "half" / "8").mkdir()
    (shelf / "half" / "8" / "saved_model.pb").symlink_to(tmp_path / "secret" / "saved_model.pb")
    (shelf / "half" / "9").mkdir()
    os.mkfifo(shelf / "half" / "9" / "saved_model.pb")
    export(shelf / "half" / "10")
    with (shelf / "half" / "10" / "saved_model.pb").open("r+b") as huge:
        huge.truncate(1 << 40)
    export(shelf / "half" / "11")
    os.mkfifo(shelf / "half" / "11" / "assets.extra")
    (shelf / "loop").symlink_to(".")
    deep = shelf / "deep"
    for _ in range(200):
        deep /= "d"
    deep.mkdir(parents=True)
    (shelf / "half" / "a\nb").mkdir()
    (shelf / "x\x1b[31m").mkdir()
    (shelf / os.fsdecode(b"\xff")).mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize("deep", [False, True])
def test_a_hostile_tree_is_examined_in_time(hostile: Path, deep: bool) -> None:
    if deep:  # all of it is read then, and a terabyte takes its time
        (hostile / "models" / "half" / "10" / "saved_model.pb").unlink()
    done = command("doctor", hostile, *(["--deep"] if deep else []), timeout=60)
    assert done.code == 0, done.out
    assert "unserved-damaged" in done.out
    assert "link-out" in done.out
    assert "\x1b" not in done.out
    assert PRIVATE not in done.out + done.err
    if deep:
        assert "unsafe-file" in done.out
    else:
        assert "1,099,511,627,776 bytes" in done.out


def test_nothing_outside_of_a_tree_is_opened(hostile: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    with watched(outside, outside / "1") as touched:
        examine(hostile, compose=compose(hostile))
        assert not touched()
        (outside / "saved_model.pb").read_text()
        assert touched(), "the kernel tells what is opened"


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_a_config_that_is_no_file_is_a_finding(tmp_path: Path, kind: str) -> None:
    shelf = models(tmp_path, config=False)
    file = shelf / "models.config"
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "directory":
            file.mkdir()
    assert "config-unreadable" in slugs(examine(tmp_path))


def test_a_config_behind_a_link_out_is_not_read(tmp_path: Path) -> None:
    """What stands in it would be in the messages. A config that the user names is read, wherever its links lead."""
    shelf = models(tmp_path / "root", config=False)
    (tmp_path / "secret").write_text("private_word { }")
    (shelf / "models.config").symlink_to(tmp_path / "secret")
    file = compose(tmp_path / "root")
    for options in ({}, {"compose": file}):
        found = examine(tmp_path / "root", **options)
        assert slugs(found)[0] == "config-unreadable"
        assert "private_word" not in str(found)
    named = examine(tmp_path / "root", config=shelf / "models.config")
    assert "private_word" in str(named)
    assert slugs(named)[0] == "config-refused"


def test_base_paths_that_climb_out_are_not_followed(tmp_path: Path) -> None:
    shelf = models(tmp_path / "root")
    export(tmp_path / "outside" / "1")
    configure(
        shelf,
        entry("half", "specific { versions: 2 }"),
        entry("up", base_path="/models/../../outside"),
    )
    found = examine(tmp_path / "root")
    assert any("/outside" in one for one in found.not_checked)


def test_fuse_mounts_are_found_by_the_kernels_table(tmp_path: Path) -> None:
    """The text is a fake of /proc/self/mountinfo, with lines as gcsfuse, s3fs and Mountpoint for S3 leave them."""
    line = "36 35 0:52 / {} rw,nosuid - {} {} rw,user_id=0\n"
    root = line.format("/", "ext4", "/dev/vda1")
    for kind, source in (
        ("fuse.gcsfuse", "bucket"),
        ("fuse.s3fs", "s3fs"),
        ("fuse", "mountpoint-s3"),
    ):
        table = root + line.format(tmp_path, kind, source)
        assert bucket_mount(tmp_path / "models", table) == f"{kind}, {source}"
        assert bucket_mount(tmp_path.parent, table) == ""
        assert bucket_mount(tmp_path / "a", table + line.format(tmp_path / "a", "tmpfs", "x")) == ""
    assert bucket_mount(tmp_path, root + line.format(tmp_path, "fuseblk", "/dev/sdb1")) == ""


def test_a_tree_on_a_fuse_mount_is_found(tmp_path: Path) -> None:
    """A real FUSE mount of a mirror of the tree."""
    models(tmp_path / "source")
    with mounted(tmp_path / "source", tmp_path / "place"):
        found = examine(tmp_path / "place")
        assert slugs(found) == ["bucket-mount"]
        assert "atomic rename" in the(found, "bucket-mount").consequence


def test_a_file_system_that_hangs_is_a_finding(tmp_path: Path) -> None:
    models(tmp_path / "source")
    with mounted(tmp_path / "source", tmp_path / "place", after=0) as server:
        done = command("doctor", tmp_path / "place", "--json", "--run-wait", "1", timeout=90)
        server.send_signal(signal.SIGKILL)
    assert done.code == 53
    assert done.json["error"]["details"]["findings"][0]["slug"] == "storage-hung"
