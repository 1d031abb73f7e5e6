from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import NoSpace, StorageFailed, UnsafeExport
from servingrepo.rundir.archives import Limits, archive_kind, unpacked
from servingrepo.testing.exports import write_export
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for temporary files, which has to be empty in the end."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def packed(path: Path, *entries: tuple[str, dict[str, Any], bytes], mode: str = "w:gz") -> Path:
    """A tar with entries that no well-meaning tool would write."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, fields, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(
    name: str, target: str, kind: bytes = tarfile.SYMTYPE
) -> tuple[str, dict[str, Any], bytes]:
    return name, {"type": kind, "linkname": target}, b""


def by_tar(export: Path, path: Path) -> Path:
    subprocess.run(["tar", "-caf", path, "-C", export.parent, export.name], check=True)
    return path


def by_zipfile(export: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(export.rglob("*")):
            archive.write(file, file.relative_to(export.parent))
    return path


@pytest.mark.parametrize(
    ("name", "pack", "kind"),
    [
        ("model.tar", by_tar, "tar"),
        ("model.tar.gz", by_tar, "gzip"),
        ("model.tar.bz2", by_tar, "bzip2"),
        ("model.tar.xz", by_tar, "xz"),
        ("model.zip", by_zipfile, "zip"),
    ],
)
def test_promote_takes_an_archive_and_leaves_nothing_behind(
    tmp_path: Path, scratch: Path, name: str, pack: Callable[[Path, Path], Path], kind: str
) -> None:
    export = write_export(tmp_path / "export/Servo/7", variables=True, assets={"words": b"a\n"})
    archive = pack(export.parent.parent, tmp_path / name)
    assert archive_kind(archive) == kind
    repo = new_repository(tmp_path / "repo")
    done = repo.promote(archive, model="m", smoke=False)
    assert (done.run, done.export) == (str(archive), f"{archive}:export/Servo/7")
    published = {
        path.relative_to(done.path): path.read_bytes()
        for path in Path(done.path).rglob("*")
        if path.is_file()
    }
    assert published == {
        path.relative_to(export): path.read_bytes() for path in export.rglob("*") if path.is_file()
    }
    record = repo.show_version("m")
    assert (record.source.run, record.source.export) == (str(archive), done.export)
    assert list(scratch.iterdir()) == []
    assert repo.promote(export, model="m", smoke=False).same_as == 1


def test_scan_says_what_is_in_an_archive(tmp_path: Path) -> None:
    archive = by_tar(write_export(tmp_path / "saved_model"), tmp_path / "model.tar.gz")
    done = command("scan", archive, env={"TMPDIR": str(tmp_path / "scratch")})
    assert f"SavedModel    {archive}/saved_model" in done.out, done.err
    assert not list((tmp_path / "scratch").iterdir())


HOSTILE: dict[str, tuple[tuple[str, dict[str, Any], bytes], ...]] = {
    "../evil": (("../evil", {}, b"x"),),
    "a/../../evil": (("a/../../evil", {}, b"x"),),
    "/tmp/servingrepo-evil": (("/tmp/servingrepo-evil", {}, b"x"),),
    "a link out": (link("out", "../../.."),),
    "an absolute link": (link("out", "/etc"), ("out/passwd2", {}, b"x")),
    "a hard link out": (link("out", "../../etc/passwd", tarfile.LNKTYPE),),
    "a fifo": (("pipe", {"type": tarfile.FIFOTYPE}, b""),),
    "a device": (("dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, b""),),
    "a link through a link": (link("a", "."), link("a/b", ".."), ("a/b/c", {}, b"x")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_unpack_when_entries_leave_the_archive_is_refused(
    tmp_path: Path, scratch: Path, what: str
) -> None:
    good: tuple[str, dict[str, Any], bytes] = ("saved_model.pb", {}, b"x")
    archive = packed(tmp_path / "m.tar.gz", good, *HOSTILE[what])
    with pytest.raises(UnsafeExport), unpacked(archive):
        pytest.fail("it was unpacked")
    assert list(scratch.iterdir()) == []
    assert not Path("/tmp/servingrepo-evil").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tar.gz", "scratch"]


def test_unpack_says_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    archive = packed(tmp_path / "m.tar.gz", *HOSTILE["../evil"], *HOSTILE["a fifo"])
    with pytest.raises(UnsafeExport) as caught, unpacked(archive):
        pass
    assert len(caught.value.problems) == 2
    assert str(archive) in caught.value.message


def test_unpack_when_a_file_is_sparse_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(10 << 20)
    archive = tmp_path / "m.tar"
    subprocess.run(["tar", "--sparse", "-cf", archive, "-C", tmp_path, "big"], check=True)
    assert archive.stat().st_size < 100_000
    with pytest.raises(UnsafeExport, match="big: a sparse file"), unpacked(archive):
        pass


LITTLE = Limits(files=50, size=50 << 20, ratio=10, suspicious=1 << 20)


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.zip"])
def test_unpack_when_it_is_a_bomb_is_refused(tmp_path: Path, scratch: Path, name: str) -> None:
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packing:
            packing.writestr("saved_model.pb", b"\0" * (20 << 20))
    else:
        packed(archive, ("saved_model.pb", {}, b"\0" * (20 << 20)))
    with pytest.raises(UnsafeExport, match="a bomb"), unpacked(archive, limits=LITTLE):
        pass
    assert list(scratch.iterdir()) == []
    with unpacked(archive) as place:
        assert (place / "saved_model.pb").stat().st_size == 20 << 20


def test_unpack_when_there_are_too_many_entries_or_bytes_is_refused(tmp_path: Path) -> None:
    many = packed(tmp_path / "many.tar.gz", *((f"f{n}", {}, b"") for n in range(60)))
    with pytest.raises(UnsafeExport, match="more than 50 entries"), unpacked(many, limits=LITTLE):
        pass
    large = packed(tmp_path / "large.tar", ("f", {}, os.urandom(2 << 20)), mode="w")
    with (
        pytest.raises(UnsafeExport, match="more than 1,000 bytes"),
        unpacked(large, limits=Limits(size=1000)),
    ):
        pass
    with pytest.raises(NoSpace), unpacked(large, limits=Limits(kept_free=1 << 60)):
        pass


def test_unpack_when_a_header_is_a_bomb_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    archive = tmp_path / "m.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf() + b"\0" * (8 << 20))
    with pytest.raises(UnsafeExport, match="a header of 1,073,741,824 bytes"), unpacked(archive):
        pass


@pytest.mark.parametrize("cut", [10, 300, -20])
@pytest.mark.parametrize("name", ["m.tar.gz", "m.tar.xz", "m.tar", "m.zip"])
def test_unpack_when_it_is_cut_off_is_refused(
    tmp_path: Path, scratch: Path, name: str, cut: int
) -> None:
    export = write_export(tmp_path / "saved_model", variables=True)
    whole = (by_zipfile if name.endswith("zip") else by_tar)(export, tmp_path / name)
    data = whole.read_bytes()
    whole.write_bytes(data[:cut] if name != "m.tar" else data[: 1024 + cut % 512])
    with pytest.raises(StorageFailed), unpacked(whole):
        pytest.fail("it was unpacked")
    assert list(scratch.iterdir()) == []


def test_unpack_removes_what_a_killed_process_left_and_nothing_that_is_in_use(
    tmp_path: Path, scratch: Path
) -> None:
    archive = by_tar(write_export(tmp_path / "saved_model"), tmp_path / "m.tar")
    script = (
        "import sys, time, pathlib\n"
        "from servingrepo.rundir.archives import unpacked\n"
        "with unpacked(pathlib.Path(sys.argv[1])) as place:\n"
        "    print(place, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, archive],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as process:
        assert process.stdout is not None
        place = Path(process.stdout.readline().decode().strip())
        with unpacked(archive):
            assert (place / "saved_model").is_dir()
        process.send_signal(signal.SIGKILL)
    for _ in range(50):
        with unpacked(archive):
            pass
        if not list(scratch.iterdir()):
            break
        time.sleep(0.1)
    assert list(scratch.iterdir()) == []
