"""A round of verification in several sittings: each takes the time it is given and goes on where the last stopped.

What was found whole is noted in a small file beside the records. It is no lock and no record: losing it means
only that the round starts again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import RepositoryDamaged
from servingrepo.repository.records import encode, load
from servingrepo.repository.repository import need_version
from servingrepo.repository.verification import Verification, verify_version

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
    """

    verified: tuple[Verification, ...]
    before: tuple[str, ...]
    left: tuple[str, ...]


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """The file: digests of the versions that were found whole in this round, by reference."""

    schema: int = SCHEMA
    started: str
    quick: bool
    done: dict[str, str] = {}


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

    A damaged version is never noted as done, so every sitting of a round tells of it, after those that no
    sitting has looked at yet.

    Raises:
        StorageFailed: A version cannot be read, or the note not be written.
    """
    ends = clock() + seconds
    state = _load(repo, quick=quick)
    digests = {f"{model}@{one}": need_version(repo, model, one).digest for model, one in versions}
    done = {key: digest for key, digest in state.done.items() if digests.get(key) == digest}
    before = tuple(key for key in digests if key in done)
    pending = [(model, one) for model, one in versions if f"{model}@{one}" not in done]
    found: list[Verification] = []
    for model, one in pending:
        if found and clock() >= ends:
            break
        result = verify_version(repo, model, one, quick=quick, progress=progress)
        found.append(result)
        if result.ok:
            done[result.subject] = digests[result.subject]
            _save(repo, msgspec.structs.replace(state, done=done))
    left = tuple(f"{model}@{one}" for model, one in pending[len(found) :])
    if not left:
        _save(repo, msgspec.structs.replace(state, done={}))
    return Round(verified=tuple(found), before=before, left=left)


def _load(repo: Repository, *, quick: bool) -> RoundState:
    """Return what this round has done; another kind of round starts anew, and so does one whose note is broken."""
    try:
        state = load(repo.layout.round, RoundState)
    except RepositoryDamaged:
        state = None
    if state is None or state.quick != quick or not state.done:
        return RoundState(started=repo.now(), quick=quick)
    return state


def _save(repo: Repository, state: RoundState) -> None:
    repo.disk.replace_file(repo.layout.round, encode(state), step="round")
