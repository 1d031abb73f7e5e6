"""Unpack a run from an archive, safely and for a while. SageMaker (`model.tar.gz`) and TensorFlow Hub make such ones.

An archive may come from a stranger. It is unpacked only into a scratch directory, and only into files, directories
and links that stay inside. Bytes are counted piece by piece as they come out, so that an archive that does not fit is
refused before it fills the disk.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from servingrepo.errors import (
    DamagedExport,
    NoPermission,
    NoSpace,
    ServingRepoError,
    StorageFailed,
    UnsafeExport,
)
from servingrepo.runs.listing import read_start
from servingrepo.runs.tar_stream import BrokenTar, Read, tar_entries
from servingrepo.runs.unpacking import CHUNK, Budget, Entry, Limits, unpack
from servingrepo.runs.values import shown
from servingrepo.storage.reading import is_git_lfs_pointer
from servingrepo.storage.scratch import PREFIX, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["Limits", "archive_kind", "unpacked"]

_START = 512
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ_MEMORY = 256 << 20
"""The memory that xz may use; files of `xz -9` need 65 MiB."""
_LARGEST_DIRECTORY = 32 << 20
"""The most bytes of a zip's directory, which is read whole; a directory of 100,000 entries has some 12 MB."""
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz"}


def archive_kind(path: Path) -> str | None:
    """Tell the kind of an archive by its first bytes: tar, gzip, bzip2, xz, zip or zstd; None if it is no archive."""
    with suppress(OSError):
        path = path.resolve(strict=True)
    return _kind(read_start(str(path), _START))


def _kind(start: bytes) -> str | None:
    if start[257:262] == b"ustar":
        return "tar"
    if start.startswith(_ZSTD):
        return "zstd"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


@contextmanager
def unpacked(archive: Path, *, limits: Limits | None = None) -> Iterator[Path]:
    """Unpack an archive into a directory of its own, which is removed after the block.

    Links stay links if they stay inside. The archive's owners, modes and times are ignored. If a process is killed,
    the next one that unpacks removes its directory.

    Raises:
        UnsafeExport: It has names, links or devices that must not be unpacked, or it is a bomb.
        NoSpace: It does not fit into the directory for temporary files.
        StorageFailed: It is damaged, or the disk refuses.
    """
    limits = limits or Limits()
    with ExitStack() as stack:
        try:
            place = stack.enter_context(scratch(Path(tempfile.gettempdir()), PREFIX))
        except OSError as error:
            raise StorageFailed(f"no scratch directory can be made: {error}") from error
        _unpack(archive, place / "run", limits)
        yield place / "run"


def _unpack(archive: Path, into: Path, limits: Limits) -> None:
    name = shown(str(archive))
    into.mkdir()
    try:
        with _opened(archive) as file:
            size = os.fstat(file.fileno()).st_size
            free = shutil.disk_usage(into).free
            budget = Budget(limits, archive=name, packed=size, free=free)
            with closing(_entries(file, budget)) as entries:
                problems = unpack(entries, into, budget)
    except OSError as error:
        raise _failed(name, error) from error
    except lzma.LZMAError as error:
        most = f"or needs more than {_XZ_MEMORY >> 20} MiB of memory"
        raise _damaged(name, error, most) from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error
    if problems:
        raise UnsafeExport(
            f"{name} has entries that must not be unpacked: {problems[0]}",
            problems=problems,
            hint="find out who made it; pack the SavedModel's directory again, without links out of it",
        )


_DAMAGE = (
    *(BrokenTar, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, ArithmeticError, KeyError, NotImplementedError, RuntimeError),
)
"""What the readers of archives raise for damaged ones."""


def _failed(name: str, error: OSError) -> ServingRepoError:
    if error.errno is None:
        return _damaged(name, error)  # gzip's BadGzipFile
    message = f"{name} cannot be unpacked: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = f"make room in {tempfile.gettempdir()}, or let TMPDIR name a larger place"
        return NoSpace(message, hint=hint)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NoPermission(message, hint="make it readable for this user")
    return StorageFailed(message)


def _damaged(name: str, error: Exception, otherwise: str = "") -> StorageFailed:
    what = f"damaged, {otherwise}" if otherwise else "damaged"
    return StorageFailed(f"{name} is {what}: {error}", hint="copy it again from where it is whole")


