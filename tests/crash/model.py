"""The model in memory that machine.py holds random sequences of commands against.

A new command joins with a strategy in OPERATIONS: the arguments, and a function from the world before to the exit
code and the world after. What a fault can leave besides before and after goes into `halves`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CONTENTS = ("first", "second", "third", "fourth", "new")
MODELS = ("m", "m", "m", "n")
"""`n` is there to begin with nothing; what begins with something gets farther."""

LABELS = ("stable", "canary")
OK, USAGE, NO_SUCH, BAD, NOTHING = 0, 2, 32, 34, 38


class Model(msgspec.Struct, frozen=True):
    """What a model is.

    `versions` and `trash` say the content of each version by name, `bad` that of each bad one, which is refused
    even when the version is deleted. `labelled` is what ever had a label; `served` what unlabelled clients got.
    """

    versions: dict[int, str] = {}
    trash: dict[int, str] = {}
    bad: dict[int, str] = {}
    labels: dict[str, int] = {}
    labelled: frozenset[tuple[str, int]] = frozenset()
    held: bool = False
    pinned: int | None = None
    served: tuple[int, ...] = ()
    highest: int = 0

    def pin(self, version: int | None) -> Model:
        """Serve a version, or none: no label keeps a higher one loaded, and none outlives the entry."""
        served = self.served
        for one in (self.pinned, version):
            if one is not None and (not served or served[-1] != one):
                served = (*served, one)
        labels = (
            {} if version is None else {name: min(at, version) for name, at in self.labels.items()}
        )
        return msgspec.structs.replace(self, pinned=version, served=served).label(labels)

    def label(self, labels: dict[str, int]) -> Model:
        """Have these labels and no others."""
        return msgspec.structs.replace(
            self, labels=labels, labelled=self.labelled | {*labels.items()}
        )

    def throw(self, version: int) -> Model:
        """Move a version to the trash."""
        versions = _without(self.versions, version)
        trash = {**self.trash, version: self.versions[version]}
        return msgspec.structs.replace(self, versions=versions, trash=trash)

    def delete(self, version: int) -> Model:
        """Delete a version for good."""
        return msgspec.structs.replace(self, trash=_without(self.trash, version))

    def publish(self, content: str) -> Model:
        """Publish content as the next version."""
        number = self.highest + 1
        versions = {**self.versions, number: content}
        return msgspec.structs.replace(self, versions=versions, highest=number)

    @property
    def previous(self) -> int | None:
        """Where a rollback goes: the version served before this one that is there and good."""
        served = list(self.served)
        if self.pinned in served:
            while served[-1] != self.pinned:
                served.pop()
        good = self.versions.keys() - self.bad.keys() - {self.pinned}
        return next((one for one in reversed(served) if one in good), None)


World = dict[str, Model]
Step = tuple[int, World]
Selector = int | str
"""A version's number, or `latest`, `previous` or `label:…`."""


class Operation(msgspec.Struct, frozen=True):
    """One command: its arguments, what it does to a world, and what a fault can leave half done."""

    arguments: tuple[str, ...]
    step: Callable[[World], Step]
    halves: Callable[[World], list[World]] = lambda _: []

    @property
    def command(self) -> str:
        """The command's name, without its arguments."""
        return command_of(self.arguments)


def command_of(arguments: tuple[str, ...]) -> str:
    """Return the name of the command that arguments call."""
    return " ".join(arguments[:2]) if arguments[0] == "label" else arguments[0]


def _without(versions: dict[int, str], version: int) -> dict[int, str]:
    return {one: content for one, content in versions.items() if one != version}


def _changed(world: World, name: str, **changes: object) -> World:
    return {**world, name: msgspec.structs.replace(world[name], **changes)}


