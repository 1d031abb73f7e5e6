"""What the tests of storage share: another user, a small disk, and steps at which something happens."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65_534


@pytest.fixture
def as_nobody() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run Python code in a process of a user without rights: root may read and write everything.

    Imports stand at the beginning of the code, followed by an empty line.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; as another user the modes count anyway")

    def run(code: str) -> subprocess.CompletedProcess[str]:
        # The interpreter may lie where only root can read: imports come before the change of user.
        become = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        imports, _, rest = code.partition("\n\n")
        return subprocess.run(
            [sys.executable, "-c", f"{imports}\n{become}{rest}"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach: pytest's own are for one user only."""
    with tempfile.TemporaryDirectory(prefix="servingrepo-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def cloning_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted XFS, whose files can share blocks; it is a sparse file of 400 MB."""
    yield from _image(
        tmp_path / "cloning", ["mkfs.xfs", "-q", "-m", "reflink=1"], package="xfsprogs"
    )


@pytest.fixture
def ext4_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted ext4 on a sparse file of 400 MB: large files are written past its page cache."""
    yield from _image(tmp_path / "ext4", ["mkfs.ext4", "-q", "-F", "-m", "0"], package="e2fsprogs")


def _image(place: Path, make: list[str], *, package: str) -> Iterator[Path]:
    image = place.with_suffix(".image")
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(400 << 20)
    for command in ([*make, str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"there is no {command[0]} here: apt-get install {package}")
        if done.returncode != 0:
            pytest.skip(f"{command[0]} does not work here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Set the umask for one test."""
    before = os.umask(0o022)
    os.umask(before)
    try:
        yield os.umask
    finally:
        os.umask(before)
