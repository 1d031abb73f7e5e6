"""Folders of servers are closed to others, can hold a socket, and are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.servers.sockets import PREFIX, SOCKET, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # pytest's own paths are too long for sockets.
    with tempfile.TemporaryDirectory(prefix="srt-") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        yield Path(place)


def test_folder_is_below_tmpdir_and_closed_to_others(temporary: Path) -> None:
    mask = os.umask(0)
    try:
        with server_folder() as folder:
            assert folder.parent == temporary
            assert folder.stat().st_mode & 0o777 == 0o700
            assert list(folder.iterdir()) == []
    finally:
        os.umask(mask)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["l" * 100, "with space", "100%20", "a?b", "#"])
def test_folder_is_in_tmp_where_tmpdir_fits_no_socket(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (temporary / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / name))
    with server_folder() as folder:
        assert folder.parent == Path("/tmp")
        assert folder.name.startswith(PREFIX)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder / "socket" / SOCKET)) < 108
    assert not folder.exists()
    assert list((temporary / name).iterdir()) == []


def test_no_place_for_a_socket_names_the_places() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    script = (
        "from servingrepo.errors import StorageFailed\n"
        "from servingrepo.servers.sockets import server_folder\n"
        "try:\n"
        "    with server_folder(): pass\n"
        "except StorageFailed as error: print(error.problems, error.hint)\n"
    )
    # What lies there stays to be read: the interpreter may lie below them.
    read_only = "for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,ro,bind $place; done"
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{read_only}; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            script,
        ],
        cwd="/proc",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/tmp: [Errno 30] Read-only file system" in done.stdout
    assert "set TMPDIR" in done.stdout


def test_next_folder_removes_that_of_a_killed_process(temporary: Path) -> None:
    script = (
        "import time\n"
        "from servingrepo.servers.sockets import server_folder\n"
        "with server_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with server_folder():
            assert left.is_dir()
        process.send_signal(signal.SIGKILL)
    with server_folder():
        assert not left.exists()