def _select(model: Model, selector: Selector) -> tuple[int, int]:
    """Return an exit code and the version that a selector means."""
    code, found = NO_SUCH, None
    if isinstance(selector, int):
        found = selector
    elif selector == "latest":
        found = max(model.versions.keys() - model.bad.keys(), default=None)
    elif selector == "previous":
        code, found = NOTHING, model.previous
    else:
        found = model.labels.get(selector.removeprefix("label:"))
    return (OK, found) if found is not None else (code, 0)


def _servable(model: Model, version: int) -> int:
    """Return the exit code of a command that wants to serve a version."""
    if version in model.bad:
        return BAD
    return OK if version in model.versions else NO_SUCH


def promote(name: str, content: str, serve: bool | None) -> Operation:
    def step(world: World) -> Step:
        model = world.get(name, Model())
        if content in model.bad.values():
            return BAD, world
        same = max((one for one, has in model.versions.items() if has == content), default=None)
        if same is not None:
            unfinished = serve is None and same > (model.pinned or 0) and same not in model.served
            wanted = not model.held and (serve or unfinished)
            return OK, {**world, name: model.pin(same)} if wanted else world
        after = model.publish(content)
        serve_it = serve is not False and not model.held
        return OK, {**world, name: after.pin(after.highest) if serve_it else after}

    def halves(world: World) -> list[World]:
        """The number is burnt, or the version is published and not served."""
        model = world.get(name, Model())
        burnt = msgspec.structs.replace(model, highest=model.highest + 1)
        code, after = step(world)
        if code != OK or len(after.get(name, Model()).versions) == len(model.versions):
            return []
        return [{**world, name: burnt}, {**world, name: model.publish(content)}]

    options = {None: (), True: ("--serve",), False: ("--no-serve",)}[serve]
    arguments = ("promote", f"{{runs}}/{content}", "--model", name, "--no-smoke", *options)
    return Operation(arguments, step, halves)


def rollback(name: str, to: Selector | None, mark: bool) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        code, target = _select(model, "previous" if to is None else to)
        if code != OK:
            return code, world
        if target == model.pinned:
            return NOTHING, world
        code = _servable(model, target)
        if code != OK:
            return code, world
        # Labels of the version that is left move along; `pin` brings down those above the target.
        labels = {label: target if at == model.pinned else at for label, at in model.labels.items()}
        bad = model.bad
        if mark and model.pinned is not None:
            bad = {**bad, model.pinned: bad.get(model.pinned, model.versions[model.pinned])}
        moved = msgspec.structs.replace(model, labels=labels, bad=bad)
        return OK, {**world, name: moved.pin(target)}

    where = () if to is None else ("--to", str(to))
    options = () if mark else ("--no-mark-bad",)
    return Operation(("rollback", name, *where, *options), step)


def serve(name: str, selector: Selector) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        code, version = _select(world[name], selector)
        code = code or _servable(world[name], version)
        return (code, {**world, name: world[name].pin(version)} if code == OK else world)

    return Operation(("serve", f"{name}@{selector}"), step)


def unserve(name: str) -> Operation:
    def step(world: World) -> Step:
        return (OK, {**world, name: world[name].pin(None)}) if name in world else (NO_SUCH, world)

    return Operation(("unserve", name), step)


def label_set(name: str, selector: Selector, label: str, serve: bool) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        code, version = _select(model, selector)
        code = code or _servable(model, version)
        if code != OK:
            return code, world
        if not serve and (model.pinned is None or version > model.pinned):
            return USAGE, world
        labelled = model.pin(max(version, model.pinned or version))
        return OK, {**world, name: labelled.label({**labelled.labels, label: version})}

    options = ("--serve",) if serve else ()
    return Operation(("label", "set", f"{name}@{selector}", label, *options), step)


def label_remove(name: str, label: str) -> Operation:
    def step(world: World) -> Step:
        if name not in world or label not in world[name].labels:
            return NO_SUCH, world
        labels = {other: at for other, at in world[name].labels.items() if other != label}
        return OK, {**world, name: world[name].label(labels)}

    return Operation(("label", "remove", name, label), step)


