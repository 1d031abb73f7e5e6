from __future__ import annotations

import bz2
import gzip
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoPermission, NoSpace, RequestRefused, StorageFailed, UnsafeExport
from servingrepo.runs.archives import Limits, archive_kind, unpacked
from servingrepo.runs.run import run_directory
from servingrepo.testing.exports import write_export
from tests.runs.packing import (
    LFS_POINTER,
    TarEntry,
    by_tar,
    by_zipfile,
    file,
    link,
    packed,
    zipped,
)
from tests.support import command, new_repository, without_root

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("scratch")


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
    assert held(Path(done.path)) == held(export)
    record = repo.show_version("m")
    assert (record.source.run, record.source.export) == (str(archive), done.export)
    assert list(scratch.iterdir()) == []
    assert repo.promote(export, model="m", smoke=False).same_as == 1


def held(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_that_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    run = tmp_path / "run"
    (run / "empty").mkdir(parents=True)
    long = "n" * 90 if form == "v7" else "deep/" * 25 + "n" * 90
    for name, size in ((long, 1), ("\N{SNOWMAN}", 511), ("b", 512), ("c", 513), ("large", 3 << 20)):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(os.urandom(size))
    os.link(run / "b", run / "hard")
    target = long if form in {"gnu", "posix"} else "b"
    (run / "link").symlink_to(target)
    archive = by_tar(run, tmp_path / "m.tar.gz", f"--format={form}")
    with unpacked(archive) as place:
        assert held(place / "run") == held(run)
        assert (place / "run/empty").is_dir()
        assert (place / "run/link").readlink() == Path(target)
        assert (place / "run/hard").samefile(place / "run/b")


def test_an_archive_may_call_its_root_a_slash(tmp_path: Path) -> None:
    """SageMaker's repack_model packs the model's directory under the name `/`."""
    export = write_export(tmp_path / "export")
    packed = tmp_path / "run.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(export, arcname=os.path.sep)
    with run_directory(packed) as place:
        assert held(place) == held(export)


def test_sizes_in_binary_are_read(tmp_path: Path) -> None:
    """GNU tar writes sizes so that are too large for octal digits."""
    info = tarfile.TarInfo("f")
    info.size = 3
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + (3).to_bytes(11)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "m.tar").write_bytes(bytes(header) + b"abc" + bytes(509 + 1024))
    with unpacked(tmp_path / "m.tar") as place:
        assert held(place) == {"f": b"abc"}


@pytest.mark.parametrize(
    ("suffix", "compress", "padding"),
    [("gz", gzip.compress, 0), ("bz2", bz2.compress, 0), ("xz", lzma.compress, 8)],
)
def test_streams_behind_each_other_are_one_archive(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], padding: int
) -> None:
    packed(tmp_path / "m.tar", file("f", b"abc" * 1000), mode="w")
    data = (tmp_path / "m.tar").read_bytes()
    streams = (compress(data[at : at + 700]) + bytes(padding) for at in range(0, len(data), 700))
    archive = tmp_path / f"m.tar.{suffix}"
    archive.write_bytes(b"".join(streams))
    with unpacked(archive) as place:
        assert held(place) == {"f": b"abc" * 1000}


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    packed(tmp_path / "m.tar", file("a"), file("b"), file("c"), mode="w")
    data = bytearray((tmp_path / "m.tar").read_bytes())
    data[1024 + 3] ^= 1
    (tmp_path / "m.tar").write_bytes(data)
    with pytest.raises(StorageFailed, match="damaged"), unpacked(tmp_path / "m.tar"):
        pytest.fail("it was unpacked")


def test_an_archive_without_its_end_is_damaged(tmp_path: Path) -> None:
    """Cut off between two files, it looks whole but for the missing mark of the end."""
    packed(tmp_path / "m.tar", file("a"), file("b"), mode="w")
    (tmp_path / "m.tar").write_bytes((tmp_path / "m.tar").read_bytes()[:1024])
    with pytest.raises(StorageFailed, match="damaged"), unpacked(tmp_path / "m.tar"):
        pytest.fail("it was unpacked")


