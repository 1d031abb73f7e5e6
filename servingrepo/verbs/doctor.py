"""doctor: says what is wrong with a tree, a config, a compose file or running servers, and how to correct it.

It needs no repository and changes nothing: it takes no lock and writes no file. It reads what a server would read, as
a server would read it, and says what happens at the next restart or reload. What it did not look at is listed as not
checked.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NoRepository, ServingRepoError, StorageHung, UsageError
from servingrepo.repository.layout import Layout
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT, open_repository
from servingrepo.repository.trust import notes
from servingrepo.runs.mounts import refuse_hung
from servingrepo.storage.disk import storage_errors
from servingrepo.texts import as_path
from servingrepo.verbs.doctor_compose import local_path, read_compose
from servingrepo.verbs.doctor_config import (
    entry_of,
    every_base,
    judge_bases,
    judge_config,
    versions_of,
)
from servingrepo.verbs.doctor_exports import examine
from servingrepo.verbs.doctor_rules import Finding, found, worst_first
from servingrepo.verbs.doctor_servers import Served, ask_servers
from servingrepo.verbs.doctor_starts import judge_start, located, read_starts
from servingrepo.verbs.doctor_tree import judge_tree, read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.verbs.doctor_compose import Compose, Service
    from servingrepo.verbs.doctor_starts import Seen, Start
    from servingrepo.verbs.doctor_tree import Base
    from servingrepo.verbs.options import DoctorOptions

__all__ = ["Examination", "doctor"]


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor` found.

    Attributes:
        path: The models directory.
        config: The config that was read; empty if none was.
        services: The services of the compose file that run TensorFlow Serving.
        endpoints: The servers that were asked.
        models: How many models there are on disk.
        versions: How many versions they have.
        managed: Whether it is in a repository of servingrepo.
        findings: What is wrong, the worst first.
        not_checked: What was not looked at, a line each.
        next: The command to type next.
    """

    path: str
    config: str = ""
    services: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    models: int = 0
    versions: int = 0
    managed: bool = False
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()
    next: str = ""

    @property
    def exit_code(self) -> int:
        """That of the worst finding; 0 for warnings and notes."""
        return self.findings[0].exit_code if self.findings else 0

    def count(self, severity: str) -> int:
        """Return how many findings have a severity."""
        return sum(one.severity == severity for one in self.findings)


def doctor(path: str | Path | None, options: DoctorOptions) -> Examination:
    """Examine a tree of models, the config, how servers are started, and the servers themselves.

    Args:
        path: A root with `models/` in it, or a models directory. None is what the service of the compose file mounts,
            else the current directory.
        options: The config, compose file and servers, and how deep to look.

    Raises:
        UsageError: The path is a file.
        StorageFailed: The directory does not exist or cannot be read.
    """
    compose = (
        read_compose(options.compose_file, options.variables) if options.compose_file else None
    )
    services = compose.services if compose is not None else ()
    named = as_path(path, "path") if path is not None else None
    place = named or _mounted_place(services) or Path()
    try:
        refuse_hung(place, seconds=options.run_wait)
        given, place = place, _models_directory(place)
        refuse_hung(place, seconds=options.run_wait)
    except StorageHung as error:
        return Examination(
            path=str(place),
            findings=(found("storage-hung", error.message, path=place),),
            not_checked=("all of it: its file system does not answer",),
            next="this command again, when the file system answers",
        )
    with storage_errors("read", place):
        tree = read_tree(place)
    repo, findings = _repository(given, place)
    starts = read_starts(place, services, options, repo)
    seen = [one for start in starts for one in located(start, tree)]
    bases = every_base(tree, seen)
    versions = versions_of(bases, seen, starts)
    examined = examine(
        versions, services, deep=options.deep, sizes=options.sizes, progress=options.progress
    )
    asked, unasked = _servers(options, bases, seen)
    findings += [
        *(compose.findings if compose is not None else ()),
        *judge_tree(tree),
        *(each for start in starts for each in judge_start(start, place)),
        *(each for start in starts for each in judge_config(start, seen)),
        *judge_bases(bases, seen, starts),
        *examined.findings,
        *asked,
    ]
    ranked = worst_first(findings)
    return Examination(
        path=str(place),
        config=", ".join(dict.fromkeys(one.config_path for one in starts if one.config_path)),
        services=tuple(map(str, services)),
        endpoints=tuple(map(str, options.fleet)),
        models=len(bases),
        versions=len(versions),
        managed=repo is not None,
        findings=ranked,
        not_checked=tuple(
            dict.fromkeys(
                (
                    *_unexamined(options, compose, starts, seen),
                    *tree.not_checked,
                    *examined.not_checked,
                    *unasked,
                )
            )
        ),
        next=_next(ranked, place, repo),
    )


