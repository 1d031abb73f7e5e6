"""Large files hashed by a child process: its answers, and what it leaves to us."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from blake3 import blake3

from servingrepo.storage.hashing import hash_file, hash_tree
from servingrepo.storage.manifest import FileEntry
from servingrepo.storage.mapping import (
    WORTH_A_CHILD,
    WORTH_A_MAP,
    hashed_by_child,
    worth_mapping,
)

MIB = 1 << 20


def answers(*files: Path) -> list[tuple[int, str] | None]:
    with hashed_by_child([str(one) for one in files]) as found:
        return list(found)


def children() -> list[int]:
    """The child processes of this one, whichever thread started them."""
    found = [one.read_text() for one in Path("/proc/self/task").glob("*/children")]
    return [int(child) for text in found for child in text.split()]


def mapping_child(file: Path) -> int:
    """Wait until a child of ours has mapped a file, and return its process id."""
    for _ in range(10_000):
        for child in children():
            try:
                if str(file) in Path(f"/proc/{child}/maps").read_text():
                    return child
            except OSError:
                continue
        time.sleep(0.002)
    raise AssertionError(f"nobody maps {file}")


@pytest.fixture
def vast(tmp_path: Path) -> Path:
    """A tree with one file that takes a child a while, and no space."""
    tree = tmp_path / "vast"
    tree.mkdir()
    with (tree / "data").open("wb") as stream:
        stream.truncate(WORTH_A_CHILD * 2)
    return tree


@pytest.mark.parametrize("size", [0, 1, 4096, 16 * MIB, 16 * MIB + 1, 33 * MIB])
def test_a_mapped_file_has_the_same_digest(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert answers(tmp_path / "f") == [(size, blake3(data).hexdigest())]


def test_odd_files_are_left_to_the_caller(tmp_path: Path) -> None:
    """The child follows no link, waits for no FIFO, and goes on after each."""
    (tmp_path / "f").write_bytes(b"whole")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "pipe")
    strange = tmp_path / os.fsdecode(b"\xff\n ")
    strange.write_bytes(b"strange")
    names = ["link", "pipe", "gone", ".", strange.name, "f"]
    *odd, fifth, last = answers(*(tmp_path / name for name in names))
    assert odd == [None] * 4
    assert fifth == (7, blake3(b"strange").hexdigest())
    assert last == (5, blake3(b"whole").hexdigest())


def test_a_tree_hashed_by_a_child_has_the_same_manifest(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as stream:
            stream.write(os.urandom(MIB))
            stream.truncate(WORTH_A_CHILD // 2)
    done: list[int] = []
    found = hash_tree(tmp_path, progress=done.append)
    assert found.files == tuple(hash_file(tmp_path / one, one) for one in ("a", "b", "small"))
    assert sum(done) == found.size


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGKILL])
def test_a_file_is_read_when_the_child_dies(number: signal.Signals, vast: Path) -> None:
    """SIGBUS is what the kernel sends when a mapped file was truncated."""
    whole = hash_file(vast / "data", "data")

    def kill() -> None:
        os.kill(mapping_child(vast / "data"), number)

    killer = threading.Thread(target=kill)
    killer.start()
    found = hash_tree(vast)
    killer.join()
    assert found.files == (whole,)


def test_a_file_truncated_while_mapped_is_read(vast: Path) -> None:
    def truncate() -> None:
        mapping_child(vast / "data")
        os.truncate(vast / "data", 5)

    truncating = threading.Thread(target=truncate)
    truncating.start()
    found = hash_tree(vast)
    truncating.join()
    assert found.files == (FileEntry("data", 5, blake3(bytes(5)).hexdigest()),)


def test_a_child_ends_with_its_caller(vast: Path) -> None:
    """Whoever stops to wait for the answers, at Ctrl-C for example, leaves no process behind."""
    with hashed_by_child([str(vast / "data")]):
        child = mapping_child(vast / "data")
    assert child not in children()


def test_few_bytes_are_worth_no_child() -> None:
    many = {f"{number}": WORTH_A_MAP - 1 for number in range(1000)}
    assert worth_mapping(many) == ()
    assert worth_mapping({"a": WORTH_A_CHILD - 1, **many}) == ()
    assert worth_mapping({"b": WORTH_A_MAP, "a": WORTH_A_CHILD, **many}) == ("a", "b")
