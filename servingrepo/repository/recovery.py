"""Recovery: the next writing command cleans up what a dead command left, in files and on servers.

A change that has happened gets its line of history. Of any other change nothing stays. Recovery never changes what
is served. If a server cannot be cleared now, the result says so, and the intent stays for the next attempt.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    ConfigInvalid,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
)
from servingrepo.modelconfig import Stamp, entry
from servingrepo.repository import history, journal
from servingrepo.repository.adoption import ADOPT, UNDO, has_happened, settle_adoption
from servingrepo.repository.config import (
    below_server_root,
    forget_roots_before,
    last_text,
    read_config,
    served_versions,
    why_unreplaceable,
    write_config,
)
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.layout import CONFIG_NAME, STAGING_NAME, TXID
from servingrepo.repository.records import (
    SCHEMA,
    BadMark,
    ModelState,
    say_proofs,
)
from servingrepo.repository.repository import (
    Repository,
    burn_number,
    is_behind_link,
    is_open,
    load_marker,
    load_record,
    load_state,
    me,
    model_folders,
    model_names,
    record_numbers,
    save_state,
    version_names,
)
from servingrepo.repository.snapshot import read_snapshot
from servingrepo.repository.trash import sweep_trash, what_happened
from servingrepo.servers.states import Endpoint
from servingrepo.storage.disk import storage_errors, translate
from servingrepo.storage.reading import folders_in, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servingrepo.repository.records import VersionRecord


class Recovered(msgspec.Struct, frozen=True):
    """One thing that recovery did."""

    txid: str
    command: str
    model: str
    version: int | None
    outcome: str


def say_if_happened(repo: Repository, intent: Intent, error: BaseException) -> None:
    """Add to an error that the change has happened all the same, so that nobody repeats the command."""
    if not isinstance(error, ServingRepoError) or error.says_what_happened:
        return
    if intent.command in {ADOPT, UNDO}:
        if has_happened(repo, intent):
            problem = "the adoption has happened all the same: do not repeat it"
            undone = "the adoption was taken back all the same: do not repeat it"
            error.problems = (*error.problems, problem if intent.command == ADOPT else undone)
        return
    event = _event_of(repo, intent)
    if event and _has_happened(repo, intent, event):
        problem = (
            f"the {intent.command} of {intent.model} has happened all the same: do not repeat it"
        )
        if event.versions:
            listed = ", ".join(map(str, event.versions))
            problem = (
                f"the {intent.command} of {intent.model} has happened all the same for: {listed}"
            )
        if intent.command == "promote":
            now = ", ".join(map(str, event.after)) or "nothing"
            problem = (
                f"{intent.model}@{intent.version} is published all the same; served now: {now}"
            )
        error.problems = (*error.problems, problem)


def recover(repo: Repository, *, reach: bool, thorough: bool) -> tuple[Recovered, ...]:
    """Recover what dead commands left; the caller holds the lock. `reach` is as in `clear_servers`.

    Staging directories and temporary files without a live owner are removed too: their command died while it cleaned
    up or wrote. A change of the server root that was begun is finished.

    Only a command that left an intent or the lock writes in the folders of records and of models. So those are listed
    if there was such a command, or if the caller is `thorough`: with 1,000 models that takes a tenth of a second.
    """
    done = list(_settle_unreadable(repo))
    alive: set[str] = set()
    for intent, is_alive in journal.read_all(repo.layout.journal):
        if is_alive:
            alive.add(intent.txid)
            continue
        outcome = settle(repo, intent, reach=reach)
        done.append(Recovered(intent.txid, intent.command, intent.model, intent.version, outcome))
    thorough = thorough or bool(done)
    folders = model_folders(repo)
    done.extend(_sweep(repo, folders, alive))
    done.extend(
        Recovered(one.txid, "empty-trash", one.model, one.version, outcome)
        for one, outcome in sweep_trash(repo.layout, repo.disk, alive)
    )
    done.extend(_sweep_temporary_files(repo, thorough=thorough))
    done.extend(_sweep_unfinished(repo, thorough=thorough))
    done.extend(_settle_config(repo))
    return tuple(done)


def _settle_unreadable(repo: Repository) -> Iterator[Recovered]:
    """Set unreadable intents aside, and recover their promotions: the intent's name leads to the version's record.

    Any other command left whole files only; at most its line of history is missing.
    """
    for aside in journal.set_aside_unreadable(repo.disk, repo.layout.journal):
        txid = aside.name.removesuffix(journal.UNREADABLE).removesuffix(".json")
        outcome = f"its intent could not be read and was set aside: {aside}"
        if repo.layout.adoption(txid).exists():
            intent = Intent(txid=txid, command=ADOPT, owner=me(), model="")
            yield Recovered(txid, ADOPT, "", None, f"{outcome}; {settle(repo, intent)}")
            continue
        record = _record_of(repo, txid)
        if record is None:
            yield Recovered(txid, "unknown", "", None, outcome)
            continue
        intent = Intent(
            txid=txid, command="promote", owner=me(), model=record.model, version=record.version
        )
        outcome = f"{outcome}; {settle(repo, intent)}"
        yield Recovered(txid, "promote", record.model, record.version, outcome)


def _record_of(repo: Repository, txid: str) -> VersionRecord | None:
    """Return the record that a transaction wrote, of any model; None if it wrote none."""
    for model in model_names(repo):
        for number in record_numbers(repo, model):
            with suppress(RepositoryDamaged):
                record = load_record(repo, model, number)
                if record is not None and record.txid == txid:
                    return record
    return None


def settle(repo: Repository, intent: Intent, *, reach: bool = False) -> str:
    """Finish or drop what one command began, remove its intent, and say what was done.

    The intent stays as long as a server has something of it and cannot be cleared.
    """
    if intent.command in {ADOPT, UNDO}:
        outcome = settle_adoption(repo, intent)
        repo.disk.step("settle.before-intent-removal")
        repo.disk.remove_file(repo.layout.intent(intent.txid))
        return outcome
    event = _event_of(repo, intent)
    happened = event is not None and _has_happened(repo, intent, event)
    if event is not None and happened:
        _finish(repo, event)
        outcome = "it had happened: history finished"
    elif event is not None and (halfway := _halfway(repo, intent, event)) is not None:
        _finish(repo, halfway)
        outcome = "it was cut short with old and new served: history says so"
    else:
        outcome = "it had not happened: dropped"
    # A smoke test ends before the version appears, but its container may still be there.
    leftovers = not happened or intent.engine == "docker"
    servers = clear_servers(repo, intent, reach=reach) if leftovers else OnServers()
    if intent.command == "promote":
        if not happened and intent.version is not None:
            _drop_record(repo, intent)
            if servers.had_it or repo.layout.staging(intent.model, intent.txid).exists():
                burn_number(repo, intent.model, intent.version)
        repo.disk.step("settle.before-staging-removal")
        _remove_staging(repo, intent)
    parts = [outcome, servers.done, say_endpoints(intent, event, happened=happened), servers.left]
    if not servers.left:
        repo.disk.step("settle.before-intent-removal")
        repo.disk.remove_file(repo.layout.intent(intent.txid))
    return "; ".join(filter(None, parts))


def _event_of(repo: Repository, intent: Intent) -> Event | None:
    """Return the event of a command for the history, as far as the command came."""
    if intent.event is None:
        return _promotion_event(repo, intent)
    return what_happened(repo.layout, intent.event) if intent.event.versions else intent.event


def _promotion_event(repo: Repository, intent: Intent) -> Event | None:
    """Rebuild the event of a promotion that died after C1, from its record and the config."""
    if intent.version is None:
        return None
    record = load_record(repo, intent.model, intent.version)
    if record is None or record.txid != intent.txid:
        return None
    now_pinned: tuple[int, ...] = ()
    with suppress(ConfigInvalid):  # an unreadable file proves nothing
        now_pinned = served_versions(repo, read_config(repo).config, intent.model)
    before = now_pinned
    if intent.version in now_pinned:
        moves = history.moves_backwards(repo.layout.history, model=intent.model)
        before = next((move.after for move in moves if move.before or move.after), ())
    return Event(
        schema=SCHEMA,
        id=intent.txid,
        time=record.created,
        action="promote",
        model=intent.model,
        version=intent.version,
        before=before,
        after=now_pinned,
        user=record.user,
        host=record.host,
        why=record.message,
        run=record.source.run,
        proof=say_proofs(record.proofs),
        code=str(record.origin.code or ""),
        allowed=record.guard.allowed if record.guard is not None else (),
    )


def _has_happened(repo: Repository, intent: Intent, event: Event) -> bool:
    state = load_state(repo, event.model)
    match event.action:
        case "promote":
            # A staging copy that still exists was not renamed: another writer made the directory.
            number = event.version or 0
            staged = repo.layout.staging(intent.model, intent.txid) / str(number)
            return repo.layout.version(event.model, number).is_dir() and not staged.exists()
        case "mark-bad":
            return state is not None and _mark_time(state, event.version) == event.time
        case "clear-bad":
            return state is not None and event.version not in state.bad
        case "hold":
            return state is not None and state.hold is not None and state.hold.time == event.time
        case "release-hold":
            return state is not None and state.hold is None
        case "prune" | "restore" | "empty-trash":
            return bool(event.versions)
        case "prove":
            record = load_record(repo, event.model, event.version or 0)
            return record is not None and any(one.time == event.time for one in record.proofs)
        case _:
            return _config_says_so(repo, event)


def _config_says_so(repo: Repository, event: Event) -> bool:
    """Tell whether models.config is as an event left it; False if the file cannot be read."""
    with suppress(ConfigInvalid):
        file = read_config(repo)
        if event.action == "config-write":  # it began with a file that was edited by hand
            return file.stamp is Stamp.UNEDITED
        found = entry(file.config, event.model)
        now = (found.versions, found.labels) if found is not None else ((), {})
        before = (event.before, event.labels_before)
        after = (event.after, event.labels_after)
        return now == after and before != after
    return False


def _halfway(repo: Repository, intent: Intent, event: Event) -> Event | None:
    """Return the event of a switch that ended between its two configs: the old and the new version are served then.

    Recovery does not change this; it records what is served.
    """
    if event.action not in {"serve", "rollback", "label"}:
        return None
    with suppress(ConfigInvalid):
        found = entry(read_config(repo).config, intent.model)
        both = tuple(sorted({*event.before, *event.after}))
        now = (found.versions, found.labels) if found is not None else ((), {})
        if now[0] == both and now != (event.before, event.labels_before):
            return msgspec.structs.replace(
                event, after=now[0], labels_after=dict(now[1]), marked_bad=None
            )
    return None


def _mark_time(state: ModelState, version: int | None) -> str | None:
    mark = state.bad.get(version) if version is not None else None
    return mark.time if mark is not None else None


def _finish(repo: Repository, event: Event) -> None:
    """Do what follows the change: the bad mark of a rollback, and the line of history."""
    state = load_state(repo, event.model)
    if event.marked_bad is not None and state is not None and event.marked_bad not in state.bad:
        save_state(repo, with_bad_mark(repo, state, event.marked_bad, event))
    if not history.knows(repo.layout.history, event.id):
        finished = msgspec.structs.replace(event, recovered=True)
        history.append(repo.disk, repo.layout.history, finished)


def with_bad_mark(repo: Repository, state: ModelState, version: int, event: Event) -> ModelState:
    """Return the state with a bad mark on a version, from an event."""
    record = load_record(repo, state.name, version)
    mark = BadMark(
        digest=record.digest if record is not None else "",
        size=record.size if record is not None else None,
        reason=event.why,
        user=event.user,
        host=event.host,
        time=event.time,
    )
    return msgspec.structs.replace(state, bad={**state.bad, version: mark})


def _remove_staging(repo: Repository, intent: Intent) -> None:
    """Remove what a promotion staged. None stages behind a link (`refuse_links`), so we remove nothing there."""
    place = repo.layout.staging(intent.model, intent.txid)
    if not is_behind_link(repo, place.parent):
        repo.disk.remove_tree(place)


def _drop_record(repo: Repository, intent: Intent) -> None:
    """Remove the record of a version that never appeared."""
    version = intent.version or 0
    record = load_record(repo, intent.model, version)
    if record is not None and record.txid == intent.txid:
        repo.disk.remove_file(repo.layout.record(intent.model, version))


def _sweep(
    repo: Repository, folders: Mapping[Path, str | None], alive: set[str]
) -> Iterator[Recovered]:
    """Remove staging directories that no live command owns."""
    for base, model in folders.items():
        staging = base / STAGING_NAME
        try:
            left = sorted(names_in(staging))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if not is_open(base) or is_behind_link(repo, staging):
                continue
            raise translate(error, "read", staging) from error
        ours = [txid for txid in left if re.fullmatch(TXID, txid)]
        if not ours or not is_open(base) or is_behind_link(repo, staging):
            continue
        ours = [txid for txid in ours if not (staging / txid).is_symlink()]
        for txid in ours:
            if txid not in alive:
                repo.disk.remove_tree(staging / txid)
                name = model or base.relative_to(repo.layout.models).as_posix()
                yield Recovered(txid, "promote", name, None, "left staging directory removed")
        known = model is not None and load_state(repo, model) is not None
        if ours and not known and version_names(base) == {}:
            with suppress(OSError):
                staging.rmdir()
                base.rmdir()


def _sweep_temporary_files(repo: Repository, *, thorough: bool) -> Iterator[Recovered]:
    """Remove what `replace_file` and `declare` left when they were killed.

    Both run only under our lock, so they do not run now.
    """
    layout = repo.layout
    places = [layout.own, layout.journal, layout.states, layout.adoptions]
    with storage_errors("read", layout.states):
        if thorough:
            places += [layout.states / name for name in folders_in(layout.states)]
        left = [layout.models / f".{CONFIG_NAME}.tmp"]
        for place in places:
            left += _temporary_files(place, ".tmp")
        left += _temporary_files(layout.contracts, ".contract.toml.tmp")
        left = [path for path in left if path.is_file()]
    for path in left:
        repo.disk.remove_file(path)
        yield Recovered("", "write", path.name, None, "temporary file removed")


def _temporary_files(place: Path, ending: str) -> Iterator[Path]:
    """Yield what has the name of a temporary file: a dot, a name and the ending."""
    with suppress(PermissionError, FileNotFoundError, NotADirectoryError):
        for name in sorted(names_in(place)):
            if name[0] == "." and name.endswith(ending) and len(name) > len(ending):
                yield place / name


def _sweep_unfinished(repo: Repository, *, thorough: bool) -> Iterator[Recovered]:
    """Remove what `make_directory` left when it was killed.

    It also runs without the lock; it begins again if its directory is removed.
    """
    layout = repo.layout
    places = [layout.root, layout.models, layout.own, layout.states]
    if thorough:  # the trash is made in the folder of a model
        names = sorted({*model_names(repo), *layout.paths})
        folders = dict.fromkeys(folder for name in names for folder in layout.folders(name))
        places += [folder for folder in folders if not is_behind_link(repo, folder)]
    for place in places:
        for name in repo.disk.remove_unfinished(place):
            yield Recovered("", "write", name, None, "unfinished directory removed")


def _settle_config(repo: Repository) -> Iterator[Recovered]:
    """Finish a change of the server root, and bring the copy of models.config up to date.

    The change replaces the marker first, so the marker has the new server root and the earlier ones. A file that
    another writer made or changed is left alone. On a full disk the copy stays as it is.
    """
    marker = load_marker(repo)
    try:
        file = read_config(repo)
        if marker is None or file.text is None or file.stamp is not Stamp.UNEDITED:
            return
        if why_unreplaceable(repo):
            return
        before = marker.server_roots_before
        config = below_server_root(repo, file.config, marker.server_root, before=before)
    except ConfigInvalid:
        return
    if config != file.config:
        write_config(repo, config)
        yield Recovered(
            "", "config write", CONFIG_NAME, None, f"base paths are below {marker.server_root} now"
        )
    if before:
        forget_roots_before(repo)
    elif last_text(repo) != file.text:
        with suppress(StorageFailed):
            repo.disk.replace_file(repo.layout.last_config, file.text.encode(), step="c2-copy")


_REAP_SECONDS = 10.0
_EMPTY_SECONDS = 5.0


class OnServers(msgspec.Struct, frozen=True):
    """The result of clearing servers: whether one had the version, what was done, and what is left."""

    had_it: bool = False
    done: str = ""
    left: str = ""


def clear_servers(repo: Repository, intent: Intent, *, reach: bool) -> OnServers:
    """Remove what a dead command left on servers, as far as possible.

    A server for smoke tests is called only with `reach`, so that no rollback waits for it.
    """
    if intent.engine == "docker":
        return OnServers(left=_reap_container(intent))
    if not intent.smoked_on or intent.version is None:
        return OnServers()
    if not reach:
        left = (
            f"its version may be left on {intent.smoked_on}: servingrepo recover removes it there"
        )
        return OnServers(left=left)
    return _empty_smoke_server(repo, intent, intent.version)


def _reap_container(intent: Intent) -> str:
    """Remove the container that a dead command left. If that fails, say so: a later writer tries again."""
    from servingrepo.servers.engines.docker_reaping import reap

    try:
        reap(frozenset({intent.txid}), deadline=Deadline.after(_REAP_SECONDS))
    except ServingRepoError as error:
        return (
            f"its container may be left; the next command tries again to remove it: {error.message}"
        )
    return ""


def _empty_smoke_server(repo: Repository, intent: Intent, version: int) -> OnServers:
    """Unload a version from the server that smoke-tested it, unless models.config serves the version."""
    from servingrepo.servers.engines.remote import empty

    name = f"{intent.model}@{version}"
    if is_served(repo, intent.model, version):
        why = f"{name} may be left on {intent.smoked_on}; it stays, because models.config may serve it"
        return OnServers(left=f"{why}: if that server is for smoke tests, restart it")
    try:
        had_it = empty(
            Endpoint.parse(intent.smoked_on), intent.model, version, seconds=_EMPTY_SECONDS
        )
    except ServingRepoError as error:
        why = (
            f"{name} may be left on {intent.smoked_on}, which could not be emptied: {error.message}"
        )
        again = "restart that server; until then each promotion tries again"
        return OnServers(left=f"{why}; {again}")
    return OnServers(had_it, f"{name} unloaded from {intent.smoked_on}" if had_it else "")


def say_endpoints(intent: Intent, event: Event | None, *, happened: bool) -> str:
    """Name the live servers that may have loaded more than models.config says; empty if there can be none."""
    endpoints = intent.endpoints or (intent.event.endpoints if intent.event is not None else ())
    stands = happened
    if intent.command == "promote":  # live servers get a version only once it exists
        stands = not happened or (event is not None and event.version in event.after)
    if not endpoints or stands:
        return ""
    at = " ".join(f"--endpoint {one}" for one in endpoints)
    return (
        f"{', '.join(endpoints)} may still have loaded what it sent: servingrepo reload {at} loads what "
        "models.config says"
    )


def is_served(repo: Repository, model: str, version: int) -> bool:
    """Tell whether models.config serves a version; True also if the file cannot be read."""
    with suppress(ConfigInvalid):
        now = read_snapshot(repo, model)
        return version in {*now.served, *now.labels.values()}
    return True


def left_on(repo: Repository, endpoint: Endpoint) -> frozenset[tuple[str, int]]:
    """Return the models and versions that dead smoke tests may have left on a server."""
    return frozenset(
        (intent.model, intent.version)
        for intent, alive in journal.read_all(repo.layout.journal, leave_out_unreadable=True)
        if not alive
        and intent.version is not None
        and intent.smoked_on == str(endpoint)
        and not is_served(repo, intent.model, intent.version)
    )
