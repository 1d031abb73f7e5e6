"""Opening what others may swap for a link at any moment."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from servingrepo.storage.beneath import opened_plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 3.0
# Swaps a name for a link to something else and back, as fast as it can, until it is ended.
SWAP = """
import os, sys
name, real, elsewhere = sys.argv[1:]
while True:
    os.symlink(elsewhere, name + ".new")
    os.replace(name + ".new", name)
    if os.path.isdir(real):
        os.unlink(name)
        os.rename(real, name)
        os.rename(name, real)
    else:
        os.link(real, name + ".new")
        os.replace(name + ".new", name)
"""


@contextmanager
def swapping(name: Path, real: Path, elsewhere: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", SWAP, name, real, elsewhere])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def opened_meanwhile(path: Path) -> set[str]:
    """Open a path again and again; return what was read whenever it could be opened."""
    found = set()
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        try:
            with opened_plain(str(path)) as descriptor:
                found.add(os.pread(descriptor, 100, 0).decode())
        except OSError:
            continue
    return found


def test_a_file_swapped_for_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    real, elsewhere, name = (tmp_path / one for one in ("real", "elsewhere", "name"))
    real.write_text("ours")
    elsewhere.write_text("secret")
    with swapping(name, real, elsewhere):
        assert opened_meanwhile(name) == {"ours"}


def test_a_directory_swapped_for_a_link_meanwhile_is_not_entered(tmp_path: Path) -> None:
    real, elsewhere, name = (tmp_path / one for one in ("real", "elsewhere", "name"))
    for folder, text in ((real, "ours"), (elsewhere, "secret")):
        folder.mkdir()
        (folder / "file").write_text(text)
    with swapping(name, real, elsewhere):
        assert opened_meanwhile(name / "file") <= {"ours"}


def test_a_link_anywhere_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "sub" / "file").write_text("ours")
    (tmp_path / "link").symlink_to("real")
    with opened_plain(str(tmp_path / "real" / "sub" / "file")) as descriptor:
        assert os.pread(descriptor, 9, 0) == b"ours"
    with pytest.raises(OSError, match="behind a link, link") as caught:
        opened_plain(str(tmp_path / "link" / "sub" / "file"))
    assert caught.value.errno == errno.ELOOP