def hold(name: str, held: bool) -> Operation:
    def step(world: World) -> Step:
        return (OK, _changed(world, name, held=held)) if name in world else (NO_SUCH, world)

    return Operation(("hold" if held else "release-hold", name), step)


def mark_bad(name: str, version: int, clear: bool) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        if clear:
            bad = _without(model.bad, version)
            return (OK if version in model.bad else NO_SUCH, _changed(world, name, bad=bad))
        known = {**model.trash, **model.versions}
        if version not in known:
            return NO_SUCH, world
        return OK, _changed(world, name, bad={**model.bad, version: known[version]})

    options = ("--clear",) if clear else ()
    return Operation(("mark-bad", f"{name}@{version}", *options), step)


def prune(name: str, last: int, label: str | None, empty: bool) -> Operation:
    """Prune by rules, if there is one, and empty the trash, if told so."""

    def moves(world: World) -> list[World]:
        """Each world on the way: versions go one after the other, the lowest first."""
        model, found = world[name], []
        for version in going(model):
            model = model.throw(version)
            found.append({**world, name: model})
        for version in sorted(model.trash) if empty else ():
            model = model.delete(version)
            found.append({**world, name: model})
        return found

    def going(model: Model) -> list[int]:
        if model.held or not (last or label):
            return []
        good = sorted(model.versions.keys() - model.bad.keys())
        kept = {
            model.pinned,
            model.previous,
            *model.labels.values(),
            *(good[-last:] if last else ()),
        }
        kept |= {at for had, at in model.labelled if had == label}
        return sorted(model.versions.keys() - kept)

    def step(world: World) -> Step:
        return (OK, [world, *moves(world)][-1]) if name in world else (NO_SUCH, world)

    def halves(world: World) -> list[World]:
        return moves(world) if name in world else []

    options = (
        *(("--keep-last", str(last)) if last else ()),
        *(("--keep-labelled", label) if label else ()),
        *(("--empty-trash",) if empty else ()),
    )
    return Operation(("prune", name, *options), step, halves)


def restore(name: str, version: int) -> Operation:
    def step(world: World) -> Step:
        if name not in world or version not in world[name].trash:
            return NO_SUCH, world
        model = world[name]
        versions = {**model.versions, version: model.trash[version]}
        trash = _without(model.trash, version)
        return OK, _changed(world, name, versions=versions, trash=trash)

    return Operation(("restore", f"{name}@{version}"), step)


def recover() -> Operation:
    return Operation(("recover",), lambda world: (OK, world))


_names = st.sampled_from(MODELS)
_versions = st.sampled_from([1, 2, 3, 4, 5])
_labels = st.sampled_from(LABELS)
_selectors = st.sampled_from([1, 2, 3, 4, "latest", "previous", "label:stable"])
OPERATIONS: dict[str, SearchStrategy[Operation]] = {
    "promote": st.builds(
        promote, _names, st.sampled_from(CONTENTS), st.sampled_from([None, True, False])
    ),
    "rollback": st.builds(rollback, _names, st.none(), st.booleans()),
    "rollback --to": st.builds(rollback, _names, _selectors, st.booleans()),
    "serve": st.builds(serve, _names, _selectors),
    "unserve": st.builds(unserve, _names),
    "label set": st.builds(label_set, _names, _selectors, _labels, st.booleans()),
    "label remove": st.builds(label_remove, _names, _labels),
    "hold": st.builds(hold, _names, st.booleans()),
    "mark-bad": st.builds(mark_bad, _names, _versions, st.booleans()),
    "prune": st.builds(
        prune, _names, st.sampled_from([1, 2]), st.sampled_from([None, "stable"]), st.booleans()
    ),
    "prune --keep-labelled": st.builds(prune, _names, st.just(0), _labels, st.just(False)),
    "prune --empty-trash": st.builds(prune, _names, st.just(0), st.none(), st.just(True)),
    "restore": st.builds(restore, _names, _versions),
    "recover": st.builds(recover),
}
