"""The exports of a tree as `doctor` inspects them: what the next start would load, and what it would not.

What is wrong with an export is found by `servingrepo.savedmodel`, as for `promote` and `verify`. This file says
what a server does with it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    DamagedExport,
    NoSavedModel,
    ServingRepoError,
    UnsafeExport,
    UnsupportedExport,
)
from servingrepo.modelconfig.disk import why_not_loaded
from servingrepo.repository.verification import verify_path
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.reading import files_of
from servingrepo.savedmodel.server_fit import fit_server
from servingrepo.servers.engines.server_versions import too_new
from servingrepo.storage.tree import read_tree
from servingrepo.texts import some
from servingrepo.verbs.doctor_rules import Finding, found
from servingrepo.verbs.doctor_tree import (
    Base,
    Child,
    closed_on_the_way,
    fix_by_moving,
    fix_for_child,
    link_out_below,
    quoted,
    said_closed,
    unreadable_by,
    without_links,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import Defect
    from servingrepo.storage.progress import Progress
    from servingrepo.verbs.doctor_compose import Service

__all__ = ["Examined", "Version", "examine"]

MOST_SERVED = 2_000
MOST_OTHERS = 200
LARGEST_GRAPH = 512 << 20
"""Bytes of a graph that is inspected; a larger one takes memory that a look at a tree should not take."""

LARGEST_TEXT = 16 << 20
"""The same for a graph in text form, which takes longer to read."""

_KINDS: dict[str, type[ServingRepoError]] = {
    "missing": NoSavedModel,
    "damaged": DamagedExport,
    "unsupported": UnsupportedExport,
    "unsafe": UnsafeExport,
}
_ANSWERS_NOT = {"variables-missing", "no-signature", "composite-tensor", "sparse-tensor"}
"""Defects with which a version loads, and some or all of its requests fail (tensorflow/cc/saved_model/loader.cc)."""

_FOR_GPUS = {"gpu-pinned", "tensorrt"}
"""Defects of an export that a server on GPUs may well load."""
_ON_CPUS = "a server on CPUs ends with 255 at its next start; whether one on GPUs loads it is not known here"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version on disk, with the model that it is of, and whether the next start of a server would load it."""

    model: str
    base: Base
    child: Child
    wanted: bool

    @property
    def path(self) -> Path:
        """Its directory."""
        return Path(self.base.path) / self.child.name

    def __str__(self) -> str:
        """Return its reference."""
        return f"{self.model}@{self.child.version}"


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the exports, and what was not checked."""

    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]


def examine(
    versions: Sequence[Version],
    services: Sequence[Service],
    *,
    deep: bool,
    sizes: Progress | None = None,
    progress: Progress | None = None,
) -> Examined:
    """Inspect exports: first those that the next start would load, then the others, the highest numbers first.

    Args:
        versions: All versions.
        services: How servers are started, as far as it is known.
        deep: Read every byte, and compare it with the checksums that the export has itself.
        sizes: Called with the bytes that `deep` will read.
        progress: Called with the bytes of each file that was read to its end.
    """
    highest = sorted(versions, key=lambda one: one.child.version or 0, reverse=True)
    wanted = [one for one in highest if one.wanted]
    others = [one for one in highest if not one.wanted]
    chosen = [*wanted, *others] if deep else [*wanted[:MOST_SERVED], *others[:MOST_OTHERS]]
    whole = [one for one in chosen if one.child.kind == "saved-model"]
    if deep and sizes is not None:
        sizes(sum(map(_size, whole)))
    looked = [_look(one, services, deep=deep, progress=progress) for one in whole]
    uncovered = sum(not one.covered for one in looked)
    not_checked = [one.too_large for one in looked if one.too_large]
    if len(chosen) < len(versions):
        not_checked.append(
            f"{len(versions) - len(chosen):,} versions: whether they have a saved_model.pb was looked at, and "
            "no more (--deep inspects all)"
        )
    behind = [str(one.path) for one in versions if one.child.kind == "link-out"]
    behind += [one.linked for one in looked if one.linked]
    if behind:
        not_checked.append(f"what links out of the tree lead to: {some(behind)}")
    for_gpus = [one.for_gpus for one in looked if one.for_gpus]
    if for_gpus:
        not_checked.append(f"operations that are pinned to GPUs: {some(for_gpus)}")
    if whole and not deep:
        not_checked.append("the bytes of variables and assets (--deep reads and compares them)")
    if uncovered:
        not_checked.append(
            f"some bytes of {uncovered:,} exports: no checksum covers them (servingrepo verify PATH lists them)"
        )
    findings = [
        *(each for one in looked for each in one.findings),
        *(each for one in versions for each in _unloadable(one)),
        *_closed_to(services, [one for one in wanted if one.child.real]),
    ]
    return Examined(findings=tuple(findings), not_checked=tuple(not_checked))


class _Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one export; `covered` says that checksums cover all bytes that were read."""

    findings: tuple[Finding, ...] = ()
    too_large: str = ""
    linked: str = ""
    for_gpus: str = ""
    covered: bool = True


