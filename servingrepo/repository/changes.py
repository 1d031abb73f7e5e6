"""Changes that are recorded: an intent before, a line of history after, and recovery in between.

Every writing command runs inside `recorded`. Whatever ends it, what is left is settled by the same function:
if its change has happened, history is finished; if not, nothing of it stays. `recover` does that for
commands that died. It never changes what is served.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ConfigInvalid, ServingRepoError, StorageFailed
from servingrepo.modelconfig import Stamp, entry
from servingrepo.repository import history, journal
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.layout import CONFIG_NAME, STAGING_NAME
from servingrepo.repository.records import SCHEMA, BadMark, Format, ModelState, load
from servingrepo.repository.repository import (
    Repository,
    load_record,
    load_state,
    locked,
    me,
    names_on_disk,
    save_state,
)
from servingrepo.repository.served import (
    below_server_root,
    last_text,
    pins,
    read_config,
    write_config,
)
from servingrepo.repository.spare import give_up_spare, keep_spare
from servingrepo.serving.deadline import Deadline
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_REAP_SECONDS = 10.0


_TXID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
"""What `new_txid` makes: anything else in a staging folder is not ours to remove."""


class Recovered(msgspec.Struct, frozen=True):
    """One thing that recovery did."""

    txid: str
    command: str
    model: str
    version: int | None
    outcome: str


def new_event(
    repo: Repository,
    *,
    txid: str,
    action: str,
    model: str,
    version: int | None = None,
    before: tuple[int, ...] = (),
    after: tuple[int, ...] = (),
    why: str = "",
    run: str = "",
    proof: str = "",
    marked_bad: int | None = None,
    labels_before: dict[str, int] | None = None,
    labels_after: dict[str, int] | None = None,
    endpoints: tuple[str, ...] = (),
) -> Event:
    """Return an event of now, by whoever runs this process."""
    owner = me()
    return Event(
        schema=SCHEMA,
        id=txid,
        time=repo.now(),
        action=action,
        model=model,
        version=version,
        before=before,
        after=after,
        user=owner.user,
        host=owner.host,
        why=why,
        run=run,
        proof=proof,
        marked_bad=marked_bad,
        labels_before=labels_before or {},
        labels_after=labels_after or {},
        endpoints=endpoints,
    )


@contextmanager
def writing(repo: Repository, *, dry_run: bool = False, publishing: bool = False) -> Iterator[None]:
    """Hold the lock, with what dead commands left settled first; a dry run only reads, so needs neither.

    On a full disk the space set aside is given up for it, but not for `publishing`: it is there for going back.

    Raises:
        Locked: Another process holds the lock.
    """
    if dry_run:
        yield
        return
    with locked(repo):
        if not publishing:
            give_up_spare(repo)
        recover(repo)
        yield
        keep_spare(repo)


@contextmanager
def recorded(repo: Repository, event: Event) -> Iterator[None]:
    """Make one change inside the block: intent before it, history after it.

    The caller holds the lock. If the block raises, history is finished where the change has happened
    all the same, and the intent goes.
    """
    intent = Intent(txid=event.id, command=event.action, owner=me(), model=event.model, event=event)
    path = repo.layout.intent(event.id)
    with journal.declare(repo.disk, path, intent):
        try:
            yield
            history.append(repo.disk, repo.layout.history, event)
        except BaseException as error:
            # What cannot be settled now (a full disk, say) is left to the next writer.
            with suppress(ServingRepoError):
                say_if_happened(repo, intent, error)
                settle(repo, intent)
            raise


def say_if_happened(repo: Repository, intent: Intent, error: BaseException) -> None:
    """Add to an error that the change itself has happened: whoever reads it must not repeat the command."""
    event = intent.event or _promotion_event(repo, intent)
    if isinstance(error, ServingRepoError) and event and _has_happened(repo, intent, event):
        said = f"the {intent.command} of {intent.model} has happened all the same: do not repeat it"
        if intent.command == "promote":
            now = ", ".join(map(str, event.after)) or "nothing"
            said = f"{intent.model}@{intent.version} is published all the same; served now: {now}"
        error.problems = (*error.problems, said)


def recover(repo: Repository) -> tuple[Recovered, ...]:
    """Settle what dead commands left; the caller holds the lock.

    Staging directories and temporary files that no live command owns go too: their command died while
    cleaning up, or while writing. A change of the server root that was begun is finished.
    """
    done: list[Recovered] = []
    alive: set[str] = set()
    for intent, is_alive in journal.read_all(repo.layout.journal):
        if is_alive:
            alive.add(intent.txid)
            continue
        outcome = settle(repo, intent)
        done.append(Recovered(intent.txid, intent.command, intent.model, intent.version, outcome))
    done.extend(_sweep(repo, alive))
    done.extend(_sweep_temporary_files(repo))
    done.extend(_settle_config(repo))
    return tuple(done)


def settle(repo: Repository, intent: Intent) -> str:
    """Finish or drop what one command began, then remove its intent; say what was done.

    The intent stays while its container cannot be removed because the Docker daemon is away.
    """
    event = intent.event if intent.event is not None else _promotion_event(repo, intent)
    happened = event is not None and _has_happened(repo, intent, event)
    if event is not None and happened:
        _finish(repo, event)
        outcome = "it had happened: history finished"
    else:
        outcome = "it had not happened: dropped"
    if intent.command == "promote":
        if not happened and intent.version is not None:
            _drop_record(repo, intent)
        repo.disk.step("settle.before-staging-removal")
        repo.disk.remove_tree(repo.layout.staging(intent.model, intent.txid))
    if intent.engine == "docker" and (left := _reap_container(intent)):
        return f"{outcome}; {left}"
    repo.disk.step("settle.before-intent-removal")
    repo.disk.remove_file(repo.layout.intent(intent.txid))
    return outcome


def _reap_container(intent: Intent) -> str:
    """Remove the container that a dead command left; where that cannot be done, say so: a later writer will."""
    from servingrepo.serving.docker_reaping import reap

    try:
        reap(frozenset({intent.txid}), deadline=Deadline.after(_REAP_SECONDS))
    except ServingRepoError as error:
        return f"its container may be left, and is looked for again the next time: {error.message}"
    return ""


def _promotion_event(repo: Repository, intent: Intent) -> Event | None:
    """Reconstruct the event of a promotion that died after C1, from its record and the config."""
    if intent.version is None:
        return None
    record = load_record(repo, intent.model, intent.version)
    if record is None or record.txid != intent.txid:
        return None
    now_pinned: tuple[int, ...] = ()
    with suppress(ConfigInvalid):  # a file that cannot be read says nothing
        now_pinned = pins(read_config(repo).config, intent.model)
    before = now_pinned
    if intent.version in now_pinned:
        events = history.read(repo.layout.history, model=intent.model)
        moved = [event.after for event in events if event.before or event.after]
        before = moved[-1] if moved else ()
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
        proof="; ".join(f"{one.engine} ({one.server})" for one in record.proofs) or "not checked",
    )


def _has_happened(repo: Repository, intent: Intent, event: Event) -> bool:
    state = load_state(repo, event.model)
    match event.action:
        case "promote":
            # What still lies in staging was not renamed: the directory there is somebody else's.
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
        case _:
            # A file that cannot be read says nothing: the change was not seen to happen.
            with suppress(ConfigInvalid):
                found = entry(read_config(repo).config, intent.model)
                now = (found.versions, found.labels) if found is not None else ((), {})
                before = (event.before, event.labels_before)
                after = (event.after, event.labels_after)
                return now == after and before != after
            return False


def _mark_time(state: ModelState, version: int | None) -> str | None:
    mark = state.bad.get(version) if version is not None else None
    return mark.time if mark is not None else None


def _finish(repo: Repository, event: Event) -> None:
    """Do what follows the change itself: the bad mark of a rollback, the line of history."""
    state = load_state(repo, event.model)
    if event.marked_bad is not None and state is not None and event.marked_bad not in state.bad:
        save_state(repo, with_bad_mark(repo, state, event.marked_bad, event))
    known = any(old.id == event.id for old in history.read(repo.layout.history, model=event.model))
    if not known:
        finished = msgspec.structs.replace(event, recovered=True)
        history.append(repo.disk, repo.layout.history, finished)


def with_bad_mark(repo: Repository, state: ModelState, version: int, event: Event) -> ModelState:
    """Return the state with a version marked bad, as an event says."""
    record = load_record(repo, state.name, version)
    mark = BadMark(
        digest=record.digest if record is not None else "",
        reason=event.why,
        user=event.user,
        host=event.host,
        time=event.time,
    )
    return msgspec.structs.replace(state, bad={**state.bad, version: mark})


def _drop_record(repo: Repository, intent: Intent) -> None:
    """Remove the record of a version that never appeared."""
    version = intent.version or 0
    record = load_record(repo, intent.model, version)
    if record is not None and record.txid == intent.txid:
        repo.disk.remove_file(repo.layout.record(intent.model, version))


def _sweep(repo: Repository, alive: set[str]) -> Iterator[Recovered]:
    """Remove staging directories that no live command owns."""
    with storage_errors("read", repo.layout.models):
        bases = sorted(
            path for path in repo.layout.models.iterdir() if path.is_dir() and not path.is_symlink()
        )
    for base in bases:
        staging = base / STAGING_NAME
        with storage_errors("read", staging):
            try:
                left = sorted(path.name for path in staging.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue
        ours = [
            txid for txid in left if _TXID.fullmatch(txid) and not (staging / txid).is_symlink()
        ]
        for txid in ours:
            if txid not in alive:
                repo.disk.remove_tree(staging / txid)
                yield Recovered(txid, "promote", base.name, None, "left staging directory removed")
        if ours and load_state(repo, base.name) is None and names_on_disk(repo, base.name) == {}:
            with suppress(OSError):
                staging.rmdir()
                base.rmdir()


def _sweep_temporary_files(repo: Repository) -> Iterator[Recovered]:
    """Remove what `replace_file` and `declare` left when they were killed: whoever writes holds our lock."""
    layout = repo.layout
    places = [layout.own, layout.journal, layout.states]
    with storage_errors("read", layout.states):
        places += sorted(path for path in layout.states.iterdir() if path.is_dir())
        left = [layout.models / f".{CONFIG_NAME}.tmp"]
        for place in places:
            left += sorted(place.glob(".*.tmp"))
        left = [path for path in left if path.is_file()]
    for path in left:
        repo.disk.remove_file(path)
        yield Recovered("", "write", path.name, None, "temporary file removed")


def _settle_config(repo: Repository) -> Iterator[Recovered]:
    """Finish a change of the server root, and keep the copy of models.config as the file is.

    The marker is replaced first, so its server root is what was wanted. A file that somebody else wrote or
    changed is left alone, and so is everything on a disk that takes no more.
    """
    marker = load(repo.layout.format, Format)
    try:
        file = read_config(repo)
        if marker is None or file.text is None or file.stamp is not Stamp.UNEDITED:
            return
        config = below_server_root(repo, file.config, marker.server_root)
    except ConfigInvalid:
        return
    if config != file.config:
        write_config(repo, config)
        yield Recovered(
            "", "config write", CONFIG_NAME, None, f"base paths are below {marker.server_root} now"
        )
    elif last_text(repo) != file.text:
        with suppress(StorageFailed):
            repo.disk.replace_file(repo.layout.last_config, file.text.encode(), step="c2-copy")
