"""Entries of configs against directories: what `config check` finds, with commands and text for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.modelconfig import Entry, check
from servingrepo.modelconfig.disk import check_disk, wanted_versions
from servingrepo.modelconfig.paths import PLATFORM
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT
from servingrepo.texts import plural
from servingrepo.verbs.doctor_exports import Version
from servingrepo.verbs.doctor_rules import found
from servingrepo.verbs.doctor_starts import is_known
from servingrepo.verbs.doctor_tree import fix_for_child, fix_for_flat, judge_base, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.modelconfig import Finding as ConfigFinding
    from servingrepo.verbs.doctor_rules import Finding
    from servingrepo.verbs.doctor_starts import Seen, Start
    from servingrepo.verbs.doctor_tree import Base, Tree

__all__ = ["entry_of", "every_base", "judge_bases", "judge_config", "versions_of"]

_FROM_DISK = frozenset(
    {"base-path-missing", "base-path-empty", "flat-saved-model", "same-number", "cannot-load"}
)
"""Rules of `config check` that are about a directory."""
_WITH_FIELD = frozenset({"base-path-refused", "platform-unsupported"})
"""Rules whose findings need the field before them, to be a sentence."""


def every_base(tree: Tree, seen: Sequence[Seen]) -> list[Base]:
    """Return all base paths, those that only a config names too."""
    every = {one.path: one for one in tree.bases}
    every |= {one.base.path: one.base for one in seen if one.base is not None}
    return list(every.values())


def entry_of(base: Base) -> Entry:
    """Return the entry that a server without a config has for a directory."""
    return Entry(
        name=base.name,
        base_path=base.path,
        platform=PLATFORM,
        policy="default",
        latest_count=1,
    )


def versions_of(
    bases: Sequence[Base], seen: Sequence[Seen], starts: Sequence[Start]
) -> list[Version]:
    """Return every version on disk, and whether the next start would load it or a label names it."""
    entries: dict[str, list[Entry]] = {}
    for one in seen:
        if one.base is not None:
            entries.setdefault(one.base.path, []).append(one.entry)
    found_: list[Version] = []
    for base in bases:
        about = entries.get(base.path) or ([] if is_known(starts) else [entry_of(base)])
        numbers = sorted({one.version for one in base.versions if one.version is not None})
        wanted = {
            number
            for entry in about
            for number in (*wanted_versions(entry, numbers), *entry.labels.values())
        }
        model = about[0].name if about else base.name
        found_ += [
            Version(model=model, base=base, child=one, wanted=one.version in wanted)
            for one in base.versions
        ]
    return found_


def judge_config(start: Start, seen: Sequence[Seen]) -> Iterator[Finding]:
    """Yield what `config check` finds, with the commands of this machine."""
    if start.config is None:
        return
    mine = [one for one in seen if one.start is start]
    facts = {one.entry.base_path: known for one in mine if (known := one.facts) is not None}
    bases = {one.entry.name: one.base for one in mine}
    entries = {one.name: one for one in start.entries}
    places = {one.entry.name: one.place for one in mine}
    for one in check(start.config, disk=facts):
        if one.slug != "not-looked-at":
            base = bases.get(one.model)
            where: object = start.config_path or start.service
            if one.slug in _FROM_DISK and base is not None:
                where = Path(base.path) / one.child
            yield found(
                one.slug,
                _said(one),
                _fix_of(one, entries.get(one.model), base, place=places.get(one.model, "")),
                model=one.model,
                path=where,
                so=one.consequence,
                severity=one.severity,
            )


def _said(one: ConfigFinding) -> str:
    """Return what `config check` found, as a sentence of its own."""
    if one.slug == "serves-at-once":
        return f"the entry has {one.what}"
    named = one.what.startswith("is ") or one.slug in _WITH_FIELD
    return f"{one.field} {one.what}" if named else one.what


def _fix_of(one: ConfigFinding, entry: Entry | None, base: Base | None, *, place: str = "") -> str:
    """Return the command or text that corrects what `config check` found; `place` is the base path here."""
    if one.slug == "base-path-missing" and place:
        return f"put a version there, such as {quoted(f'{place}/1')}; or take the model out"
    if base is None or entry is None:
        return one.hint
    if one.slug == "flat-saved-model":
        return fix_for_flat(base)
    if one.child:
        child = next(each for each in base.children if each.name == one.child)
        return fix_for_child(child, Path(base.path) / child.name)
    whole = sorted({each.version or 0 for each in base.versions if each.kind == "saved-model"})
    if one.slug == "serves-at-once" and whole:
        return f"write {_pins(wanted_versions(entry, whole))}"
    if one.slug == "version-missing" and whole:
        return f"write versions: {whole[-1]}; {one.hint}"
    return one.hint


def _pins(numbers: Sequence[int]) -> str:
    """Return the text that pins versions."""
    versions = " ".join(f"versions: {number}" for number in numbers[-20:])
    return f"model_version_policy {{ specific {{ {versions} }} }}"


def judge_bases(
    bases: Sequence[Base], seen: Sequence[Seen], starts: Sequence[Start]
) -> Iterator[Finding]:
    """Yield what is wrong with directories, and with those that no config names."""
    names: dict[str, str] = {one.base.path: one.entry.name for one in seen if one.base is not None}
    for base in bases:
        yield from judge_base(base, name=names.get(base.path, base.name))
        if base.path in names or base.problem or base.link:
            continue
        if not is_known(starts):
            entry = entry_of(base)
            for one in check_disk(entry, base.facts(mounted_alone=False)):
                yield found(
                    one.slug,
                    one.what,
                    _fix_of(one, entry, base),
                    model=base.name,
                    path=Path(base.path) / one.child,
                    so=one.consequence,
                    severity="warning" if one.slug == "base-path-empty" else one.severity,
                )
        else:
            yield _not_in_config(base)


def _not_in_config(base: Base) -> Finding:
    """Return the note of a directory that no entry names, with the entry to write."""
    whole = [one.version or 0 for one in base.versions if one.kind == "saved-model"]
    there = plural(len(base.versions), "version", "versions")
    if base.flat and not base.versions:
        there = "a SavedModel lies directly in it, without a version's directory"
    name = base.name.rpartition("/")[2]
    fix = ""
    if whole or base.flat:
        place = f"{DEFAULT_SERVER_ROOT}/{base.name}"
        pins = _pins(whole[-1:] or [1])
        fix = (
            f'add, if it is meant to be served: config {{ name: "{name}" base_path: "{place}" '
            f'model_platform: "{PLATFORM}" {pins} }}'
        )
    if base.flat and not base.versions:
        fix = f"{fix_for_flat(base)}; then {fix}"
    return found(
        "not-in-config",
        f"no entry has this directory ({there})",
        fix,
        model=base.name,
        path=base.path,
    )
