"""verify: compares versions with their records, byte by byte, and exports at paths with their own checksums."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import NoSuchVersion, RepositoryDamaged, StorageFailed
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import (
    find_version,
    model_names,
    need_state,
    published_versions,
)
from servingrepo.repository.verification import (
    lost_versions,
    verify_one_of_many,
    verify_path,
    verify_round,
    verify_version,
)
from servingrepo.texts import as_path, is_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servingrepo.repository.repository import Repository
    from servingrepo.repository.verification import Round, Verification
    from servingrepo.verbs.options import VerifyOptions


def verify(
    repo: Repository, references: Sequence[str | Path], options: VerifyOptions
) -> tuple[Verification, ...]:
    """Compare versions with their records, byte by byte, and exports at paths with their own checksums.

    Without references it verifies everything; a bare NAME means all versions of the model. `quick` reads small files
    only, and the result says what was not checked. `deep` compares every tensor with its checksum again, also where
    the record vouches for them.

    Among several versions, one that cannot be read counts as damaged. So does one that is missing although no command
    of servingrepo removed it.

    Raises:
        NoSuchVersion: A reference names a version that does not exist.
        StorageFailed: A path, or the only version, cannot be read.
    """
    quick, deep, progress = options.quick, options.deep, options.progress
    found: list[Verification] = []
    known: dict[Any, Any] = {}
    texts = references or model_names(repo)
    for text in texts:
        if is_path(text):
            found.append(verify_path(as_path(text, "path"), quick=quick, progress=progress))
            continue
        versions = _versions(repo, str(text))
        alone = len(texts) == len(versions) == 1
        verify_it = verify_version if alone else verify_one_of_many
        found.extend(
            _sharing(
                verify_it(repo, model, version, quick=quick, deep=deep, progress=progress), known
            )
            for model, version in versions
        )
    return tuple(found)


_SHARED = ("not_checked", "differences", "model")
_SHARED_OF_EXPORTS = (
    *("tags", "tag_sets", "tensorflow_version", "signatures", "examples", "assets", "demands"),
    *("notes", "defects"),
)
"""What many results say alike: of 50,000 versions most have the graph of the one before."""


def _sharing(found: Verification, known: dict[Any, Any]) -> Verification:
    """Return a result that shares with others what they say alike, so that many of them fit into memory."""

    def same(of: Any, names: Sequence[str]) -> dict[str, Any]:
        values = ((name, getattr(of, name)) for name in names)
        return {name: known.setdefault(value, value) for name, value in values}

    inspection = msgspec.structs.replace(
        found.inspection, **same(found.inspection, _SHARED_OF_EXPORTS)
    )
    return msgspec.structs.replace(found, inspection=inspection, **same(found, _SHARED))


def verify_for(
    repo: Repository, references: Sequence[str], seconds: float, options: VerifyOptions
) -> Round:
    """Verify for some seconds, beginning where the last call stopped; see `servingrepo verify`.

    Raises:
        NoSuchVersion: A reference names a version that does not exist.
        StorageFailed: A file cannot be read, or the note of this call cannot be written.
    """
    texts = references or model_names(repo)
    return verify_round(
        repo,
        [one for text in texts for one in _versions(repo, text)],
        seconds=seconds,
        clock=time.monotonic,
        quick=options.quick,
        deep=options.deep,
        progress=options.progress,
    )


def size(repo: Repository, *references: str | Path) -> int:
    """Return how many bytes `verify` would read of these versions: for its progress bar."""
    total = 0
    for text in references or model_names(repo):
        for version in () if is_path(text) else _versions(repo, str(text)):
            with suppress(NoSuchVersion, RepositoryDamaged, StorageFailed):
                total += find_version(repo, *version)[0].size
    return total


def _versions(repo: Repository, text: str) -> Sequence[tuple[str, int]]:
    """Return the versions that a reference means, each as its model and number."""
    parsed = parse_reference(text)
    if parsed.kind == "default":
        need_state(repo, parsed.model)
        there = published_versions(repo, parsed.model)
        numbers = sorted({*there, *lost_versions(repo, parsed.model)})
        return [(parsed.model, one) for one in numbers]
    return [(parsed.model, resolve(repo, parsed))]
