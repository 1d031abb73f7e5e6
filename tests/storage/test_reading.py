"""Only a file is read whole, whatever was put in its place; nobody waits for what never comes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from servingrepo.errors import StorageFailed
from servingrepo.storage.reading import read_whole


def descriptors() -> int:
    """Return how many this process has open, and one for asking."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_read_whole_and_through_a_link_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    (tmp_path / "link").symlink_to(path)
    assert read_whole(path) == read_whole(tmp_path / "link") == b"x" * 300_000


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("directory", "a directory"),
        ("device", "a character device"),
    ],
)
def test_what_is_no_file_is_refused_at_once_by_its_kind(
    kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    path = Path("planted")
    opened = descriptors()
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "socket":
                listening.bind(str(path))
            case "directory":
                path.mkdir()
            case _:
                path.symlink_to("/dev/null")
        with pytest.raises(StorageFailed, match=f"cannot read planted: it is {said}, not a file"):
            read_whole(path)
    assert descriptors() == opened