def test_an_archive_that_may_not_be_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # where tests have files, others may not go
    with without_root() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        archive = packed(folder / "m.tar", file("a"), mode="w")
        archive.chmod(0)
        with pytest.raises(NoPermission), unpacked(archive):
            pytest.fail("it was unpacked")


def test_a_zip_from_windows_is_read_as_it_was_meant(tmp_path: Path) -> None:
    export = write_export(tmp_path / "saved_model", variables=True, assets={"words": b"a\n"})
    names = {
        f"run\\saved_model\\{name.replace('/', chr(92))}": one for name, one in held(export).items()
    }
    archive = zipped(tmp_path / "m.zip", ("run\\empty\\", b""), *names.items())
    repo = new_repository(tmp_path / "repo")
    done = repo.promote(archive, model="m", smoke=False)
    assert done.export == f"{archive}:run/saved_model"
    assert held(Path(done.path)) == held(export)


APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_macos_adds_to_an_archive_is_passed_over(tmp_path: Path, kind: str) -> None:
    export = write_export(tmp_path / "saved_model", variables=True, assets={"words": b"a\n"})
    entries = [("saved_model/.DS_Store", b"Bud1"), ("saved_model/assets/.DS_Store", b"Bud1")]
    for name, content in held(tmp_path).items():
        folder, _, last = name.rpartition("/")
        beside = f"{folder}/._{last}" if kind == "tar" else f"__MACOSX/{folder}/._{last}"
        entries += [(name, content), (beside, APPLE_DOUBLE)]
    entries += [("._saved_model", APPLE_DOUBLE), ("saved_model/._mine", b"mine")]
    if kind == "tar":
        archive = packed(tmp_path / "m.tar", *(file(*one) for one in entries), mode="w")
    else:
        archive = zipped(tmp_path / "m.zip", *entries)
    with unpacked(archive) as place:
        assert held(place) == {
            **{f"saved_model/{name}": content for name, content in held(export).items()},
            "saved_model/._mine": b"mine",
        }


def test_a_git_lfs_pointer_in_place_of_an_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "m.tar.gz"
    archive.write_bytes(LFS_POINTER)
    done = command("scan", archive)
    assert done.code == 22
    assert "Git LFS pointer" in done.err
    assert "git lfs pull" in done.err


def test_scan_says_what_is_in_an_archive(tmp_path: Path) -> None:
    archive = by_tar(write_export(tmp_path / "saved_model"), tmp_path / "model.tar.gz")
    done = command("scan", archive, env={"TMPDIR": str(tmp_path / "scratch")})
    assert f"SavedModel    {archive}/saved_model" in done.out, done.err
    assert not list((tmp_path / "scratch").iterdir())


def test_an_error_in_an_archive_names_the_archive(tmp_path: Path) -> None:
    archive = by_tar(write_export(tmp_path / "saved_model"), tmp_path / "model.tar.gz")
    with pytest.raises(RequestRefused) as caught, run_directory(archive) as place:
        raise RequestRefused(f"{place}/a is bad", code="INTERNAL", text="no", hint=f"see {place}")
    error = caught.value
    assert (str(error), error.message) == (f"{archive}/a is bad", f"{archive}/a is bad")
    assert (error.hint, error.code, error.exit_code) == (f"see {archive}", "INTERNAL", 66)


HOSTILE: dict[str, tuple[TarEntry, ...]] = {
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
    good: TarEntry = ("saved_model.pb", {}, b"x")
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


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_unpack_when_a_file_is_sparse_is_refused(tmp_path: Path, form: str) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(10 << 20)
    archive = by_tar(tmp_path / "big", tmp_path / "m.tar", "--sparse", f"--format={form}")
    assert archive.stat().st_size < 100_000
    with pytest.raises(UnsafeExport, match="a sparse file"), unpacked(archive):
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
    with (
        pytest.raises(UnsafeExport, match="a header of more than 1,048,576 bytes"),
        unpacked(archive),
    ):
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


def test_unpacking_removes_what_killed_processes_left(tmp_path: Path, scratch: Path) -> None:
    archive = by_tar(write_export(tmp_path / "saved_model"), tmp_path / "m.tar")
    script = (
        "import sys, time, pathlib\n"
        "from servingrepo.runs.archives import unpacked\n"
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