def _opened(archive: Path) -> IO[bytes]:
    """Open an archive once, so that its kind, size and entries all come from the same file.

    Raises:
        OSError: It cannot be opened, or is no file any more.
    """
    descriptor = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return _Pieces(io.FileIO(descriptor))
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "it is no file any more")


class _Pieces(io.BufferedReader):
    """A file that refuses very large reads: zipfile reads a zip's directory whole, before we can count entries."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = _LARGEST_DIRECTORY
        if size is not None and size > most:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes, and may have {most:,}")
        return super().read(most if size is None or size < 0 else size)


def _entries(file: IO[bytes], budget: Budget) -> Generator[Entry]:
    """Yield the entries of an archive of any known kind.

    Raises:
        StorageFailed: Its kind is not known.
        DamagedExport: It is a Git LFS pointer, whose content was not fetched.
    """
    start = file.read(_START)
    file.seek(0)
    kind = _kind(start)
    if kind == "zip":
        yield from _zip_entries(file, budget)
    elif kind in _READERS:
        read = _counted(_READERS[kind](file), budget)
        yield from tar_entries(read, budget)
        # Some formats have their checksums behind the last entry.
        while read(CHUNK):
            pass
    elif is_git_lfs_pointer(start):
        raise DamagedExport(
            f"{budget.archive} is a Git LFS pointer, not the archive itself",
            hint="fetch it where the repository was cloned: git lfs pull",
        )
    else:
        raise StorageFailed(
            f"{budget.archive} cannot be unpacked: {kind or 'it is no archive that is known'}",
            hint="pack it as .tar.gz or .zip, or unpack it and give the directory",
        )


def _counted(read: Read, budget: Budget) -> Read:
    def counting(size: int) -> bytes:
        data = read(size)
        budget.take(len(data))
        return data

    return counting


class _Xz:
    """Reads xz in bounded memory. Python's own reader has no bound: a stream itself says how much memory it needs."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, size: int) -> bytes:
        """Return at most `size` unpacked bytes, nothing at the end.

        Raises:
            lzma.LZMAError, EOFError: The stream is damaged, needs too much memory, or ends too early.
        """
        data = packed = b""
        while not data:
            if self._stream.eof:
                packed = self._next_stream()
                if not packed:
                    return b""
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            elif self._stream.needs_input:
                packed = self._file.read(CHUNK)
                if not packed:
                    raise EOFError("it ends too early")
            data = self._stream.decompress(packed, size)
            packed = b""
        return data

    def _next_stream(self) -> bytes:
        """Return the first bytes of the next stream, behind the zeros that follow the last one."""
        packed = self._stream.unused_data.lstrip(b"\0")
        while not packed and (more := self._file.read(CHUNK)):
            packed = more.lstrip(b"\0")
        return packed


_READERS: dict[str | None, Callable[[IO[bytes]], Read]] = {
    "tar": lambda file: file.read,
    "gzip": lambda file: gzip.GzipFile(fileobj=file).read,
    "bzip2": lambda file: bz2.BZ2File(file).read,
    "xz": lambda file: _Xz(file).read,
}


def _zip_entries(file: IO[bytes], budget: Budget) -> Iterator[Entry]:
    """Yield the entries of a zip. Archives from Windows may have backslashes in their names instead of slashes."""
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            name = info.filename.replace("\\", "/").encode("utf-8", "surrogateescape")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if name[1:2] == b":":
                yield Entry(name=name, kind="refused", target=b"an absolute path")
            elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                yield Entry(name=name, kind="refused", target=b"a link or device")
            elif info.flag_bits & 1:
                yield Entry(name=name, kind="refused", target=b"encrypted")
            elif name.endswith(b"/"):
                yield Entry(name=name, kind="directory")
            elif info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                # With other methods zipfile unpacks all bytes that it has read at once, without a bound.
                method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
                raise StorageFailed(
                    f"{budget.archive} cannot be unpacked: {shown(info.filename)} is packed with {method}",
                    hint="pack it as .tar.gz, or as .zip with deflate; or unpack it and give the directory",
                )
            else:
                budget.expect(info.file_size)
                with packed.open(info) as content:
                    # The stated size may be a lie, so the bytes that come out are counted.
                    yield Entry(name=name, kind="file", read=_counted(content.read, budget))