def _look(
    one: Version, services: Sequence[Service], *, deep: bool, progress: Progress | None
) -> _Looked:
    """Inspect one export."""
    large = _too_large(one)
    if large:
        return _Looked(too_large=large)
    boundary, path = Path(one.base.boundary), Path(one.child.real)
    out = link_out_below(one.child.real, one.base.boundary)
    if out is not None:
        return _Looked(
            findings=tuple(_linked(one, *out, mounted_alone=bool(services))), linked=out[0]
        )
    try:
        found = verify_path(path, boundary=boundary, progress=progress) if deep else None
    except ServingRepoError as error:
        return _Looked(findings=(_unsafe(one, error),))
    inspection = inspect_export(path, boundary=boundary) if found is None else found.inspection
    tensors = found.tensors if found is not None else None
    defects = [*inspection.defects, *(tensors.defects() if tensors is not None else ())]
    fits = (each for service in services for each in _fit(one, inspection, service))
    return _Looked(
        findings=(*_defects(one, defects, services), *(fits if one.wanted else ())),
        covered=found is None or not found.not_checked,
        for_gpus=str(one.path)
        if _has_gpus(services) and any(each.slug in _FOR_GPUS for each in defects)
        else "",
    )


def _size(one: Version) -> int:
    """Return the bytes of an export; 0 if it cannot be read as a whole."""
    with suppress(ServingRepoError):
        return read_tree(Path(one.child.real), boundary=Path(one.base.boundary)).size
    return 0


def _too_large(one: Version) -> str:
    """Say that a graph is too large to be read here; empty if it is not."""
    files = files_of(one.path, boundary=Path(one.base.boundary))
    for name, most in (("saved_model.pb", LARGEST_GRAPH), ("saved_model.pbtxt", LARGEST_TEXT)):
        size = files.size(name) or 0
        if size > most:
            return f"{one.path}: {name} has {size:,} bytes (servingrepo verify {quoted(one.path)} reads it)"
    return ""


def _linked(one: Version, path: str, target: str, *, mounted_alone: bool) -> Iterator[Finding]:
    """Yield that a file of an export is a link out of the tree: a container that mounts the tree alone lacks it."""
    yield found(
        "link-out",
        f"it is a link to {target}, which was not followed",
        without_links(Path(path), target),
        model=one.model,
        path=path,
    )
    if mounted_alone:
        yield found(
            "cannot-load" if one.wanted else "unserved-damaged",
            f"version {one.child.version}: {path} is a link out of the directory that servers mount",
            without_links(Path(path), target),
            model=one.model,
            path=one.path,
        )


def _unsafe(one: Version, error: ServingRepoError) -> Finding:
    """Return the finding of an export that could not be read whole."""
    slug = "unsafe-file" if isinstance(error, UnsafeExport) else "unreadable"
    what = "; ".join((error.message, *error.problems[:3]))
    return found(slug, what, error.hint or "", model=one.model, path=one.path)


def _unloadable(one: Version) -> Iterator[Finding]:
    """Yield why a version that nothing serves is none; `check_disk` says it of one that is served."""
    why = why_not_loaded(one.child.kind)
    if one.wanted or not why or one.child.kind == "link-out":
        return
    yield found(
        "unserved-damaged",
        f"version {one.child.version} {why}",
        fix_for_child(one.child, one.path),
        model=one.model,
        path=one.path,
    )


def _defects(
    one: Version, defects: Iterable[Defect], services: Sequence[Service]
) -> Iterator[Finding]:
    """Yield a finding for each defect, by what a server does with it."""
    for defect in defects:
        if defect.slug in _FOR_GPUS and _has_gpus(services):
            continue  # made for that server
        slug = "cannot-load"
        if not one.wanted:
            slug = "unserved-damaged"
        elif defect.slug == "warm-up":
            slug = "warm-up-fails"
        elif defect.slug in _ANSWERS_NOT:
            slug = "requests-fail"
        elif defect.slug in {"fingerprint", "tensor-damaged"}:
            slug = "content-changed"
        yield found(
            slug,
            f"version {one.child.version}: {defect.message}",
            _fix(one, defect),
            model=one.model,
            path=one.path,
            so=_ON_CPUS if one.wanted and defect.slug in _FOR_GPUS else "",
            defect=defect.slug,
            error=_KINDS.get(defect.kind),
        )


def _has_gpus(services: Sequence[Service]) -> bool:
    return any("gpu" in one.image for one in services)


def _fix(one: Version, defect: Defect) -> str:
    if defect.slug == "warm-up":
        file = one.path / "assets.extra" / "tf_serving_warmup_requests"
        return f"mv {quoted(file)} {quoted(f'{file}.broken')}; or write the file anew"
    if not one.wanted:
        return f"{fix_by_moving(one.path)}; or {defect.hint}"
    lower = [each for each in one.base.versions if (each.version or 0) < (one.child.version or 0)]
    whole = next((each for each in reversed(lower) if each.kind == "saved-model"), None)
    if whole is None:
        return f"{defect.hint}, under a higher number"
    return f"pin version {whole.version} if it is whole; {defect.hint}, under a higher number"


def _fit(one: Version, inspection: Inspection, service: Service) -> Iterator[Finding]:
    """Yield whether the server of a service is older than an export, or lacks what it needs."""
    expected = service.expected
    if expected.version is None or inspection.demands is None:
        return
    problems = fit_server(inspection.demands, expected.version).problems
    if problems and expected.certain:
        yield found(
            "server-lacks-operations",
            f"version {one.child.version}: {'; '.join(problems)}",
            model=one.model,
            path=one.path,
        )
        return
    note = too_new(inspection.tensorflow_version, expected.version)
    if note:
        yield found(
            "export-newer",
            f"version {one.child.version}: {note}",
            f"use an image of TensorFlow Serving {inspection.tensorflow_version} or newer, not {service.image}",
            model=one.model,
            path=one.path,
        )


def _closed_to(services: Sequence[Service], wanted: Sequence[Version]) -> Iterator[Finding]:
    """Yield what the user of a container cannot read of the versions that it would load, once for each model."""
    for user in dict.fromkeys(one.user for one in services if one.user is not None):
        said: set[str] = set()
        for one in wanted:
            boundary = one.base.boundary
            closed = closed_on_the_way(user, Path(one.child.real), boundary=boundary)
            closed = closed or unreadable_by(user, Path(one.child.real), boundary=boundary)
            if not closed or one.model in said:
                continue
            said.add(one.model)
            yield found(
                "not-readable-by-server",
                f"uid {user[0]}, gid {user[1]} of the container cannot read {said_closed(closed)}",
                f"chmod -R a+rX {quoted(closed[0] if len(closed) == 1 else one.base.path)}",
                model=one.model,
                path=closed[0],
            )
