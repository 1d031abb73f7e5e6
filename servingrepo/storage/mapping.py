"""Hash large files on all cores: a child process maps them, and blake3's own threads work on them.

Mapped bytes are not copied, and blake3 shares them out among the cores. But whoever truncates a mapped file kills the
process that reads there (SIGBUS, mmap(2)). So a child maps. If it dies, the files that it did not answer for are read
here in the ordinary way.

The child runs this file alone, with the standard library and blake3. It starts in 20 ms.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

WORTH_A_CHILD = 256 << 20
"""Bytes in large files from which on a child is faster, although it has to start."""

WORTH_A_MAP = 1 << 20
"""Bytes from which on a file is mapped. blake3 shares out only what one call gets."""

_WINDOW = 16 << 20
"""Bytes that are mapped at a time: the most that they add to the child's memory."""


def worth_mapping(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the paths of the files that a child should hash, largest first; none if they have too few bytes."""
    large = {path: size for path, size in sizes.items() if size >= WORTH_A_MAP}
    if sum(large.values()) < WORTH_A_CHILD:
        return ()
    return tuple(sorted(large, key=lambda path: -large[path]))


@contextmanager
def hashed_by_child(files: Sequence[str]) -> Iterator[Iterator[tuple[int, str] | None]]:
    """Start a child that hashes files, and give its answers in the order of the files, as they come.

    An answer is a size and a digest in hex. It is None for a file that the child could not hash from its first to its
    last byte: because it is no regular file, changed meanwhile, or the child died. The caller reads that file itself.
    """
    if not files:
        yield iter(())
        return
    try:
        child = _start()
    except OSError:  # no memory, or no interpreter, as in a program that embeds Python
        yield iter([None] * len(files))
        return
    questions, answers = cast("tuple[IO[bytes], IO[bytes]]", (child.stdin, child.stdout))
    with child:
        try:
            with suppress(BrokenPipeError), questions:
                # The child answers nothing before it has read all, so neither waits for the other.
                questions.write(b"".join(os.fsencode(file) + b"\0" for file in files))
            yield (_answer(answers.readline()) for _ in files)
        finally:
            child.kill()


def _start() -> subprocess.Popen[bytes]:
    # Imported here: the child needs neither, and few commands do.
    import subprocess
    from pathlib import Path

    import blake3

    packages = str(Path(blake3.__file__).parents[1])
    command = [sys.executable, "-I", "-S", __file__, packages, str(os.getpid())]
    return subprocess.Popen(  # nosec B603 # our interpreter and this file
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _answer(line: bytes) -> tuple[int, str] | None:
    size, _, digest = line.decode().partition(" ")
    return (int(size), digest.removesuffix("\n")) if digest.endswith("\n") else None


def main() -> None:
    """Answer for each path on stdin: `SIZE DIGEST`, or `-`."""
    packages, parent = sys.argv[1], int(sys.argv[2])
    sys.path.append(packages)
    for path in sys.stdin.buffer.read().split(b"\0")[:-1]:
        answer = "-"
        with suppress(OSError, ValueError):  # ValueError: the file ends before a window begins
            answer = hash_mapped(path, parent=parent)
        os.write(1, answer.encode() + b"\n")


def hash_mapped(path: bytes, *, parent: int) -> str:
    """Return the answer for one file. A link is not followed, and a FIFO is not waited for."""
    from blake3 import blake3  # imported here: this file knows its place only when it runs

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return "-"
        hasher = blake3(max_threads=blake3.AUTO)
        for start in range(0, before.st_size, _WINDOW):
            if os.getppid() != parent:  # nobody waits for the answer any more
                sys.exit()
            length = min(_WINDOW, before.st_size - start)
            with mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=start) as window:
                hasher.update(window)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return f"{before.st_size} {hasher.hexdigest()}" if same else "-"


if __name__ == "__main__":
    main()
