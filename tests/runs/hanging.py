"""A real network file system that stops answering: a mirror of a directory, spoken to the kernel through /dev/fuse.

    python -m tests.runs.hanging SOURCE PLACE [--after N]

prints `ready` when SOURCE can be read at PLACE. From its Nth request on, or from SIGUSR1 on, it takes requests and
never answers one: whoever waits for such an answer cannot even be killed, which is worse than a dead NFS server.
The protocol is that of linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import struct
from enum import IntEnum
from pathlib import Path


class Op(IntEnum):
    """Requests, by number."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


_UNANSWERED = {Op.FORGET, Op.INTERRUPT, Op.BATCH_FORGET}
_COUNTED = {
    *(Op.LOOKUP, Op.GETATTR, Op.READLINK, Op.OPEN),
    *(Op.READ, Op.STATFS, Op.OPENDIR, Op.READDIR),
}
_ROOT = 1
_READ_ONLY = 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("place", type=Path)
    parser.add_argument("--after", type=int, default=1 << 60)
    given = parser.parse_args()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.fsencode(given.place)
    if libc.mount(b"hanging", place, b"fuse.hanging", _READ_ONLY, options.encode()):
        number = ctypes.get_errno()
        raise SystemExit(f"cannot mount: {os.strerror(number)}")
    mirror = Mirror(given.source, after=given.after)
    print("ready", flush=True)
    mirror.serve(device)


class Mirror:
    """Answers requests from a directory, until it does not."""

    def __init__(self, source: Path, *, after: int) -> None:
        self._paths = {_ROOT: source}
        self._nodes = {source: _ROOT}
        self._after = after
        self._hangs = False
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_hangs", True))

    def serve(self, device: int) -> None:
        count = 0
        while True:
            try:
                request = os.read(device, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                continue
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            count += opcode in _COUNTED
            self._hangs = self._hangs or count >= self._after
            if self._hangs or opcode in _UNANSWERED:
                continue
            try:
                body, error_number = self._answer(opcode, node, request[40:]), 0
            except OSError as error:
                body, error_number = b"", error.errno or errno.EIO
            os.write(device, struct.pack("<IiQ", 16 + len(body), -error_number, unique) + body)

    def _answer(self, opcode: int, node: int, rest: bytes) -> bytes:  # noqa: PLR0911 - one for each
        path = self._paths.get(node, Path("/nonexistent"))
        match opcode:
            case Op.INIT:
                return struct.pack("<IIIIHHIIHH8I", 7, 31, 0, 0, 8, 6, 4096, 1, 0, 0, *[0] * 8)
            case Op.LOOKUP:
                child = path / os.fsdecode(rest.rstrip(b"\0"))
                number = self._nodes.setdefault(child, len(self._nodes) + 1)
                self._paths[number] = child
                return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + attributes(child, number)
            case Op.GETATTR:
                return struct.pack("<QII", 0, 0, 0) + attributes(path, node)
            case Op.READLINK:
                return os.fsencode(path.readlink())
            case Op.OPEN | Op.OPENDIR:
                return struct.pack("<QII", 0, 0, 0)
            case Op.READ:
                _, offset, size = struct.unpack_from("<QQI", rest)
                with path.open("rb") as file:
                    return os.pread(file.fileno(), size, offset)
            case Op.READDIR:
                _, offset, size = struct.unpack_from("<QQI", rest)
                return entries(path, offset, size)
            case Op.STATFS:
                return struct.pack("<QQQQQIIII6I", *[1 << 20] * 5, 4096, 255, 4096, 0, *[0] * 6)
            case Op.RELEASE | Op.FLUSH | Op.RELEASEDIR | Op.DESTROY:
                return b""
        raise OSError(errno.ENOSYS, "not answered")


def attributes(path: Path, node: int) -> bytes:
    facts = path.lstat()
    seconds = int(facts.st_mtime)
    times = (seconds, seconds, seconds, 0, 0, 0)
    who = (facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_gid, 0, 4096, 0)
    return struct.pack("<QQQQQQIIIIIIIIII", node, facts.st_size, facts.st_blocks, *times, *who)


def entries(path: Path, offset: int, size: int) -> bytes:
    found = b""
    for at, name in enumerate(sorted(os.listdir(path))[offset:], start=offset + 1):  # noqa: PTH208 - names
        kind = (path / name).lstat().st_mode >> 12
        raw = os.fsencode(name)
        one = struct.pack("<QQII", at + 1000, at, len(raw), kind) + raw
        one += b"\0" * (-len(one) % 8)
        if len(found) + len(one) > size:
            break
        found += one
    return found


if __name__ == "__main__":
    main()
