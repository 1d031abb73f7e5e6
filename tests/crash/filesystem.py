"""A file system that knows what is durable, and what a power loss may leave of the rest.

The rules are POSIX's, read as a careful writer must read them, and what ext4 and xfs really do is within them:

* The bytes, the size and the mode of a file are durable after fsync of that file. Before, each write, each
  truncation and each change of the mode may be lost by itself, and the last write may be torn: half of it, zeros
  in its place (a size that was written before its blocks), or its second half without its first.
* A name is durable after fsync of its directory: creation, removal and renaming alike. Before, what happened in one
  directory is kept in its order, up to any point; different directories know nothing of each other.
* A rename is atomic: of the two names there is one, from one directory to another too.
* A new file has the mode that the strictest umask gives it, until a chmod of it is durable.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.crash.tracing import Effect

Torn = Literal["half", "zeros", "second half"]
_UMASK = 0o077
_ROOT = 0


@dataclass(frozen=True)
class Step:
    """One effect as the file system keeps it: names that change, or bytes or the mode of one node."""

    number: int
    said: str
    names: tuple[tuple[int, str, int | None], ...] = ()
    node: int | None = None
    offset: int = 0
    data: bytes | None = None
    size: int | None = None
    mode: int | None = None
    synced: int | None = None

    @property
    def directories(self) -> set[int]:
        """The directories whose names it changes."""
        return {directory for directory, _, _ in self.names}


@dataclass(frozen=True)
class Node:
    """A file or a directory as it was made, or as it was durable before the command began."""

    is_directory: bool
    mode: int
    data: bytes = b""
    names: dict[str, int] = field(default_factory=dict)


Tree = dict[str, tuple[int, bytes | None]]
"""By path relative to the root: the mode, and the bytes; None for a directory."""


class Recording:
    """The steps of a command on a tree that was durable when it began."""

    def __init__(self, start: Path, effects: Iterable[Effect]) -> None:
        self.nodes: list[Node] = []
        self.steps: list[Step] = []
        self._take(start)
        self._now: dict[int, dict[str, int]] = {
            number: dict(node.names) for number, node in enumerate(self.nodes) if node.is_directory
        }
        self._sizes = {number: len(node.data) for number, node in enumerate(self.nodes)}
        for effect in effects:
            self._record(effect)

    def _take(self, path: Path) -> int:
        """Take a tree over as it lies there; return the number of its node."""
        mode = stat.S_IMODE(path.lstat().st_mode)
        number = len(self.nodes)
        if path.is_dir():
            node = Node(is_directory=True, mode=mode)
            self.nodes.append(node)
            node.names.update({one.name: self._take(one) for one in sorted(path.iterdir())})
        else:
            self.nodes.append(Node(is_directory=False, mode=mode, data=path.read_bytes()))
        return number

    def _record(self, effect: Effect) -> None:
        said = f"{effect.kind} {effect.path}" + (f" to {effect.other}" if effect.other else "")
        step = Step(len(self.steps), said)
        above, name = self._place(effect.path)
        node = self._now[above].get(name) if effect.path else _ROOT
        if effect.kind in {"create", "mkdir", "unlink", "rmdir", "rename"}:
            names = self._names(effect, above, name, node)
            step = replace(step, names=names)
        elif effect.kind == "sync":
            step = replace(step, synced=node)
        else:
            assert node is not None, said
            step = self._content(effect, node, step)
        for directory, entry, target in step.names:
            if target is None:
                self._now[directory].pop(entry)
            else:
                self._now[directory][entry] = target
        if step.names or step.node is not None or step.synced is not None:
            self.steps.append(step)

    def _names(
        self, effect: Effect, above: int, name: str, node: int | None
    ) -> tuple[tuple[int, str, int | None], ...]:
        """Return the names that an effect changes; none where what was to be created is there."""
        match effect.kind:
            case "rename":
                there, new_name = self._place(effect.other)
                assert not effect.other_is_new or new_name not in self._now[there], effect
                return ((above, name, None), (there, new_name, node))
            case "unlink" | "rmdir" if node is None:
                # Of a thread that was killed within a call strace does not say how the call ended.
                assert "/.staging/" in effect.path, effect
                return ()
            case "unlink" | "rmdir":
                return ((above, name, None),)
            case _ if node is not None:
                return ()
            case _:
                made = self._make(is_directory=effect.kind == "mkdir", mode=effect.number & ~_UMASK)
                return ((above, name, made),)

    def _content(self, effect: Effect, node: int, step: Step) -> Step:
        """Return the step with the bytes, the size or the mode that an effect changes."""
        if effect.kind == "chmod":
            return replace(step, node=node, mode=effect.number)
        if effect.kind == "truncate":
            if self._sizes[node] == effect.number:
                return step
            self._sizes[node] = effect.number
            return replace(step, node=node, size=effect.number)
        offset = self._sizes[node] if effect.number < 0 else effect.number
        self._sizes[node] = max(self._sizes[node], offset + len(effect.data))
        return replace(step, node=node, offset=offset, data=effect.data)

    def _make(self, *, is_directory: bool, mode: int) -> int:
        number = len(self.nodes)
        self.nodes.append(Node(is_directory=is_directory, mode=mode))
        self._sizes[number] = 0
        if is_directory:
            self._now[number] = {}
        return number

    def _place(self, path: str) -> tuple[int, str]:
        *above, name = path.split("/")
        node = _ROOT
        for one in above:
            node = self._now[node][one]
        return node, name

    def durable(self, until: int) -> set[int]:
        """Return the steps before `until` that no power loss can take back."""
        kept: set[int] = set()
        done = self.steps[:until]
        for sync in done:
            if sync.synced is not None:
                kept |= {
                    step.number
                    for step in done[: sync.number]
                    if step.node == sync.synced or sync.synced in step.directories
                }
        return self.closed(kept, until)

    def closed(self, kept: Iterable[int], until: int) -> set[int]:
        """Add the steps without which those cannot have been kept: what their directories did before."""
        closed = set(kept)
        while True:
            last: dict[int, int] = {}
            for number in closed:
                for directory in self.steps[number].directories:
                    last[directory] = max(last.get(directory, -1), number)
            more = {
                step.number
                for step in self.steps[:until]
                if any(step.number < last.get(one, -1) for one in step.directories)
            } - closed
            if not more:
                return closed
            closed |= more

    def without(self, lost: int, until: int) -> set[int]:
        """Return all steps before `until` but one, and what cannot have been kept without it."""
        gone = {lost}
        for step in self.steps[lost + 1 : until]:
            touched = {one for number in gone for one in self.steps[number].directories}
            if step.directories & touched:
                gone.add(step.number)
        return set(range(until)) - gone

    def tree(
        self, kept: Iterable[int], *, torn: int | None = None, how: Torn = "half"
    ) -> dict[str, tuple[int, bytes | None]]:
        """Return what lies there when the steps that were kept are all that happened."""
        names = {number: dict(node.names) for number, node in enumerate(self.nodes)}
        data: dict[int, bytearray] = {}
        modes: dict[int, int] = {}
        for number in sorted(kept):
            step = self.steps[number]
            for directory, name, target in step.names:
                if target is None:
                    names[directory].pop(name, None)
                else:
                    names[directory][name] = target
            if step.node is None:
                continue
            if step.mode is not None:
                modes[step.node] = step.mode
                continue
            body = data.setdefault(step.node, bytearray(self.nodes[step.node].data))
            if step.size is not None:
                del body[step.size :]
                body.extend(bytes(step.size - len(body)))
            elif step.data is not None:
                written = _tear(step.data, how) if number == torn else step.data
                body.extend(bytes(max(0, step.offset - len(body))))
                body[step.offset : step.offset + len(written)] = written
        found: Tree = {}
        self._walk(_ROOT, "", names, data, modes, found)
        return found

    def _walk(
        self,
        node: int,
        path: str,
        names: dict[int, dict[str, int]],
        data: dict[int, bytearray],
        modes: dict[int, int],
        found: Tree,
    ) -> None:
        here = self.nodes[node]
        mode = modes.get(node, here.mode)
        if not here.is_directory:
            found[path] = (mode, bytes(data.get(node, here.data)))
            return
        found[path] = (mode, None)
        for name, child in names[node].items():
            self._walk(child, f"{path}/{name}" if path else name, names, data, modes, found)


def _tear(data: bytes, how: Torn) -> bytes:
    middle = len(data) // 2
    match how:
        case "half":
            return data[:middle]
        case "zeros":
            return bytes(len(data))
        case "second half":
            return bytes(middle) + data[middle:]


def write_tree(tree: Tree, root: Path) -> None:
    """Put a tree on a real disk."""
    for path, (mode, data) in tree.items():
        place = root / path if path else root
        if data is None:
            place.mkdir()
        else:
            place.write_bytes(data)
        place.chmod(mode)


def read_back(root: Path) -> Tree:
    """Read a tree from a real disk, to compare."""
    found: Tree = {"": (stat.S_IMODE(root.stat().st_mode), None)}
    for path in root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        data = None if path.is_dir() else path.read_bytes()
        found[path.relative_to(root).as_posix()] = (mode, data)
    return found


WHOLE = ("all that was not synced is lost", "nothing is lost")
"""The two states that have no single step to blame."""


def states_after(recording: Recording, until: int) -> Sequence[tuple[str, Tree]]:
    """Return what a power loss after so many steps may leave, each with a line that says what was lost.

    All pending steps lost; none; each single one lost, with what hangs on it; each single one kept. The last write
    of each file that was not synced, torn in three ways, beside all that was written and beside nothing else.
    """
    done = set(range(until))
    safe = recording.durable(until)
    pending = [
        one.number
        for one in recording.steps[:until]
        if one.number not in safe and one.synced is None
    ]
    found = [(WHOLE[0], recording.tree(safe))]
    if pending:
        found.append((WHOLE[1], recording.tree(done)))
    for one in pending:
        said = recording.steps[one].said
        found.append((f"lost: {said}", recording.tree(recording.without(one, until))))
        found.append((f"kept alone: {said}", recording.tree(recording.closed({*safe, one}, until))))
    writes = {
        recording.steps[one].node: one for one in pending if recording.steps[one].data is not None
    }
    for one in writes.values():
        said = recording.steps[one].said
        named = {step.number for step in recording.steps[:until] if step.names} | safe
        for how in ("half", "zeros", "second half"):
            found.append((f"torn, {how}: {said}", recording.tree(done, torn=one, how=how)))
            found.append(
                (f"torn, {how}, alone: {said}", recording.tree({*named, one}, torn=one, how=how))
            )
    return found
