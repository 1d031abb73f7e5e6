"""Runs in archives, as SageMaker (`model.tar.gz`) and TensorFlow Hub hand them out: unpacked safely, for a while.

An archive may come from anywhere. Nothing of it is written outside of the scratch directory, nothing but files,
directories and links that stay inside is made, and what would not fit is found out before it fills the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import NoSpace, ServingRepoError, StorageFailed, UnsafeExport
from servingrepo.rundir.look import read_start
from servingrepo.rundir.scratch import scratch
from servingrepo.rundir.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SUFFIXES", "Limits", "archive_kind", "run_directory", "unpacked"]

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")

_PREFIX = "servingrepo-scratch-"
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 20
_TAR_MAGIC = (257, b"ustar")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
_ZSTD = b"\x28\xb5\x2f\xfd"
_MOST_PROBLEMS = 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may unpack to."""

    files: int = 100_000
    size: int = 256 << 30
    """Bytes in all."""
    ratio: int = 200
    """How many times its own size, once it is beyond `suspicious` bytes: weights do not shrink like that."""
    suspicious: int = 1 << 30
    kept_free: int = 64 << 20
    """Bytes of the scratch directory's disk that stay free."""


def archive_kind(path: Path) -> str | None:
    """Return what kind of archive a file is by its first bytes: tar, gzip, bzip2, xz, zip, zstd; None if none."""
    with suppress(OSError):
        path = path.resolve(strict=True)
    start = read_start(str(path), 512)
    place, magic = _TAR_MAGIC
    if start[place : place + len(magic)] == magic:
        return "tar"
    if start.startswith(_ZSTD):
        return "zstd"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


@contextmanager
def run_directory(run: Path) -> Iterator[Path]:
    """Give a run's directory: the run itself, or what an archive unpacks to, while the block lasts.

    Errors of the block name the archive, not the directory that is gone by then.

    Raises:
        UnsafeExport, NoSpace, StorageFailed: The archive cannot be unpacked.
    """
    if not run.name.endswith(SUFFIXES) or not run.is_file():
        yield run
        return
    with unpacked(run) as place:
        try:
            yield place
        except ServingRepoError as error:
            error.message = error.message.replace(str(place), str(run))
            error.hint = (error.hint or "").replace(str(place), str(run)) or None
            error.problems = tuple(one.replace(str(place), str(run)) for one in error.problems)
            error.args = (error.message,)
            raise


@contextmanager
def unpacked(archive: Path, *, limits: Limits | None = None) -> Iterator[Path]:
    """Unpack an archive into a directory of its own, which is gone after the block.

    Links stay links if they stay inside; owners, modes and times are not taken over. A directory that a killed
    process left is removed by the next one that unpacks.

    Raises:
        UnsafeExport: It has names, links or devices that must not be unpacked, or is far larger than it looks.
        NoSpace: It does not fit into the directory for temporary files.
        StorageFailed: It is damaged, or the disk refuses.
    """
    limits = limits or Limits()
    with ExitStack() as stack:
        try:
            place = stack.enter_context(scratch(Path(tempfile.gettempdir()), _PREFIX))
        except OSError as error:
            raise StorageFailed(f"no scratch directory can be made: {error}") from error
        _unpack(archive, place / "run", limits)
        yield place / "run"


def _unpack(archive: Path, into: Path, limits: Limits) -> None:
    name = shown(str(archive))
    kind = archive_kind(archive)
    into.mkdir()
    try:
        budget = _Budget(limits, packed=archive.stat().st_size, free=shutil.disk_usage(into).free)
        if kind == "zip":
            problems = _unpack_zip(archive, into, budget)
        elif kind in _OPENERS:
            with _OPENERS[kind](archive) as stream:
                problems = _unpack_tar(stream, into, budget)
        else:
            raise StorageFailed(
                f"{name} cannot be unpacked: {kind or 'it is no archive that is known'}",
                hint="pack it as .tar.gz or .zip, or unpack it and give the directory",
            )
    except ServingRepoError as error:
        error.message = error.message.replace("the archive", name, 1)
        error.args = (error.message,)
        raise
    except OSError as error:
        if error.errno is not None:
            raise StorageFailed(f"{name} cannot be unpacked: {error.strerror}") from error
        raise _damaged(name, error) from error  # gzip's BadGzipFile
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise _damaged(name, error) from error
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise _damaged(name, error) from error
    if problems:
        raise UnsafeExport(
            f"{name} has entries that must not be unpacked: {problems[0]}",
            problems=problems[:_MOST_PROBLEMS],
            hint="find out who made it; pack the SavedModel's directory again, without links out of it",
        )


