"""Durable changes on a local file system. Each of their steps is a failpoint.

The rules are POSIX's: data is durable after fsync of the file, a name is durable after fsync of its directory, and a
rename is atomic for every reader.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NoPermission, NoSpace, ServingRepoError, StorageFailed
from servingrepo.storage.faults import Faults
from servingrepo.storage.reading import closed_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""The temporary name of a directory, until its mode is right."""

_THREADS = 16
"""Threads that sync or remove many files: file systems do together what is waited for at one time."""

_AT_ONCE = 1024
"""Files that are handed to these threads at a time: what waits for a thread takes memory."""

_WRITTEN_FROM = re.compile(rb',"written_from":([0-9]{1,15})}\n\Z')
"""How a line ends that was written together with others: with the offset at which the first one begins."""

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


@contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the block into our error, with the action and the path."""
    try:
        yield
    except OSError as error:
        raise translate(error, doing, path) from error


def translate(error: OSError, doing: str, path: Path) -> ServingRepoError:
    """Return our error for an OSError."""
    where = error.filename if isinstance(error.filename, str) else str(path)
    text = f"cannot {doing} {where}: {error.strerror or error}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(
            text,
            hint="free some space (servingrepo prune --keep-last 2 --empty-trash does), try again",
        )
    if error.errno == errno.EROFS:
        return NoPermission(
            text,
            hint="the file system is mounted read-only: list, show, status, history and verify work there; "
            "run commands that write on a machine that may write to it",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NoPermission(
            text,
            hint=f"check the owner and mode of {where}; this process runs as uid {os.geteuid()}",
        )
    return StorageFailed(text, hint="check the disk and the mount, then try again")


class Disk(msgspec.Struct, frozen=True):
    """A local file system, on which tests can make each step of a writing command fail."""

    faults: Faults = Faults()

    def step(self, name: str, path: Path | None = None) -> None:
        """Mark a step of a writing command, at which the crash tests may interrupt it.

        Raises:
            StorageFailed, NoSpace, NoPermission: The fault plan has an error here, like one of a real disk.
        """
        try:
            self.faults.reach(name, path)
        except OSError as error:
            raise translate(error, f"go on at {name} with", path or Path(name)) from error

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        with closed_after(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
            os.fsync(descriptor)

    def sync_file(self, path: Path) -> None:
        """Make the bytes of a file durable, if it is there."""
        with (
            storage_errors("sync", path),
            suppress(FileNotFoundError),
            closed_after(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as descriptor,
        ):
            os.fsync(descriptor)

    def make_directory(self, path: Path) -> None:
        """Create a directory, mode 0755 whatever the umask, and make its name durable.

        TF Serving's container may run as another user than the publisher. So the name appears only when the mode is
        right and durable: otherwise a crash in between could leave a directory that only we can read, and a directory
        that exists is never changed. A crash leaves a directory `.NAME.HEX.tmp` instead; recovery removes it.
        """
        with storage_errors("create the directory", path):
            missing = [path]
            while not missing[-1].parent.exists():
                missing.append(missing[-1].parent)
            for one in reversed(missing):
                self.step("make-directory.before-create", one)
                while not os.path.lexists(one):
                    self._make_directory(one)
                self.step("make-directory.before-sync", one)
                # Also for a directory that exists: its maker may have died before this.
                self.sync_directory(one.parent)

    def _make_directory(self, path: Path) -> None:
        """Try once to create a directory: a recovery may remove the unfinished one meanwhile."""
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        temporary.mkdir(DIRECTORY_MODE)  # even under umask 000 no other user may write there
        try:
            temporary.chmod(DIRECTORY_MODE)
            self.sync_directory(temporary)
            self.step("make-directory.before-rename", path)
            rename_without_replacing(temporary, path)
        except BaseException as error:
            with suppress(OSError):
                temporary.rmdir()
            swept = isinstance(error, FileNotFoundError) and path.parent.is_dir()
            faster = isinstance(error, FileExistsError)
            if not swept and not faster:
                raise

    def remove_unfinished(self, place: Path) -> tuple[str, ...]:
        """Remove the directories that a killed `make_directory` left in a directory; return their names."""
        removed: list[str] = []
        with storage_errors("read", place):
            left = sorted(one for one in place.glob(".*.tmp") if _UNFINISHED.fullmatch(one.name))
        for path in left:
            self.step("remove-unfinished.before", path)
            with suppress(OSError):  # it is no directory or not empty, so it is not ours
                path.rmdir()
                removed.append(path.name)
        return tuple(removed)

    def make_scratch_directory(self, path: Path) -> None:
        """Create a directory and the one above it, mode 0755 whatever the umask or a crash left.

        For directories that only we use and that may be lost: neither names nor modes are made durable.
        """
        with storage_errors("create the directory", path):
            for one in (path.parent, path):
                self.step("make-scratch.before-create", one)
                with suppress(FileExistsError):
                    # Even under umask 000 no other user may write there for a moment.
                    one.mkdir(DIRECTORY_MODE)
                mode = one.lstat().st_mode
                if stat.S_ISDIR(mode) and stat.S_IMODE(mode) != DIRECTORY_MODE:
                    one.chmod(DIRECTORY_MODE)

    def replace_file(
        self, path: Path, data: bytes, *, step: str, shown: Path | None = None
    ) -> None:
        """Replace a file's content atomically and durably: readers see either the old or the new content.

        `shown` is its path in errors, if `path` goes through an open directory (/proc/self/fd/N).

        A SIGKILL may leave a file `.NAME.tmp` beside it. The next call overwrites this file, and recovery removes it.
        """
        temporary = _temporary(path)
        shown = shown or path
        with storage_errors("write", shown):
            self.step(f"{step}.before-write", shown)
            try:
                # O_NONBLOCK: if a FIFO has this name, we must not wait for its reader (fifo(7)).
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
                descriptor = os.open(temporary, flags | os.O_NOFOLLOW, FILE_MODE)
                with os.fdopen(descriptor, "wb") as stream:
                    os.fchmod(stream.fileno(), FILE_MODE)
                    stream.write(data)
                    stream.flush()
                    self.step(f"{step}.before-sync", shown)
                    os.fsync(stream.fileno())
                self.step(f"{step}.before-rename", shown)
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            self.step(f"{step}.after-rename", shown)
            self.sync_directory(path.parent)
        self.step(f"{step}.done", shown)

    def append_lines(self, path: Path, lines: Sequence[bytes], *, step: str) -> None:
        """Append lines, which are JSON objects, in one durable write. First cut off what a crash left torn.

        If they are several, each says where the first one begins (`whole_lines_end`). After a crash some of them may
        be there: those at the beginning, or none. The caller holds the repository's lock: there is one writer.
        """
        with storage_errors("append to", path):
            self.step(f"{step}.before-append", path)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with closed_after(os.open(path, flags, FILE_MODE)) as descriptor:
                with suppress(PermissionError):  # another user's file keeps its mode
                    os.fchmod(descriptor, FILE_MODE)
                end = whole_lines_end(descriptor)
                if end < os.fstat(descriptor).st_size:
                    os.ftruncate(descriptor, end)
                data = _joined(lines, begin=end)
                try:
                    if os.write(descriptor, data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                    self.step(f"{step}.before-sync", path)
                    os.fsync(descriptor)
                except BaseException:
                    os.ftruncate(descriptor, end)
                    raise
            self.sync_directory(path.parent)
        self.step(f"{step}.done", path)

    def publish_directory(self, source: Path, target: Path, *, step: str) -> None:
        """Rename a directory to a name that must not exist, and make the name durable.

        `os.rename` onto an empty directory succeeds silently on Linux, hence renameat2(RENAME_NOREPLACE).

        Raises:
            FileExistsError: The target exists; nothing was changed.
        """
        self.step(f"{step}.before-rename", target)
        rename_without_replacing(source, target)
        self.step(f"{step}.after-rename", target)
        self.sync_directory(target.parent)
        self.step(f"{step}.done", target)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all below it, if it exists. A link is removed itself and not followed."""
        self.step("remove-tree.before", path)
        with storage_errors("remove", path):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                return
            if not stat.S_ISDIR(mode):
                path.unlink()
                return
            with suppress(OSError):
                path.rmdir()
                return
            from shutil import rmtree  # 3 ms that an empty directory need not pay

            rmtree(path)

    def remove_file(self, path: Path) -> None:
        """Remove a file, if it exists, and make the removal durable."""
        self.step("remove-file.before", path)
        with storage_errors("remove", path):
            path.unlink(missing_ok=True)
            self.sync_directory(path.parent)

    def write_files(self, files: Iterable[tuple[Path, bytes]], *, step: str) -> None:
        """Write many files, each atomically as by `replace_file`, and all durably when this returns.

        Thousands of files are synced together: each by itself would have to wait for the disk. So all bytes are
        durable before the first file gets its name, and the files get their names in the order of `files`. Missing
        folders are made; their parents must exist. Only the bytes of one file are held in memory at a time.
        """
        names: list[str] = []  # a Path takes five times the memory
        folders: set[Path] = set()
        try:
            for path, data in files:
                if path.parent not in folders:
                    self._make_folder(path.parent, step=step)
                    folders.add(path.parent)
                self.step(f"{step}.before-write", path)
                names.append(str(path))
                with storage_errors("write", path):
                    _write_file(_temporary(path), data)
            self.step(f"{step}.before-sync")
            self._sync_files(_temporary(Path(name)) for name in names)
            for path in map(Path, names):
                self.step(f"{step}.before-rename", path)
                with storage_errors("write", path):
                    _temporary(path).replace(path)
        except BaseException:
            for name in names:
                with suppress(OSError):
                    _temporary(Path(name)).unlink()
            raise
        self.step(f"{step}.after-rename")
        self._sync_folders({*folders, *(folder.parent for folder in folders)})
        self.step(f"{step}.done")

    def remove_files(self, paths: Iterable[Path]) -> None:
        """Remove many files, those that exist, and make that durable when this returns.

        Of thousands many are removed at one time: each by itself waits for the file system. Of few each is a step.
        """

        def remove(path: Path) -> None:
            with storage_errors("remove", path):
                path.unlink(missing_ok=True)

        folders: set[Path] = set()
        left, most = iter(paths), 1
        while some := list(islice(left, most)):
            for path in some:
                self.step("remove-files.before", path)
                folders.add(path.parent)
            _all_at_once(remove, some)
            most = min(2 * most, _AT_ONCE)
        self._sync_folders(folder for folder in folders if folder.is_dir())

    def _make_folder(self, folder: Path, *, step: str) -> None:
        """Create a folder, mode 0755 whatever the umask, or keep the one that is there. Its name is synced later."""
        self.step(f"{step}.before-folder", folder)
        with storage_errors("create the directory", folder):
            try:
                folder.mkdir(DIRECTORY_MODE)
            except FileExistsError:
                return
            self.step(f"{step}.before-mode", folder)
            folder.chmod(DIRECTORY_MODE)

    def _sync_files(self, paths: Iterable[Path]) -> None:
        def sync(path: Path) -> None:
            self.sync_file(path)

        _all_at_once(sync, paths)

    def _sync_folders(self, folders: Iterable[Path]) -> None:
        def sync_folder(path: Path) -> None:
            with storage_errors("sync", path):
                self.sync_directory(path)

        _all_at_once(sync_folder, folders)


