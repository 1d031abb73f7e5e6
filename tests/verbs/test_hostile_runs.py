"""Run directories by people who mean harm, or by strange disks: what is published is the export and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import BadName, ServingRepoError, UnsafeExport
from servingrepo.storage.copying import copy_tree, twins_in
from servingrepo.storage.disk import Disk
from servingrepo.storage.tree import read_tree
from tests.support import new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository

SECRET = b"only root may read this"


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    return new_repository(tmp_path / "repo")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_with(tmp_path / "run", offset=1.0, variables=True, assets={"words": b"a\nb\n"})


# swapped while we copy ------------------------------------------------------------------------------


@contextmanager
def swapping(path: Path, link_to: Path) -> Iterator[list[int]]:
    """Swap a path and a link, over and over; yields a list that grows with each time."""
    aside = path.with_name("aside")
    link = path.with_name("link")
    stop = threading.Event()
    swaps: list[int] = []

    def swap() -> None:
        while not stop.is_set():
            path.rename(aside)
            link.symlink_to(link_to)
            link.rename(path)
            swaps.append(1)
            path.unlink()
            aside.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield swaps
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("what", ["assets", "assets/words"])
def test_what_lies_outside_is_never_copied_however_links_are_swapped_in(
    what: str, run: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("words", "more"):
        (outside / name).write_bytes(SECRET)
    export = run / "saved_model"
    with swapping(export / what, outside if what == "assets" else outside / "words") as swaps:
        for number in range(40):
            target = tmp_path / f"copy{number}"
            with suppress(ServingRepoError):
                copy_tree(read_tree(export, boundary=run), target, disk=Disk())
            copied = [path.read_bytes() for path in target.rglob("*") if path.is_file()]
            assert SECRET not in copied
    assert swaps


SWAP_IN_BETWEEN = """
import sys
from pathlib import Path
from servingrepo.errors import SourceChanged
from servingrepo.storage.tree import read_tree
run, moment, swapped, outside = map(Path, sys.argv[1:])
done = []
def hook(event, arguments):  # called before the kernel is: the moment between listing and opening
    if event in {"open", "os.scandir"} and str(arguments[0]) == str(moment) and not done:
        done.append(True)
        swapped.rename(swapped.with_name("aside"))
        swapped.symlink_to(outside)
sys.addaudithook(hook)
try:
    print([file.path for file in read_tree(run / "saved_model", boundary=run).files])
except SourceChanged as error:
    print("refused" if done else "nothing was swapped")
"""


@pytest.mark.parametrize(
    ("moment", "swapped"),
    [("assets", "assets"), ("assets/deep", "assets"), ("assets/deep", "assets/deep")],
)
def test_a_directory_that_becomes_a_link_between_listing_and_opening_is_refused(
    moment: str, swapped: str, run: Path, tmp_path: Path
) -> None:
    for place in (run / "saved_model" / "assets" / "deep", tmp_path / "outside" / "deep"):
        place.mkdir(parents=True)
        (place / "secret").write_bytes(SECRET)
    export, outside = run / "saved_model", tmp_path / "outside"
    script = [sys.executable, "-c", SWAP_IN_BETWEEN]
    done = subprocess.run(
        [*script, run, export / moment, export / swapped, outside],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "refused\n"


# what is no plain file ------------------------------------------------------------------------------


def test_devices_fifos_and_sockets_are_refused_all_at_once_and_nothing_is_published(
    repo: OpenRepository, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = run / "saved_model"
    os.mkfifo(export / "pipe")
    monkeypatch.chdir(export)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        wanted = {"pipe: a FIFO", "socket: a socket"}
        if os.geteuid() == 0:
            os.mknod(export / "null", 0o666 | 0o020000, os.makedev(1, 3))
            wanted.add("null: a character device")
        with pytest.raises(UnsafeExport) as caught:
            repo.promote(run, model="m", smoke=False)
    assert set(caught.value.problems) == wanted
    assert repo.models() == ()


def test_special_bits_and_hard_links_are_not_published(
    repo: OpenRepository, run: Path, tmp_path: Path
) -> None:
    export = run / "saved_model"
    (export / "assets" / "words").chmod(0o6777)
    (export / "assets").chmod(0o3777)
    os.link(export / "assets" / "words", tmp_path / "a second name")
    done = repo.promote(run, model="m", smoke=False)
    version = repo.value.layout.version("m", done.version)
    facts = (version / "assets" / "words").stat()
    assert (facts.st_mode & 0o7777, facts.st_nlink) == (0o644, 1)
    assert (version / "assets").stat().st_mode & 0o7777 == 0o755
    (tmp_path / "a second name").write_text("changed later")
    assert all(one.ok for one in repo.verify("m"))


# names ----------------------------------------------------------------------------------------------


def test_names_of_255_bytes_are_published_verified_and_served(
    repo: OpenRepository, tmp_path: Path
) -> None:
    names = ["x" * 255, "\N{SNOWMAN}" * 85]
    run = run_with(tmp_path / "run", offset=1.0, assets=dict.fromkeys(names, b"a\n"))
    model = "m" * 128
    assert repo.promote(run, model=model, smoke=False).served
    assert all(one.ok for one in repo.verify(model))
    assert repo.status().ok
    with pytest.raises(BadName, match="129 bytes"):
        repo.promote(run, model="m" * 129, smoke=False)


def test_twins_are_found_by_case_and_by_how_accents_are_composed() -> None:
    names = ["a/Words", "a/words", "caf\u00e9", "cafe\u0301", "stra\u00dfe", "STRASSE", "alone"]
    assert twins_in(names) == (
        ("a/Words", "a/words"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE", "stra\u00dfe"),
    )


def test_twins_are_published_where_the_disk_tells_them_apart(
    repo: OpenRepository, tmp_path: Path
) -> None:
    assets = {"Words": b"a\n", "words": b"b\n", "caf\u00e9": b"c\n", "cafe\u0301": b"d\n"}
    repo.promote(run_with(tmp_path / "run", offset=1.0, assets=assets), model="m", smoke=False)
    folder = repo.value.layout.version("m", 1) / "assets"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == assets
    assert all(one.ok for one in repo.verify("m"))


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_twins_are_refused_by_name_where_the_disk_does_not(
    kind: str, run: Path, tmp_path: Path
) -> None:
    """Such a disk says EEXIST for the second name; here the second name is the first one, which does too."""
    (run / "saved_model" / "Assets").mkdir()
    (run / "saved_model" / "assets" / "Words").write_bytes(b"c\n")
    tree = read_tree(run / "saved_model", boundary=run)
    if kind == "files":
        tree = msgspec.structs.replace(tree, files=(*tree.files, tree.files[0]))
    else:
        tree = msgspec.structs.replace(tree, directories=(*tree.directories, tree.directories[0]))
    with pytest.raises(UnsafeExport, match="takes for one") as caught:
        copy_tree(tree, tmp_path / "copy", disk=Disk())
    assert any("ssets" in problem for problem in caught.value.problems)


def test_a_new_model_that_differs_from_another_only_in_case_is_refused(
    repo: OpenRepository, run: Path
) -> None:
    repo.promote(run, model="ranker", smoke=False)
    with pytest.raises(BadName, match="ranker only in case"):
        repo.promote(run, model="Ranker", smoke=False)
    assert repo.models() == ("ranker",)
    assert not repo.value.layout.model("Ranker").exists()
