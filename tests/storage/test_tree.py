from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import SourceChanged, StorageFailed, UnsafeExport
from servingrepo.storage.tree import _opened, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with an export of two files and an empty directory."""
    run = tmp_path / "run"
    (run / "export" / "variables").mkdir(parents=True)
    (run / "export" / "assets").mkdir()
    (run / "export" / "saved_model.pb").write_bytes(b"graph")
    (run / "export" / "variables" / "data").write_bytes(b"12345678")
    return run


def problems(run: Path) -> tuple[str, ...]:
    with pytest.raises(UnsafeExport) as caught:
        read_tree(run / "export", boundary=run)
    assert str(run / "export") in caught.value.message
    return caught.value.problems


def test_read_tree_lists_files_and_directories_sorted(run: Path) -> None:
    tree = read_tree(run / "export", boundary=run)
    assert [(one.path, one.size) for one in tree.files] == [
        ("saved_model.pb", 5),
        ("variables/data", 8),
    ]
    assert tree.directories == ("assets", "variables")
    assert tree.size == 13


def test_a_link_inside_the_run_is_taken_as_what_it_points_to(run: Path) -> None:
    (run / "vocabulary").write_bytes(b"words")
    (run / "shared").mkdir()
    (run / "shared" / "a").write_bytes(b"a")
    (run / "export" / "assets" / "vocabulary").symlink_to("../../vocabulary")
    (run / "export" / "more").symlink_to(run / "shared")
    tree = read_tree(run / "export", boundary=run)
    found = {one.path: Path(one.source) for one in tree.files}
    assert found["assets/vocabulary"] == run / "vocabulary"
    assert found["more/a"] == run / "shared" / "a"
    assert tree.directories == ("assets", "more", "variables")


def test_a_run_and_an_export_reached_by_links_are_read(run: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run)
    (run / "current").symlink_to("export")
    tree = read_tree(tmp_path / "latest" / "current", boundary=tmp_path / "latest")
    assert len(tree.files) == 2


def test_a_link_out_of_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (run / "export" / "one").symlink_to("../../secret")
    (run / "export" / "two").symlink_to(tmp_path)
    assert problems(run) == (
        f"one: a link out of the run, to {tmp_path / 'secret'}",
        f"two: a link out of the run, to {tmp_path}",
    )


def test_a_link_to_a_neighbour_is_refused(run: Path) -> None:
    neighbour = run.with_name("run-2")
    neighbour.mkdir()
    (neighbour / "f").write_bytes(b"")
    (run / "export" / "f").symlink_to(neighbour / "f")
    assert "out of the run" in problems(run)[0]


def test_an_export_that_is_a_link_out_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (run / "export").rename(other)
    (run / "export").symlink_to(other)
    assert problems(run) == (f"{run / 'export'}: a link out of the run, to {other}",)


def test_a_chain_of_links_is_judged_by_its_end(run: Path, tmp_path: Path) -> None:
    (tmp_path / "detour").symlink_to(run / "export" / "saved_model.pb")
    (run / "export" / "copy").symlink_to(tmp_path / "detour")
    tree = read_tree(run / "export", boundary=run)
    assert "copy" in {one.path for one in tree.files}


def test_a_broken_link_is_refused(run: Path) -> None:
    (run / "export" / "gone").symlink_to("nowhere")
    assert problems(run) == (f"gone: a link to {run / 'export' / 'nowhere'}, which is not there",)


def test_a_link_to_itself_is_refused(run: Path) -> None:
    (run / "export" / "me").symlink_to("me")
    assert len(problems(run)) == 1


def test_a_link_to_a_directory_above_is_refused_and_does_not_loop(run: Path) -> None:
    (run / "export" / "variables" / "up").symlink_to("..")
    (run / "export" / "here").symlink_to(".")
    found = problems(run)
    assert [one.partition(":")[0] for one in found] == ["here", "variables/up"]
    assert all("a directory above it" in one for one in found)


def test_a_fifo_and_a_socket_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(run / "export" / "pipe")
    monkeypatch.chdir(run / "export")  # the paths of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
        assert problems(run) == ("door: a socket", "pipe: a FIFO")


def test_a_link_to_a_fifo_is_refused(run: Path) -> None:
    os.mkfifo(run / "pipe")
    (run / "export" / "data").symlink_to("../pipe")
    assert problems(run) == ("data: a FIFO",)


def test_a_device_is_refused(run: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make device files")
    os.mknod(run / "export" / "null", 0o020_666, os.makedev(1, 3))
    assert problems(run) == ("null: a character device",)


def test_a_name_that_is_not_utf8_is_refused_and_shown(run: Path) -> None:
    (run / "export" / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    found = problems(run)
    assert len(found) == 1
    assert found[0].endswith("the name is not UTF-8")
    assert found[0].isprintable()


def test_all_problems_are_listed_at_once(run: Path) -> None:
    os.mkfifo(run / "export" / "pipe")
    (run / "export" / "gone").symlink_to("nowhere")
    (run / "export" / "out").symlink_to("/etc/hostname")
    (run / "export" / "variables" / "up").symlink_to("..")
    (run / "export" / os.fsdecode(b"\xff")).write_bytes(b"")
    assert len(problems(run)) == 5


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="missing"):
        read_tree(tmp_path / "missing", boundary=tmp_path)


def test_a_directory_that_may_not_be_read_is_no_permission(
    open_folder: Path, as_nobody: Callable[[str], CompletedProcess[str]]
) -> None:
    (open_folder / "secret").mkdir(mode=0o700)
    done = as_nobody(
        "from pathlib import Path\n"
        "from servingrepo.errors import NoPermission\n"
        "from servingrepo.storage.tree import read_tree\n\n"
        f"root = Path({str(open_folder)!r})\n"
        "try:\n"
        "    read_tree(root, boundary=root)\n"
        "except NoPermission as error:\n"
        "    print(error.message)\n"
    )
    assert "secret" in done.stdout, done.stderr


def test_a_link_put_in_place_of_a_file_is_not_followed(
    tmp_path: Path,
) -> None:
    link = tmp_path / "file"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(SourceChanged), _opened(link, os.O_RDONLY):
        pass