def _all_at_once(work: Callable[[Path], None], paths: Iterable[Path]) -> None:
    """Work on many paths in threads; raise the first error when all have ended."""
    from concurrent.futures import ThreadPoolExecutor  # few commands need it

    left = iter(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(left, _AT_ONCE)):
            for _ in pool.map(work, some):
                pass


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _write_file(path: Path, data: bytes) -> None:
    """Write a temporary file of ours; one that a killed command left is overwritten."""
    # O_NONBLOCK: if a FIFO has this name, we must not wait for its reader (fifo(7)).
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(stream.fileno(), FILE_MODE)
        stream.write(data)


def _joined(lines: Sequence[bytes], *, begin: int) -> bytes:
    """Return lines as they are appended at an offset. Several say at their ends what this offset is."""
    ending = b',"written_from":%d}' % begin
    if len(lines) > 1:
        lines = [line.removesuffix(b"}") + ending for line in lines]
    return b"".join(line + b"\n" for line in lines)


def whole_lines_end(descriptor: int) -> int:
    """Return the offset just behind the last whole line of an open file.

    A power loss may leave a line without its newline or with zeros in it: file systems may write the size of a file
    before its blocks, and a later block before an earlier one. So of lines that were written at once, one in the
    middle may have zeros, and all of these lines are cut then. Zeros in an earlier line are no tear but damage.
    """
    end = _newline_before(descriptor, os.fstat(descriptor).st_size)
    while True:
        start = _newline_before(descriptor, end - 1)
        line = os.pread(descriptor, end - start, start)
        if (together := _WRITTEN_FROM.search(line)) is not None:
            start = _begin_of_lines(descriptor, int(together[1]), start)
        if b"\0" not in os.pread(descriptor, end - start, start):
            return end
        end = start


def _begin_of_lines(descriptor: int, begin: int, start: int) -> int:
    """Return where lines begin that were written at once, if the file has that place still; else of the last line."""
    there = begin < start and (not begin or os.pread(descriptor, 1, begin - 1) == b"\n")
    return begin if there else start


def _newline_before(descriptor: int, end: int) -> int:
    """Return the offset just behind the last newline before an offset."""
    while end > 0:
        start = max(0, end - 65_536)
        block = os.pread(descriptor, end - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def rename_without_replacing(source: Path, target: Path) -> None:
    """Rename, but fail with FileExistsError if the target exists, even as an empty directory.

    Some file systems cannot do this atomically (EINVAL from renameat2): there we check before the rename. The caller
    holds the repository's lock, so only another program could make the target in between.
    """
    import ctypes  # imported here: few commands need it

    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    if result == 0:
        return
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        if not os.path.lexists(target):
            source.rename(target)
            return
        number = errno.EEXIST
    raise OSError(number, os.strerror(number), str(target))


def free_bytes(path: Path) -> int:
    """Return how many bytes this user may still write to the file system of a path."""
    with storage_errors("ask for the free space of", path):
        facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize
