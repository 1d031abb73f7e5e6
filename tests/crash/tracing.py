"""What a command really does to a file system: strace's word for it, not the code's.

The process that forks commands runs under strace, so a write that goes past `storage.disk` is seen as well. All
strings are written in hex (-xx), whole (-s), and each descriptor with its path (-y), so that a line can be taken
apart at its commas.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from tests.crash.forking import Forking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Kind = Literal["create", "write", "truncate", "sync", "rename", "unlink", "mkdir", "rmdir", "chmod"]

STRANGE = (
    *(
        "open",
        "creat",
        "truncate",
        "writev",
        "pwritev",
        "pwritev2",
        "copy_file_range",
        "sendfile",
        "splice",
        "fallocate",
    ),
    *("link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "sync", "syncfs", "mmap"),
    *("io_uring_enter", "fchown", "chown", "lchown", "fchownat", "setxattr", "fsetxattr"),
)
"""What would change a repository, or make it durable, in a way that the model does not know."""

_LONGEST = 64 << 20
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>\s?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)")


@dataclass(frozen=True)
class Effect:
    """One thing that a command did: `path` and `other` are relative to the root, `data` is what was written.

    `number` is an offset, a size or a mode. A name that was renamed without replacing says so in `other_is_new`.
    """

    kind: Kind
    path: str
    other: str = ""
    data: bytes = b""
    number: int = 0
    other_is_new: bool = False


class Tracing(Forking):
    """A process that runs commands at once, and knows afterwards what they did."""

    def __init__(self, log: Path) -> None:
        self.trace = log.with_name("trace")
        program = shutil.which("strace")
        assert program is not None
        super().__init__(
            log,
            before=(
                *(program, "-f", "-qq", "-y", "-xx", "-s", str(_LONGEST), "--seccomp-bpf"),
                *("-o", str(self.trace), "-e", "trace=" + ",".join(f"?{one}" for one in TRACED)),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def effects(self, root: Path) -> list[Effect]:
        """Return what was done below a root, once the process has ended."""
        return list(_Reader(str(root.resolve())).read(self.trace))


class _Reader:
    """Takes a trace apart. One command at a time: descriptors are those of whoever writes now."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.positions: dict[int, int | None] = {}
        """Where the next write of a descriptor goes; None: at the end."""

    def read(self, trace: Path) -> Iterator[Effect]:
        needle = _hex(self.root)
        begun: dict[str, str] = {}
        with trace.open(encoding="ascii") as lines:
            for line in lines:
                if needle not in line and "resumed>" not in line:
                    continue
                found = _LINE.match(line.rstrip("\n"))
                if found is None:
                    continue
                process, text = found.groups()
                if text.endswith(" <unfinished ...>"):
                    begun[process] = text.removesuffix(" <unfinished ...>")
                    continue
                if resumed := _RESUMED.match(text):
                    text = begun.pop(process, "") + resumed[1]
                if needle in text and (call := _CALL.match(text)):
                    name, arguments, result, rest = call.groups()
                    if not result.startswith("-") and result != "?":
                        yield from self.understood(name, arguments.split(", "), result, rest)

    def understood(self, name: str, given: list[str], result: str, rest: str) -> Iterator[Effect]:
        """Yield what one successful call did."""
        assert name not in STRANGE or not self._is_ours(name, given), f"{name}({given})"
        if name in STRANGE:
            return
        if name in BY_DESCRIPTOR:
            yield from self._by_descriptor(name, given, result, rest)
        elif name in BY_NAME:
            kind, path, number = BY_NAME[name](given)
            yield from self._effect(kind, path, number=number)
        else:
            assert name in {"rename", "renameat", "renameat2"}, f"{name}({given})"
            yield from self._renamed(name, given)

    def _by_descriptor(
        self, name: str, given: list[str], result: str, rest: str
    ) -> Iterator[Effect]:
        match name:
            case "openat":
                # strace asks /proc for the path after the call, and finds none if the process was killed in between.
                path = _path_of(rest) if "<" in rest else _at(*given[:2])
                yield from self._opened(given, int(result), path)
            case "lseek":
                if _number_of(given[0]) in self.positions:
                    self.positions[_number_of(given[0])] = int(result)
            case "write" | "pwrite64":
                yield from self._written(name, given, int(result))
            case "ftruncate":
                yield from self._effect("truncate", _path_of(given[0]), number=int(given[1]))
            case "fchmod":
                yield from self._effect("chmod", _path_of(given[0]), number=int(given[1], 8))
            case _:
                yield from self._effect("sync", _path_of(given[0]))

    def _is_ours(self, name: str, given: list[str]) -> bool:
        return name != "mmap" or ("PROT_WRITE" in given[2] and "MAP_SHARED" in given[3])

    def _opened(self, given: list[str], descriptor: int, path: str | None) -> Iterator[Effect]:
        flags = given[2].split("|")
        self.positions.pop(descriptor, None)
        if "O_RDONLY" in flags and "O_CREAT" not in flags:
            return
        self.positions[descriptor] = None if "O_APPEND" in flags else 0
        if "O_CREAT" in flags:
            yield from self._effect("create", path, number=int(given[3], 8))
        if "O_TRUNC" in flags:
            yield from self._effect("truncate", path)

    def _written(self, name: str, given: list[str], count: int) -> Iterator[Effect]:
        data = _bytes(given[1])[:count]
        descriptor = _number_of(given[0])
        if name == "pwrite64":
            offset: int | None = int(given[3])
        else:
            offset = self.positions.get(descriptor, 0)
            if offset is not None:
                self.positions[descriptor] = offset + count
        number = -1 if offset is None else offset
        yield from self._effect("write", _path_of(given[0]), data=data, number=number)

    def _renamed(self, name: str, given: list[str]) -> Iterator[Effect]:
        if name == "rename":
            old, new, flags = _text(given[0]), _text(given[1]), "0"
        else:
            old, new, flags = _at(*given[:2]), _at(*given[2:4]), given[4] if len(given) > 4 else "0"
        source, target = self._below(old), self._below(new)
        assert (source is None) == (target is None), f"{old} went to {new}: out of the repository"
        assert flags in {"0", "RENAME_NOREPLACE"}, flags
        if source is not None and target is not None:
            yield Effect("rename", source, target, other_is_new=flags != "0")

    def _effect(
        self, kind: Kind, path: str | None, *, data: bytes = b"", number: int = 0
    ) -> Iterator[Effect]:
        """Yield an effect if it is below the root; a file that has no name any more is none."""
        if path is not None and (below := self._below(path)) is not None:
            yield Effect(kind, below, data=data, number=number)

    def _below(self, path: str) -> str | None:
        assert path.startswith("/"), f"{path} is relative"
        if path == self.root:
            return ""
        inside = path.startswith(self.root + "/")
        return path.removeprefix(self.root + "/") if inside else None


def _number_of(text: str) -> int:
    """Return the number of a descriptor, which stands before its path."""
    return int(text.split("<", maxsplit=1)[0])


def _hex(text: str) -> str:
    return "".join(f"\\x{one:02x}" for one in text.encode())


def _bytes(text: str) -> bytes:
    assert text.startswith('"'), text
    assert text.endswith('"'), f"{text[:80]} was cut"
    return bytes.fromhex(text[1:-1].replace("\\x", ""))


def _text(text: str) -> str:
    return _bytes(text).decode()


def _path_of(text: str) -> str | None:
    """Return the path behind a descriptor; None if it was removed."""
    found = re.search(r"<([^>]*)>(\(deleted\))?", text)
    assert found is not None, text
    if found[2]:
        return None
    return bytes.fromhex(found[1].replace("\\x", "")).decode()


def _at(directory: str, name: str) -> str:
    path = _text(name)
    if path.startswith("/"):
        return path
    above = _path_of(directory)
    assert above is not None
    return f"{above}/{path}" if path not in {"", "."} else above


BY_NAME: dict[str, Callable[[list[str]], tuple[Kind, str, int]]] = {
    "unlink": lambda given: ("unlink", _text(given[0]), 0),
    "rmdir": lambda given: ("rmdir", _text(given[0]), 0),
    "unlinkat": lambda given: (
        "rmdir" if "AT_REMOVEDIR" in given[2] else "unlink",
        _at(*given[:2]),
        0,
    ),
    "mkdir": lambda given: ("mkdir", _text(given[0]), int(given[1], 8)),
    "mkdirat": lambda given: ("mkdir", _at(*given[:2]), int(given[2], 8)),
    "chmod": lambda given: ("chmod", _text(given[0]), int(given[1], 8)),
    "fchmodat": lambda given: ("chmod", _at(*given[:2]), int(given[2], 8)),
    "fchmodat2": lambda given: ("chmod", _at(*given[:2]), int(given[2], 8)),
}
BY_DESCRIPTOR = frozenset(
    {"openat", "lseek", "write", "pwrite64", "ftruncate", "fchmod", "fsync", "fdatasync"}
)
TRACED = (*BY_NAME, *BY_DESCRIPTOR, *STRANGE, "rename", "renameat", "renameat2")
