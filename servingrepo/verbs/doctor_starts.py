"""How servers start, as far as `doctor` knows it: the service, the config, and the directories that they see."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig import Entry, ModelConfig, decode, how_to_write, models, parse
from servingrepo.modelconfig.disk import DiskFacts
from servingrepo.modelconfig.names import CONFIG_FILE
from servingrepo.modelconfig.paths import LABELS_FLAG, PLATFORM
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT
from servingrepo.runs.mounts import bucket_mount
from servingrepo.savedmodel.reading import Unreadable, files_of, read_bounded
from servingrepo.storage.beneath import holds
from servingrepo.texts import some
from servingrepo.verbs.doctor_compose import (
    Mount,
    Service,
    judge_service,
    labels_allowed,
    local_path,
)
from servingrepo.verbs.doctor_rules import Finding, found
from servingrepo.verbs.doctor_tree import Base, read_base

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.verbs.doctor_tree import Tree
    from servingrepo.verbs.options import DoctorOptions

__all__ = ["Seen", "Start", "is_known", "judge_start", "located", "read_starts"]

_LARGEST_CONFIG = 16 << 20


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How one server starts, as far as it is known: its service, its config, and what it sees of this machine."""

    service: Service | None = None
    config: ModelConfig | None = None
    config_path: str = ""
    mounts: tuple[Mount, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the server is told to serve."""
        return models(self.config) if self.config is not None else ()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with the directory that its base path leads to; None if that was not looked at."""

    entry: Entry
    base: Base | None
    start: Start
    place: str = ""
    there: bool = True

    @property
    def facts(self) -> DiskFacts | None:
        """What is at its base path, as the server sees it; None if that is not known."""
        if self.base is None:
            return None if self.there else DiskFacts(exists=False)
        return self.base.facts(mounted_alone=self.start.service is not None)


def is_known(starts: Sequence[Start]) -> bool:
    """Tell whether it is known what servers are told to serve."""
    return any(one.config is not None for one in starts)


def read_starts(
    place: Path, services: Sequence[Service], options: DoctorOptions, repo: Repository | None
) -> list[Start]:
    """Return how each server starts; one start of which little is known if no service says it."""
    if services:
        return [_start_of(service, options) for service in services]
    file = options.config_file or place / CONFIG_FILE
    if not os.path.lexists(file):
        return [Start(mounts=(Mount(target=DEFAULT_SERVER_ROOT, source=str(place.absolute())),))]
    start = _read_config(file, boundary=None if options.config_file is not None else place)
    root = repo.server_root if repo is not None else _server_root(start.entries, place)
    mounts = (Mount(target=root, source=str(place.absolute())),)
    return [msgspec.structs.replace(start, mounts=mounts)]


def _start_of(service: Service, options: DoctorOptions) -> Start:
    start = Start(service=service, mounts=service.mounts)
    unread = [f"{service}: {one}" for one in service.unresolved]
    if options.config_file is not None or service.config:
        mount, local = (
            local_path(service.mounts, service.config) if service.config else (None, None)
        )
        file = options.config_file or local
        if file is None:
            unread.append(f"{service.config}, the config of {service}: it is not on this machine")
            return msgspec.structs.replace(start, not_checked=tuple(unread))
        mounted = Path(mount.source) if mount is not None and file != options.config_file else None
        read = _read_config(file, boundary=None if mounted == file else mounted)
        return msgspec.structs.replace(
            read, service=service, mounts=service.mounts, not_checked=tuple(unread)
        )
    if not service.says_what_it_serves:
        unread.append(f"{service}: what it serves")
        return msgspec.structs.replace(start, not_checked=tuple(unread))
    name, base_path = service.only_model
    from servingrepo.protos import model_server_config_pb2

    proto = model_server_config_pb2.ModelServerConfig()
    proto.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    config = ModelConfig(proto=proto, source=str(service))
    return msgspec.structs.replace(start, config=config, not_checked=tuple(unread))


def _read_config(file: Path, *, boundary: Path | None) -> Start:
    """Read a config as a server reads it.

    Its links are followed if the user or the compose file named it. One that was found in a tree may be a link that
    somebody else put there: it is followed only below `boundary`.
    """
    start = Start(config_path=str(file))
    findings: list[Finding] = []
    if file.is_symlink():
        findings.append(
            found(
                "config-is-link",
                f"it is a link to {file.readlink()}",
                path=file,
            )
        )
    try:
        if boundary is None:
            data = read_bounded(file, limit=_LARGEST_CONFIG)
        else:
            below = os.path.relpath(file, boundary)
            data = files_of(boundary).read(below, limit=_LARGEST_CONFIG)
    except Unreadable as why:
        slug = "config-missing" if why.missing else "config-unreadable"
        findings.append(found(slug, f"{why}", path=file))
        return msgspec.structs.replace(start, findings=tuple(findings))
    try:
        text = decode(data, source=file.name)
        config = parse(text, source=file.name)
    except ConfigInvalid as error:
        findings += [
            found("config-refused", said, how_to_write(data), path=file)
            for said in (error.message, *error.problems)
        ]
        return msgspec.structs.replace(start, findings=tuple(findings))
    return msgspec.structs.replace(start, config=config, findings=tuple(findings))


def _server_root(entries: Sequence[Entry], place: Path) -> str:
    """Return the models directory as servers see it, guessed from base paths that fit what is there."""
    counted: Counter[str] = Counter()
    for one in entries[:1000]:
        parts = [part for part in one.base_path.split("/") if part]
        for number in range(len(parts) if one.base_path.startswith("/") else 0):
            if place.joinpath(*parts[number:]).is_dir():
                counted["/" + "/".join(parts[:number])] += 1
    if counted:
        most = max(counted.values())
        return max((one for one, count in counted.items() if count == most), key=len)
    parents = Counter(
        posixpath.dirname(one.base_path.rstrip("/"))
        for one in entries
        if one.base_path.startswith("/")
    )
    return parents.most_common(1)[0][0] if parents else DEFAULT_SERVER_ROOT


def located(start: Start, tree: Tree) -> Iterator[Seen]:
    """Yield each entry of a start with what is at its base path."""
    known = {os.path.realpath(one.path): one for one in tree.bases}
    for entry in start.entries:
        mount, local = (
            local_path(start.mounts, entry.base_path)
            if entry.base_path.startswith(("/", "file:///"))
            else (None, None)
        )
        if mount is None or local is None:
            yield Seen(entry=entry, base=None, start=start)
        elif not os.path.lexists(local):
            yield Seen(entry=entry, base=None, start=start, place=str(local), there=False)
        else:
            boundary, real = os.path.realpath(mount.source), os.path.realpath(local)
            base = known.get(real)
            if base is None or base.boundary != boundary:
                name = posixpath.relpath(entry.base_path, mount.target)
                name = local.name if name == "." else name
                place = Path(real) if holds(boundary, real) else local
                base = read_base(place, name, boundary=boundary)
            yield Seen(entry=entry, base=base, start=start, place=str(local))


# Judgement ----------------------------------------------------------------------------------------


def judge_start(start: Start, place: Path) -> Iterator[Finding]:
    """Yield what is wrong with how a server starts."""
    yield from start.findings
    service = start.service
    labelled = sorted(one.name for one in start.entries if one.labels)
    if service is None:
        if labelled:
            yield found(
                "labels-need-flag",
                f"there are labels on versions of {some(labelled)}",
                f"start servers with {LABELS_FLAG}; --compose FILE checks it",
                path=start.config_path,
            )
    else:
        yield from judge_service(service)
        if labelled and not labels_allowed(service):
            yield found(
                "labels-without-flag",
                f"there are labels on versions of {some(labelled)}, and it is started without {LABELS_FLAG}",
                f"add to its command: {LABELS_FLAG}",
                path=service,
            )
        yield from _judge_mounts(start, service, place)
    kind = bucket_mount(place)
    if kind:
        yield found("bucket-mount", f"it is on a FUSE mount ({kind})", path=place)


def _judge_mounts(start: Start, service: Service, place: Path) -> Iterator[Finding]:
    """Yield what a service mounts otherwise than its config, or this examination, expects."""
    here = os.path.realpath(place)
    for entry in start.entries:
        mount, local = local_path(service.mounts, entry.base_path)
        if entry.base_path.startswith("/") and mount is None and service.published:
            targets = ", ".join(one.target for one in service.mounts) or "nothing"
            yield found(
                "base-path-not-mounted",
                f"base_path {entry.base_path} is not below what the service mounts ({targets})",
                f"mount it: {place.absolute()}:{posixpath.dirname(entry.base_path)}, or correct base_path",
                model=entry.name,
                path=service,
            )
        if local is not None and not holds(here, f"{os.path.realpath(local.parent)}/{local.name}"):
            yield found(
                "other-tree-mounted",
                f"its {entry.base_path} is {local}, which is not below {place}",
                f"servingrepo doctor {local.parent} --compose {service.file}",
                model=entry.name,
                path=service,
            )
    file = place / CONFIG_FILE
    if service.lacks("model_config_file") and file.exists():
        yield found(
            "config-not-used",
            f"{file} is there, and the service is started without --model_config_file",
            f"add to its command: --model_config_file={DEFAULT_SERVER_ROOT}/{CONFIG_FILE}",
            path=service,
        )
