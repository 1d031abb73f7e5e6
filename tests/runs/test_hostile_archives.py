"""Archives by people who mean harm: nothing is written outside, and neither memory nor time runs out."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import StorageFailed, UnsafeExport
from servingrepo.runs.archives import Limits, unpacked
from servingrepo.runs.unpacking import Budget, Entry, unpack
from tests.runs.packing import TarEntry, file, link, packed, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("scratch")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Where attacks try to write."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "kept").write_text("kept")
    return place


def untouched(outside: Path) -> bool:
    return [(one.name, one.read_text()) for one in outside.iterdir()] == [("kept", "kept")]


# outside of the scratch directory -------------------------------------------------------------------


def beyond_path_max(target: str) -> tuple[TarEntry, ...]:
    """CVE-2025-4517: links whose real path is longer than realpath() can say, so that it says a wrong one."""
    component, steps = "d" * 247, "abcdefghijklmnop"
    entries: list[TarEntry] = []
    at = ""
    for step in steps:
        entries.append((f"{at}{component}", {"type": tarfile.DIRTYPE}, b""))
        entries.append(link(f"{at}{step}", component))
        at = f"{at}{component}/"
    long = "/".join(steps) + "/" + "l" * 254
    entries += [link(long, "../" * len(steps)), link("escape", long + target)]
    return tuple(entries)


# The scratch directory is scratch/servingrepo-scratch-…/run.
UP = "/../../../outside"
ESCAPES: dict[str, tuple[TarEntry, ...]] = {
    "CVE-2025-4517, a file": (*beyond_path_max(UP), file("escape/evil")),
    "CVE-2025-4517, over a file": (*beyond_path_max(UP), file("escape/kept", b"evil")),
    "CVE-2025-4517, a hard link": (
        *beyond_path_max(UP + "/kept"),
        link("hard", "escape", tarfile.LNKTYPE),
        file("hard", b"evil"),
    ),
    "CVE-2025-4330, a hard link to a link": (
        link("a/b/out", "../../x"),
        link("near", "a/b/out", tarfile.LNKTYPE),
    ),
    "a link out": (link("out", "../../../outside"), file("out/evil")),
    "a link out by way of a link": (
        file("a/b/c/deep"),
        link("near", "a/b/c"),
        link("out", "near/../../../../../../outside"),
        file("out/evil"),
    ),
    "a link out that comes after its files": (file("out/evil"), link("out", "../../../outside")),
    "a link that moves up by a link to the top": (
        file("a/b/deep"),
        link("a/b/top", "../.."),
        link("out", "a/b/top/../../../outside"),
    ),
    "a link in place of a file": (link("out", "a"), file("out")),
    "a link in place of a directory": (link("out", "a"), file("out/f"), file("a/f")),
    "a file in place of a directory": (file("a/f"), file("a")),
    "a directory in place of a file": (file("a"), file("a/f")),
    "a hard link out": (link("hard", "../../../outside/kept", tarfile.LNKTYPE),),
    "a hard link to an absolute path": (link("hard", "/etc/passwd", tarfile.LNKTYPE),),
    "a hard link to a directory": (file("a/f"), link("hard", "a", tarfile.LNKTYPE)),
    "a hard link to what comes later": (link("hard", "f", tarfile.LNKTYPE), file("f")),
    "a hard link to itself": (file("f"), link("f", "f", tarfile.LNKTYPE)),
    "a link to nothing": (link("out", ""),),
    "a name that is too long": (file("a/" * 40 + "b" * 256),),
    "a path that is too long": (file("/".join(["b" * 200] * 8)),),
    "a path that is too deep": (file("a/" * 70 + "f"),),
    "a link's target that is too long": (link("out", "a/" * 600),),
    "the directory itself as a file": (file("./", b"x"), link(".", "x")),
}


@pytest.mark.parametrize("what", ESCAPES)
def test_nothing_is_written_outside_by_tar(
    tmp_path: Path, scratch: Path, outside: Path, what: str
) -> None:
    archive = packed(tmp_path / "m.tar", file("saved_model.pb"), *ESCAPES[what], mode="w")
    with pytest.raises(UnsafeExport), unpacked(archive):
        pytest.fail("it was unpacked")
    assert untouched(outside)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [
        ("../evil",),
        ("a/../../evil",),
        ("/evil",),
        ("..\\evil",),
        ("a\\..\\..\\evil",),
        ("\\evil",),
        ("\\\\host\\share\\evil",),
        ("C:\\evil",),
        ("c:evil",),
        ("a", "a/f"),
        ("a/f", "a"),
        ("a\\f", "a"),
        ("a/" * 70 + "f",),
    ],
    ids=str,
)
def test_nothing_is_written_outside_by_zip(
    tmp_path: Path, scratch: Path, names: tuple[str, ...]
) -> None:
    archive = zipped(tmp_path / "m.zip", ("saved_model.pb", b"x"), *((one, b"x") for one in names))
    with pytest.raises(UnsafeExport), unpacked(archive):
        pytest.fail("it was unpacked")
    assert list(scratch.iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.zip", "scratch"]


@pytest.mark.parametrize("kind", [0o120000, 0o020000, 0o010000, 0o140000], ids=oct)
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        info = zipfile.ZipInfo("out")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeExport, match="a link or device"), unpacked(tmp_path / "m.zip"):
        pytest.fail("it was unpacked")


def test_a_directory_swapped_for_a_link_meanwhile_is_not_entered(
    tmp_path: Path, outside: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()

    def entries() -> Iterator[Entry]:
        yield Entry(name=b"a/b/f", kind="file")
        yield Entry(name=b"f", kind="file")
        (into / "a").rename(tmp_path / "aside")
        (into / "a").symlink_to(outside)
        yield Entry(name=b"a/evil", kind="file")

    budget = Budget(Limits(), archive="it", packed=1, free=1 << 40)
    assert unpack(entries(), into, budget) != []
    assert untouched(outside)


SWAP_IN_BETWEEN = """
import sys
from pathlib import Path
from servingrepo.runs.unpacking import Budget, Entry, Limits, unpack
into, outside = map(Path, sys.argv[1:])
def hook(event, arguments):  # called before the kernel is: the moment after the look at what is there
    if event == "open" and arguments[0] == b"f":
        (into / "f").symlink_to(outside / "kept")
