"""Examinations: versions that are to be adopted, each read where it lies, with the record that it would get.

Thousands of small versions keep one core busy, and the others wait. So children, which run this file, examine some of
them. A child that cannot be started, or dies, leaves its versions to this process.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast

import msgspec
from blake3 import blake3

from servingrepo.children import die_with, python
from servingrepo.errors import DamagedExport, ServingRepoError, UnsafeExport
from servingrepo.repository.adoptable import Left
from servingrepo.repository.publication import new_record
from servingrepo.repository.records import ADOPTED, Source, encode
from servingrepo.savedmodel.inspection import inspect_export, refuse_defects
from servingrepo.savedmodel.variables import read_variables
from servingrepo.storage.copying import hash_source
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.lock import Owner
from servingrepo.storage.manifest import Manifest, Recipe
from servingrepo.storage.progress import Progress, silent
from servingrepo.storage.scratch import Spool, spool
from servingrepo.storage.tree import SourceTree, read_tree
from servingrepo.texts import escaped, some

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from servingrepo.repository.repository import Repository

    Ask = Callable[[list["Question"]], Iterator["Answer"]]
    Took = Callable[["Question", "Answer"], None]

WORTH_A_CHILD = 200
"""Versions from which on children are worth their start, which takes as long as a hundred small versions."""

_MOST_CHILDREN = 7
"""Each takes 50 MB of memory."""

_BATCH = 64
"""Versions that a child is asked for at once: whoever asks waits for its turn in this process each time."""

_LENGTH = struct.Struct("<Q")

T = TypeVar("T")


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the records of one adoption have in common. In a dry run no data file is read, and no record made."""

    txid: str
    message: str
    by: Owner
    dry_run: bool


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A version to examine: its place, and the time for its record."""

    model: str
    number: int
    place: bytes
    time: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(os.fsdecode(self.place))


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """A version that can be adopted: the bytes of its files, their state as `seal_of`, and its encoded record."""

    size: int
    seal: bytes
    record: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an examination: the version can be adopted, it is left, or it changed meanwhile."""

    found: Examined | None = None
    left: Left | None = None
    changed: str = ""


def waiting_records(repo: Repository) -> AbstractContextManager[Spool]:
    """Make a spool for records that wait for the commit, on the disk where they will be."""
    return spool(repo.layout.own)


def seal_of(tree: SourceTree) -> bytes:
    """Return a digest of the names, sizes, times and inodes of a tree: it changes when one of these does."""
    return blake3(msgspec.msgpack.encode((tree.files, tree.directories, tree.links))).digest()


def examine(about: About, question: Question, *, progress: Progress = silent) -> Answer:
    """Hash every byte of a version, check every tensor and inspect the export; a dry run only inspects."""
    path = question.path
    try:
        tree = _tree(path, question.model)
        variables = read_variables(path, boundary=path)
        tensors = variables.tensors()
        manifest = Manifest(recipe=Recipe(), files=(), directories=())
        if not about.dry_run:
            watch = tensors.watch if tensors is not None else None
            manifest = hash_source(tree, progress=progress, watch=watch)
        inspection = inspect_export(path, boundary=path, variables=variables)
        checked = tensors.result() if tensors is not None and not about.dry_run else None
        damaged = checked.defects() if checked is not None else ()
        defects = (*inspection.defects, *damaged)
        refuse_defects(msgspec.structs.replace(inspection, defects=defects), path)
    except ServingRepoError as error:
        return Answer(left=_left_by(question, error))
    found = Examined(size=tree.size, seal=seal_of(tree))
    if about.dry_run:
        return Answer(found=found)
    # The graph that was inspected must be the one that was hashed.
    hashes = {file.path: file.hash for file in manifest.files}
    if hashes.get(inspection.file) != inspection.digest:
        graph = path / inspection.file
        return Answer(changed=f"{graph}: it changed between its hash and its inspection")
    record = new_record(
        question.model,
        question.number,
        txid=about.txid,
        by=about.by,
        time=question.time,
        message=about.message,
        source=Source(
            run=escaped(str(path)), export=escaped(str(path)), kind=ADOPTED, provenance=_age(tree)
        ),
        manifest=manifest,
        inspection=inspection,
        tensors=checked,
    )
    return Answer(found=msgspec.structs.replace(found, record=encode(record)))


def _tree(path: Path, model: str) -> SourceTree:
    """List the files of one version.

    Raises:
        UnsafeExport: It is a link or has links in it, or files that are no files.
        DamagedExport: It is no directory.
    """
    hint = f"servingrepo promote {path} --model {model} copies what links lead to"
    with storage_errors("read", path):
        if path.is_symlink():
            raise UnsafeExport(f"it is a link, to {path.readlink()}", hint=hint)
        if not path.is_dir():
            raise DamagedExport("it is no directory")
    tree = read_tree(path, boundary=path)
    if tree.links:
        raise UnsafeExport(f"it has links in it: {some(tree.links)}", hint=hint)
    return tree