def _damaged(name: str, error: Exception) -> StorageFailed:
    return StorageFailed(f"{name} is damaged: {error}", hint="copy it again from where it is whole")


_OPENERS: dict[str | None, Any] = {
    "tar": partial(open, mode="rb"),
    "gzip": gzip.GzipFile,
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class _Budget:
    """Counts what is unpacked, and refuses more than the limits."""

    def __init__(self, limits: Limits, *, packed: int, free: int) -> None:
        self._limits = limits
        self._packed = packed
        self._room = free - limits.kept_free
        self._files = self._size = 0

    def file(self) -> None:
        """Count an entry."""
        self._files += 1
        if self._files > self._limits.files:
            raise UnsafeExport(f"the archive has more than {self._limits.files:,} entries")

    def take(self, size: int) -> None:
        """Count bytes before they are written."""
        self._size += size
        if self._size > self._limits.size:
            raise UnsafeExport(f"the archive unpacks to more than {self._limits.size:,} bytes")
        if self._size > max(self._limits.suspicious, self._limits.ratio * self._packed):
            raise UnsafeExport(
                f"the archive unpacks to more than {self._limits.ratio} times its {self._packed:,} bytes: a bomb",
                hint="if it is none, unpack it and give the directory",
            )
        if self._size > self._room:
            raise NoSpace(
                f"the archive does not fit into {tempfile.gettempdir()}",
                hint="make room there, or let TMPDIR name a larger place",
            )


class _Member(tarfile.TarInfo):
    """A member whose extended headers are bounded: tarfile reads them into memory whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (
            *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
            *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        )
        if self.type in extended and self.size > _LONGEST_HEADER:
            raise UnsafeExport(f"the archive has a header of {self.size:,} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


def _unpack_tar(stream: IO[bytes], into: Path, budget: _Budget) -> list[str]:
    """Unpack a stream; once something is wrong only the rest of the names is looked at."""
    problems: list[str] = []
    # A stream is read once, from its begin to its end: no entry can point back to make it longer.
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            budget.file()
            if member.issparse():
                problems.append(f"{shown(member.name)}: a sparse file")
                continue
            budget.take(member.size)
            try:
                checked = tarfile.data_filter(member, str(into))
            except tarfile.FilterError as error:
                problems.append(f"{shown(member.name)}: {_reason(error)}")
                continue
            if ".." in PurePosixPath(member.name).parts or member.name.startswith("/"):
                problems.append(f"{shown(member.name)}: a path that leaves the archive")
            elif not problems:
                tar.extract(checked, into, set_attrs=False, filter="fully_trusted")
    # What is behind the last entry holds the checksums of some formats.
    while chunk := stream.read(_CHUNK):
        budget.take(len(chunk))
    return problems


def _reason(error: tarfile.FilterError) -> str:
    kinds = {
        tarfile.AbsolutePathError: "an absolute path",
        tarfile.OutsideDestinationError: "a path that leaves the archive",
        tarfile.SpecialFileError: "a device or FIFO",
        tarfile.AbsoluteLinkError: "a link to an absolute path",
        tarfile.LinkOutsideDestinationError: "a link that leaves the archive",
    }
    return kinds.get(type(error), str(error))


def _unpack_zip(archive: Path, into: Path, budget: _Budget) -> list[str]:
    with zipfile.ZipFile(archive) as packed:
        problems = []
        for info in packed.infolist():
            budget.file()
            path = PurePosixPath(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
                problems.append(f"{shown(info.filename)}: a path that leaves the archive")
            elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                problems.append(f"{shown(info.filename)}: a link or device")
            elif info.flag_bits & 1:
                problems.append(f"{shown(info.filename)}: encrypted")
        if problems:
            return problems
        for info in packed.infolist():
            target = into / info.filename
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(info) as source, target.open("xb") as copy:
                # What the header says of the size may be a lie: what comes out is counted.
                while chunk := source.read(_CHUNK):
                    budget.take(len(chunk))
                    copy.write(chunk)
    return []