sys.addaudithook(hook)
content = iter([b"evil", b""])
entry = Entry(name=b"f", kind="file", read=lambda size: next(content))
unpack([entry], into, Budget(Limits(), archive="it", packed=1, free=1 << 40))
"""


def test_a_link_swapped_in_for_a_file_meanwhile_is_not_written_through(
    tmp_path: Path, outside: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    script = [sys.executable, "-c", SWAP_IN_BETWEEN, str(into), str(outside)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert "FileExistsError" in done.stderr
    assert untouched(outside)


# memory and time ------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from pathlib import Path
from servingrepo.errors import ServingRepoError
from servingrepo.runs.archives import unpacked
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
try:
    with unpacked(Path(sys.argv[1])):
        print("unpacked")
except ServingRepoError as error:
    print(error.slug)
print((most() - before) // 1024)
"""


def measured(archive: Path, scratch: Path, *, seconds: float = 60) -> tuple[str, int]:
    """Unpack in a child; return its error's slug, and how many MiB it took."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, archive],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    slug, memory = done.stdout.split()
    return slug, int(memory)


def test_an_entry_of_negative_size_gives_the_budget_nothing_back(tmp_path: Path) -> None:
    first = tarfile.TarInfo("first")
    first.type, first.size = tarfile.DIRTYPE, -(1 << 40)
    second = tarfile.TarInfo("second")
    second.size = 2 << 20
    headers = (one.tobuf(tarfile.GNU_FORMAT) for one in (first, second))
    (tmp_path / "m.tar").write_bytes(b"".join(headers) + bytes(4 << 20))
    with pytest.raises(UnsafeExport), unpacked(tmp_path / "m.tar", limits=Limits(size=1 << 20)):
        pytest.fail("it was unpacked")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "LZMA"])
def test_a_zip_that_would_unpack_at_once_is_refused(
    tmp_path: Path, scratch: Path, method: int
) -> None:
    archive = tmp_path / "m.zip"
    with (
        zipfile.ZipFile(archive, "w", method) as packing,
        packing.open("saved_model.pb", "w") as content,
    ):
        for _ in range(64):
            content.write(bytes(1 << 20))
    slug, memory = measured(archive, scratch)
    assert (slug, memory < 40) == ("storage-failed", True)


def test_a_zip_with_a_very_large_directory_is_refused(tmp_path: Path, scratch: Path) -> None:
    archive = zipped(tmp_path / "m.zip", ("f", b""))
    data = archive.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = 1_000_000
    with archive.open("wb") as out:
        out.write(data[:start])
        for _ in range(100):
            out.write(data[start:end] * (count // 100))
        size = (end - start) * count
        out.write(data[end : end + 12] + size.to_bytes(4, "little") + data[end + 16 :])
    slug, memory = measured(archive, scratch)
    assert (slug, memory < 100) == ("storage-failed", True)


def test_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    packed(tmp_path / "m.tar", file("saved_model.pb"), mode="w")
    data = bytearray(lzma.compress((tmp_path / "m.tar").read_bytes()))
    # The header of the first block: its length, flags, then the filter and the size of its dictionary.
    length = (data[12] + 1) * 4
    assert data[14:16] == b"\x21\x01"
    data[16] = 40  # 4 GiB
    data[12 + length - 4 : 12 + length] = zlib.crc32(data[12 : 12 + length - 4]).to_bytes(
        4, "little"
    )
    (tmp_path / "m.tar.xz").write_bytes(data)
    with pytest.raises(StorageFailed, match="memory"), unpacked(tmp_path / "m.tar.xz"):
        pytest.fail("it was unpacked")


def test_headers_that_take_for_ever_to_match_are_refused(tmp_path: Path, scratch: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 1 << 20
    for content in (b"1" * (1 << 20), b"1 " * (1 << 19)):
        with gzip.open(tmp_path / "m.tar.gz", "wb") as archive:
            archive.write((info.tobuf() + content) * 20 + bytes(1024))
        slug, memory = measured(tmp_path / "m.tar.gz", scratch, seconds=20)
        assert slug in {"storage-failed", "unsafe-export"}
        assert memory < 100


def test_records_of_headers_are_counted(tmp_path: Path, scratch: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 500_000
    entry = info.tobuf() + b"5 a=\n" * 100_000
    entry += bytes(-len(entry) % 512) + tarfile.TarInfo("f").tobuf()
    (tmp_path / "m.tar").write_bytes(entry * 20)
    slug, memory = measured(tmp_path / "m.tar", scratch)
    assert (slug, memory < 100) == ("unsafe-export", True)


def test_directories_that_no_entry_names_are_counted(tmp_path: Path) -> None:
    entries = (file(f"{number}/" + "a/" * 60 + "f", b"") for number in range(20))
    archive = packed(tmp_path / "m.tar.gz", *entries)
    limits = Limits(files=1000)
    with pytest.raises(UnsafeExport, match="1,000 entries"), unpacked(archive, limits=limits):
        pytest.fail("it was unpacked")


def test_what_is_announced_does_not_fit_before_anything_is_written(tmp_path: Path) -> None:
    info = tarfile.TarInfo("f")
    info.size = 1 << 50
    (tmp_path / "m.tar").write_bytes(info.tobuf() + bytes(1 << 20))
    with pytest.raises(UnsafeExport), unpacked(tmp_path / "m.tar"):
        pytest.fail("it was unpacked")


@pytest.mark.parametrize("kind", ["path", "linkpath", "size", "GNU.sparse.name"])
def test_a_header_that_renames_all_entries_is_refused(tmp_path: Path, kind: str) -> None:
    archive = packed(
        tmp_path / "m.tar",
        file("f"),
        mode="w",
        format=tarfile.PAX_FORMAT,
        pax_headers={kind: "1"},
    )
    with pytest.raises(UnsafeExport), unpacked(archive):
        pytest.fail("it was unpacked")


# what only looks hostile ----------------------------------------------------------------------------


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "m.tar",
        link("latest", "exports/2"),
        link("newest", "latest"),
        file("exports/1/f", b"one"),
        file("exports/2/f", b"two"),
        link("exports/2/g", "../1/f"),
        link("exports/2/here", "."),
        link("exports/2/nowhere", "missing"),
        link("loop", "pool"),
        link("pool", "loop"),
        link("exports/2/hard", "exports/1/f", tarfile.LNKTYPE),
        mode="w",
    )
    with unpacked(archive) as place:
        assert (place / "latest/f").read_text() == (place / "newest/f").read_text() == "two"
        assert (place / "exports/2/g").read_text() == "one"
        assert (place / "exports/2/hard").samefile(place / "exports/1/f")
        assert (place / "loop").is_symlink()
        assert (place / "exports/2/nowhere").is_symlink()


def test_a_file_that_was_added_again_is_the_later_one(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "m.tar",
        file("f", b"the first one"),
        link("hard", "f", tarfile.LNKTYPE),
        file("f", b"later"),
        link("link", "a"),
        link("link", "f"),
        mode="w",
    )
    with unpacked(archive) as place:
        assert (place / "f").read_text() == (place / "link").read_text() == "later"
        assert (place / "hard").read_text() == "the first one"