def _left_by(question: Question, error: ServingRepoError) -> Left:
    """Return a version as left, by the error that it has."""
    said = [error.message, *([some(error.problems)] if error.problems else [])]
    reason = ": ".join(said) + (f"; {error.hint}" if error.hint else "")
    return Left(model=question.model, version=str(question.number), slug=error.slug, reason=reason)


def _age(tree: SourceTree) -> dict[str, str]:
    """Return when the newest file of a version was written, by its time on disk: rules of a prune go by that."""
    newest = max((file.mtime_ns for file in tree.files), default=0)
    return {"modified": datetime.fromtimestamp(newest / 1e9, UTC).isoformat(timespec="seconds")}


# On all cores ------------------------------------------------------------------------------------


def examine_all(
    about: About,
    questions: Iterable[Question],
    *,
    children: int,
    progress: Progress,
    took: Took,
) -> None:
    """Examine many versions, in this process and in children beside it, in no certain order.

    `took` gets each question with its answer, one at a time, from any thread. What it raises is raised here.
    """
    work = _Work(questions, took)

    def here(batch: list[Question]) -> Iterator[Answer]:
        return (examine(about, one, progress=progress) for one in batch)

    def beside(child: subprocess.Popen[bytes]) -> None:
        work.share(partial(_by_child, child, about, progress=progress, work=work), most=_BATCH)

    with ThreadPoolExecutor(max(children, 1)) as pool, ExitStack() as running:
        started = [running.enter_context(_child(about)) for _ in range(children)]
        others = [pool.submit(beside, child) for child in started if child is not None]
        running.callback(work.stopped.set)
        work.share(here, most=1)
        for other in others:
            other.result()


class _Work:
    """The versions that nobody has examined yet. Several threads take from it until one of them fails."""

    def __init__(self, questions: Iterable[Question], took: Took) -> None:
        self.stopped = threading.Event()
        self._left = iter(questions)
        self._took = took
        self._taking = threading.Lock()

    def share(self, ask: Ask, *, most: int) -> None:
        """Take at most so many versions at a time, until there are none."""
        try:
            while batch := self._next(most):
                for question, answer in zip(batch, ask(batch), strict=False):
                    with self._taking:
                        self._took(question, answer)
        except BaseException:
            self.stopped.set()
            raise

    def _next(self, most: int) -> list[Question]:
        with self._taking:
            return [] if self.stopped.is_set() else list(islice(self._left, most))


def _by_child(
    child: subprocess.Popen[bytes],
    about: About,
    batch: list[Question],
    *,
    progress: Progress,
    work: _Work,
) -> Iterator[Answer]:
    """Yield the answers of a child, and those of this process to what it leaves unanswered."""
    answers = _answers(child, batch)
    for question in batch:
        answer = next(answers, None)
        if answer is not None:
            progress(answer.found.size if answer.found is not None else 0)
        elif work.stopped.is_set():
            return
        yield answer or examine(about, question, progress=progress)


def children_for(versions: int) -> int:
    """Return how many children are worth their start for so many versions."""
    cores = len(os.sched_getaffinity(0))
    return min(cores - 1, _MOST_CHILDREN) if versions >= WORTH_A_CHILD else 0


@contextmanager
def _child(about: About) -> Iterator[subprocess.Popen[bytes] | None]:
    """Start a child that examines versions, for the block; None if none can be started."""
    import subprocess  # few adoptions need it

    command = [*python("servingrepo.repository.examination"), str(os.getpid())]
    try:
        child = subprocess.Popen(  # nosec B603 # our interpreter and this file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:  # no memory, or no interpreter, as in a program that embeds Python
        yield None
        return
    with child:
        try:
            with suppress(OSError):
                _send(cast("IO[bytes]", child.stdin), about)
            yield child
        finally:
            child.kill()
            with suppress(OSError):  # what it was not told any more
                cast("IO[bytes]", child.stdin).close()


def _answers(child: subprocess.Popen[bytes], batch: list[Question]) -> Iterator[Answer]:
    """Ask a child, and yield its answers as they come; fewer than there are questions if it dies."""
    with suppress(OSError, ValueError, msgspec.DecodeError):
        _send(cast("IO[bytes]", child.stdin), batch)
        for _ in batch:
            answer = _receive(cast("IO[bytes]", child.stdout), Answer)
            if answer is None:
                return
            yield answer


def _send(stream: IO[bytes], value: object) -> None:
    data = msgspec.msgpack.encode(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes], kind: type[T]) -> T | None:
    """Return the next value; None at the end of the stream."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    data = stream.read(*_LENGTH.unpack(length))
    return msgspec.msgpack.decode(data, type=kind)


def main() -> None:
    """Examine what stdin asks for until it ends, and write the answers to stdout."""
    die_with(int(sys.argv[1]))
    with open(0, "rb") as questions, open(1, "wb") as answers:
        about = _receive(questions, About)
        while about is not None and (batch := _receive(questions, list[Question])) is not None:
            for question in batch:
                _send(answers, examine(about, question))


if __name__ == "__main__":
    main()
