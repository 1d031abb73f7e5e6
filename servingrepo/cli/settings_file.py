"""Settings files: opens one only if no other user can have written it.

Settings name commands to run and servers that get tokens. So a file counts only if it belongs to us or to root, and
no other user may write it: ssh demands the same of its files. A file that was found, rather than named, must also lie
in a directory that no other user may write: such a user could replace the file with a link. The file is opened once
and then judged, and its name is not used again.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from servingrepo.errors import SettingsError
from servingrepo.storage.reading import need_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["read_found", "read_named"]

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_ACL = "system.posix_acl_access"
_OTHER_SETTINGS = "use other settings: --settings FILE (--settings /dev/null for none)"


class _Doubt(NamedTuple):
    """The reason why others may have written a file, and its remedy."""

    why: str
    remedy: str


def read_found(path: Path) -> bytes | None:
    """Return the bytes of a settings file that was not named; None if there is no file.

    This function follows links itself, because each link and its directory must belong to us or to root.

    Raises:
        SettingsError: Others may have written it, or it cannot be read.
        StorageFailed: It is not a regular file.
    """
    place, doubts = path, list[_Doubt]()
    for _ in range(_MOST_LINKS):
        with ExitStack() as opened:
            folder = _opened(opened, place.parent, _FOLDER)
            if folder is None:
                return None
            entry = _opened(opened, place.name, _ENTRY, folder=folder)
            if entry is None:
                return None
            named = f"name it: --settings {path}"
            doubts += (_Doubt(why, named) for why in _whose_folder(folder, place.parent))
            facts = os.fstat(entry)
            if not stat.S_ISLNK(facts.st_mode):
                _refuse(path, (*doubts, *_doubts(place, entry)))
                return _read(path, entry)
            doubts += (_Doubt(why, named) for why in _whose(facts, place))
            place = place.parent / os.readlink("", dir_fd=entry)
    raise SettingsError(f"cannot read {path}: its links form a loop", hint=_OTHER_SETTINGS)


def read_named(path: Path) -> bytes:
    """Return the bytes of a settings file that was named. It may be a pipe, such as `--settings <(…)`.

    A file of the user who called sudo counts too, because that user named it.

    Raises:
        SettingsError: Others may have written it, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
                _refuse(path, tuple(_doubts(path, file.fileno(), also=_sudo_user())))
            return file.read()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _opened(
    opened: ExitStack, path: str | Path, flags: int, *, folder: int | None = None
) -> int | None:
    """Open a path for inspection, even if it is a link; None if nothing is there."""
    with suppress(OSError):
        descriptor = os.open(path, flags, dir_fd=folder)
        opened.callback(os.close, descriptor)
        return descriptor
    return None


def _read(path: Path, entry: int) -> bytes:
    """Read the file that was judged, by its descriptor."""
    need_file(entry, path)
    try:
        with open(f"/proc/self/fd/{entry}", "rb") as file:  # noqa: PTH123 - a name of a descriptor
            return file.read()
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}", hint=_OTHER_SETTINGS
        ) from error


def _refuse(path: Path, doubts: Sequence[_Doubt]) -> None:
    """Refuse a file that others may have written.

    Raises:
        SettingsError: There are doubts; the error lists all, with their remedies.
    """
    if doubts:
        remedies = ", ".join(dict.fromkeys(one.remedy for one in doubts))
        raise SettingsError(
            f"the settings in {path.absolute()} are not used: others may have written them",
            problems=dict.fromkeys(one.why for one in doubts),
            hint=f"if you trust them: {remedies}; else {_OTHER_SETTINGS}",
        )


def _doubts(path: Path, descriptor: int, *, also: int | None = None) -> Iterator[_Doubt]:
    """Yield each reason why others may have written an open file, with the command that mends it."""
    facts = os.fstat(descriptor)
    for why in _whose(facts, path, also=also):
        yield _Doubt(why, f"chown {os.geteuid()} {path}")
    if _others_write(facts, descriptor):
        yield _Doubt(f"others may write to {path.absolute()}", f"chmod go-w {path}")


def _whose_folder(descriptor: int, path: Path) -> Iterator[str]:
    """Yield why others may replace files in a directory. In a sticky directory only the owner of a file may."""
    facts = os.fstat(descriptor)
    yield from _whose(facts, path)
    if not facts.st_mode & stat.S_ISVTX and _others_write(facts, descriptor):
        yield f"others may exchange what is in {path.absolute()}"


def _whose(facts: os.stat_result, path: Path, *, also: int | None = None) -> Iterator[str]:
    me = os.geteuid()
    if facts.st_uid not in {0, me, also}:
        wanted = f"uid {me} or root" if me else "root"
        yield f"{path.absolute()} belongs to uid {facts.st_uid}, not to {wanted}"


def _others_write(facts: os.stat_result, descriptor: int) -> bool:
    """Tell whether others than its owner may write a file.

    The group may be its owner alone: useradd makes one for each user, whose umask is then 002. With an access list
    the bits of the group are those of everybody on it (acl(5)).
    """
    if facts.st_mode & stat.S_IWOTH:
        return True
    if not facts.st_mode & stat.S_IWGRP:
        return False
    return _has_access_list(descriptor) or not _is_private(facts.st_gid, facts.st_uid)


def _is_private(gid: int, uid: int) -> bool:
    """Tell whether this user is the only member of a group.

    In a container that has no name for either, the group that useradd makes has the number of its user.
    """
    import grp  # few files need it
    import pwd

    users = pwd.getpwall()
    names = {one.pw_name for one in users if one.pw_uid == uid}
    members = {one.pw_name for one in users if one.pw_gid == gid}
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return not names and not members and uid == gid == os.geteuid()
    return bool(members) and members | set(group.gr_mem) <= names


def _has_access_list(descriptor: int) -> bool:
    try:
        return bool(os.getxattr(f"/proc/self/fd/{descriptor}", _ACL))
    except OSError:
        return False


def _sudo_user() -> int | None:
    """Return the user who called sudo; None without sudo."""
    text = os.environ.get("SUDO_UID", "")
    return int(text) if text.isascii() and text.isdecimal() else None