# Places -------------------------------------------------------------------------------------------


def _mounted_place(services: Sequence[Service]) -> Path | None:
    """Return the models directory that a service mounts, if that is known."""
    for service in services:
        base_path = service.environment.get("MODEL_BASE_PATH") or DEFAULT_SERVER_ROOT
        for one in (base_path, posixpath.dirname(service.config)):
            _, local = local_path(service.mounts, one) if one else (None, None)
            if local is not None and local.is_dir():
                return local
        for mount in service.mounts:  # one directory for each model
            if mount.source and mount.target.startswith(f"{DEFAULT_SERVER_ROOT}/"):
                parent = Path(mount.source).parent
                return parent if parent.is_dir() else None
    return None


def _models_directory(path: Path) -> Path:
    """Return the models directory of a root, or the path itself."""
    with storage_errors("read", path):
        path.stat()
        if not path.is_dir():
            raise UsageError(
                f"{path} is a file, and doctor takes a directory",
                hint=f"give the directory of the models, and this file with --config {path}",
            )
        path = path.absolute()
        with suppress(ServingRepoError):  # `_repository` says why it cannot be read
            return open_repository(path).layout.models
        below = Layout(path).models
        return below if below.is_dir() else path


def _repository(given: Path, place: Path) -> tuple[Repository | None, list[Finding]]:
    """Return the repository that the models directory is of, if there is one, and what is noted of it."""
    root = place.absolute().parent
    if Layout(given).format.exists():
        root = given.absolute()
    elif place.name != Layout(root).models.name:
        return None, []
    try:
        repo = open_repository(root)
        return repo, [found("repository-note", one, path=root) for one in notes(repo)]
    except NoRepository:
        return None, []
    except ServingRepoError as error:
        return None, [
            found(
                "repository-unreadable",
                error.message,
                error.hint or "",
                path=root,
                error=type(error),
            )
        ]


# Servers ------------------------------------------------------------------------------------------


def _servers(
    options: DoctorOptions, bases: Sequence[Base], seen: Sequence[Seen]
) -> tuple[list[Finding], list[str]]:
    """Ask the servers about every model of a config, else about every directory."""
    if not options.fleet:
        return [], []
    wanted = {
        one.entry.name: Served(
            entry=one.entry,
            on_disk=_numbers(one.base) if one.base is not None else None,
            configured=bool(one.start.config_path),
        )
        for one in seen
    }
    if not seen:
        wanted = {
            base.name: Served(entry=entry_of(base), on_disk=_numbers(base), configured=False)
            for base in bases
        }
    return ask_servers(options.fleet, wanted)


def _numbers(base: Base) -> frozenset[int]:
    return frozenset(one.version for one in base.versions if one.version is not None)


# What was left out, and what comes next -----------------------------------------------------------


def _unexamined(
    options: DoctorOptions, compose: Compose | None, starts: Sequence[Start], seen: Sequence[Seen]
) -> Iterator[str]:
    """Yield what was not looked at."""
    if compose is None:
        yield "how servers are started: flags, mounts, user, health check (--compose FILE)"
    else:
        yield from compose.not_checked
    if compose is None and not any(one.config_path for one in starts):
        yield "what servers are told to serve: there is no models.config (--config FILE)"
    for start in starts:
        yield from start.not_checked
        if start.service is not None:
            yield from start.service.unknown
    for one in seen:
        if one.base is None and one.there:
            mount, _ = local_path(one.start.mounts, one.entry.base_path)
            why = mount.why if mount is not None else "it is not on this machine as far as is known"
            if one.entry.base_path:
                yield f"{one.entry.base_path}, the base path of {one.entry.name}: {why}"
    if not options.fleet:
        yield "what servers have loaded (--endpoint HOST:PORT)"


def _next(findings: Sequence[Finding], place: Path, repo: Repository | None) -> str:
    """Return the command to type next."""
    if any(one.severity == "error" for one in findings):
        return "correct the errors, the worst first, then this command again"
    if repo is not None:
        return f"servingrepo --root {repo.root} status"
    if any(one.slug == "no-models" for one in findings):
        return "servingrepo init, then servingrepo promote RUN --model NAME"
    here = place.absolute()
    root, more = here.parent, ""
    if here.name != Layout(root).models.name:  # the records lie beside the models, never in them
        root, more = here.with_name(f"{here.name}-records"), f" --models {here}"
    servingrepo = f"servingrepo --root {root}"
    return f"{servingrepo} init{more}, then {servingrepo} adopt --all: every version is kept where it lies"
