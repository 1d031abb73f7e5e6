"""A round of verification in several sittings: each takes the time it is given and goes on where the last stopped.

What was found whole is noted in a small file beside the records. It is no lock and no record: losing it means
only that the round starts again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import RepositoryDamaged, StorageFailed
from servingrepo.repository.records import encode, load
from servingrepo.repository.repository import load_record
from servingrepo.repository.verification import Verification, verify_one_of_many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.storage.progress import Progress

SCHEMA = 1


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one sitting did.

    Attributes:
        verified: What was verified now.
        before: Versions that earlier sittings of this round found whole.
        left: Versions that the next sitting begins with; the round is over when there are none.
        damaged: Versions that earlier sittings found damaged, and that there was no time to look at again.
    """

    verified: tuple[Verification, ...]
    before: tuple[str, ...]
    left: tuple[str, ...]
    damaged: tuple[str, ...] = ()


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """The file: digests of the versions that were found whole in this round, and damaged, by reference."""

    schema: int = SCHEMA
    started: str
    quick: bool
    done: dict[str, str] = {}
    damaged: dict[str, str] = {}


def verify_round(
    repo: Repository,
    versions: Sequence[tuple[str, int]],
    *,
    seconds: float,
    clock: Callable[[], float],
    quick: bool = False,
    progress: Progress | None = None,
) -> Round:
    """Verify versions until the time is over; at least one, and one that was begun to its end.

    A damaged version is never noted as done, so every sitting of a round tells of it; one that cannot be read is
    damaged. What no sitting has looked at yet comes first, so that damage never keeps a round from its end.

    Raises:
        NoSuchVersion: There is no such version of ours.
        StorageFailed: The note cannot be written.
    """
    ends = clock() + seconds
    state = _load(repo, quick=quick)
    digests = {f"{model}@{one}": _digest(repo, model, one) for model, one in versions}
    done, damaged = (
        {key: digest for key, digest in noted.items() if digests.get(key) == digest}
        for noted in (state.done, state.damaged)
    )
    before = tuple(key for key in digests if key in done)
    pending = [(model, one) for model, one in versions if f"{model}@{one}" not in done]
    pending.sort(key=lambda one: f"{one[0]}@{one[1]}" in damaged)
    known = frozenset(damaged)
    found: list[Verification] = []
    for model, one in pending:
        if found and clock() >= ends:
            break
        result = verify_one_of_many(repo, model, one, quick=quick, progress=progress)
        found.append(result)
        key = result.subject
        (done if result.ok else damaged)[key] = digests[key]
        if result.ok:
            damaged.pop(key, None)
        _save(repo, msgspec.structs.replace(state, done=done, damaged=damaged))
    rest = [f"{model}@{one}" for model, one in pending[len(found) :]]
    left = tuple(key for key in rest if key not in known)
    if not left:
        _save(repo, msgspec.structs.replace(state, done={}, damaged={}))
    return Round(
        verified=tuple(found),
        before=before,
        left=left,
        damaged=tuple(key for key in rest if key in known),
    )


def _digest(repo: Repository, model: str, version: int) -> str:
    """Return the digest of a version's record; empty if that cannot be read, so that nothing else has it."""
    try:
        record = load_record(repo, model, version)
    except (RepositoryDamaged, StorageFailed):
        return ""
    return record.digest if record is not None else ""


def _load(repo: Repository, *, quick: bool) -> RoundState:
    """Return what this round has done; another kind of round starts anew, and so does one whose note is broken."""
    try:
        state = load(repo.layout.round, RoundState)
    except RepositoryDamaged:
        state = None
    if state is None or state.quick != quick or not (state.done or state.damaged):
        return RoundState(started=repo.now(), quick=quick)
    return state


def _save(repo: Repository, state: RoundState) -> None:
    repo.disk.replace_file(repo.layout.round, encode(state), step="round")
