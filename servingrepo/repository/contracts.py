"""The contract that a new version has to keep: the pinned one, else the signatures of the served version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import BadContract
from servingrepo.repository.config import say_elsewhere
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import Repository, load_record, need_version
from servingrepo.repository.snapshot import Snapshot, read_snapshot
from servingrepo.repository.transaction import writing
from servingrepo.savedmodel.compatibility import Comparison, compare_signatures
from servingrepo.savedmodel.contract import (
    CONTRACT_LIMIT,
    Contract,
    check_contract,
    contract_of,
    parse_contract,
    render_contract,
)
from servingrepo.savedmodel.reading import ANYWHERE, Unreadable, read_bounded
from servingrepo.savedmodel.values import Signature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What clients of a model rely on now: its contract or, where none is pinned, the served signatures.

    `name` is the contract's file or the served version. `unknown` says why nothing is known.
    """

    name: str = ""
    contract: Contract | None = None
    signatures: tuple[Signature, ...] | None = None
    unknown: str = ""

    def compare(self, signatures: Sequence[Signature]) -> Comparison | None:
        """Say what other signatures mean to these clients; None where it is unknown what they rely on."""
        if self.contract is not None:
            return check_contract(self.contract, signatures)
        if self.signatures is not None:
            return compare_signatures(self.signatures, signatures)
        return None


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """A contract to show or write. `pinned`: the file at `path` has it; `changed`: it was written there now."""

    model: str
    path: str
    pinned: bool
    of: str
    contract: Contract
    text: str
    changed: bool = False
    dry_run: bool = False


def find_baseline(repo: Repository, now: Snapshot, *, contract: Path | None = None) -> Baseline:
    """Return what a new version of a model has to keep.

    Args:
        repo: The repository.
        now: A snapshot of the model.
        contract: A contract's file; by default `configs/<model>.contract.toml` in the root, if it is there.

    Raises:
        BadContract: The file cannot be read, is no contract, or is another model's.
    """
    model = now.model
    path = contract or repo.layout.contract(model)
    pinned = load_contract(path, model, must=contract is not None)
    if pinned is not None:
        return Baseline(name=str(path), contract=pinned)
    if now.elsewhere:
        return Baseline(unknown=say_elsewhere(repo, model, now.elsewhere))
    if now.top is None:
        return Baseline(
            unknown=f"nothing of {model} is served, so there is nothing to compare with"
        )
    name = f"{model}@{now.top}"
    signatures = signatures_of(repo, model, now.top)
    if signatures is None:
        return Baseline(name=name, unknown=f"{name} has no record and cannot be read")
    return Baseline(name=name, signatures=signatures)


def load_contract(path: Path, model: str, *, must: bool = False) -> Contract | None:
    """Read a model's contract; None where there is no such file, unless it `must` be there.

    Raises:
        BadContract: The file cannot be read, is no contract, or is another model's.
    """
    try:
        data = read_bounded(path, limit=CONTRACT_LIMIT)
    except Unreadable as error:
        if error.missing and not must and not path.is_symlink():
            return None
        raise BadContract(f"the contract {path} cannot be read: {error}") from error
    contract = parse_contract(data, source=str(path))
    if contract.model != model:
        raise BadContract(
            f"{path} is the contract of {contract.model!r}, not of {model}",
            hint=f'it must say model = "{model}"',
        )
    return contract


def show_contract(repo: Repository, reference: str) -> Pinned:
    """Return the pinned contract. If none is pinned, or a version is named, return what that version promises.

    Raises:
        NoSuchVersion: There is neither a contract nor a version.
        BadContract: The pinned file is no contract.
    """
    parsed = parse_reference(reference)
    path = repo.layout.contract(parsed.model)
    if parsed.kind == "default":
        found = load_contract(path, parsed.model)
        if found is not None:
            return _pinned(path, found, of=str(path), pinned=True)
    version = resolve(repo, parsed)
    contract = _contract_of_version(repo, parsed.model, version)
    return _pinned(path, contract, of=f"{parsed.model}@{version}", pinned=False)


def write_contract(
    repo: Repository, reference: str, *, overwrite: bool = False, dry_run: bool = False
) -> Pinned:
    """Pin all that a version promises: by default the served version, else the latest.

    People edit contracts. So a file with another content is kept, unless `overwrite` is given.

    Raises:
        BadContract: There is a contract already, with another content.
        NoSuchVersion: There is no such version.
    """
    parsed = parse_reference(reference)
    path = repo.layout.contract(parsed.model)
    with writing(repo, dry_run=dry_run):
        version = resolve(repo, parsed)
        contract = _contract_of_version(repo, parsed.model, version)
        pinned = _pinned(path, contract, of=f"{parsed.model}@{version}", pinned=True)
        pinned = msgspec.structs.replace(pinned, dry_run=dry_run)
        before = _bytes_of(path)
        if before == pinned.text.encode():
            return pinned
        if before is not None and not overwrite:
            raise BadContract(
                f"{path} is there and says something else; it was left alone",
                hint=f"edit it, or write it anew: servingrepo contract {reference} --write --overwrite",
            )
        if not dry_run:
            repo.disk.make_directory(path.parent)
            repo.disk.replace_file(path, pinned.text.encode(), step="contract")
        return msgspec.structs.replace(pinned, changed=True)


def current_baseline(repo: Repository, model: str) -> Baseline:
    """Return what a version of a model has to keep now, read without a lock."""
    return find_baseline(repo, read_snapshot(repo, model))


def _bytes_of(path: Path) -> bytes | None:
    """Return what a file holds: None if there is no file, nothing if it cannot be read."""
    try:
        return read_bounded(path, limit=CONTRACT_LIMIT)
    except Unreadable as error:
        return None if error.missing and not path.is_symlink() else b""


def _contract_of_version(repo: Repository, model: str, version: int) -> Contract:
    return contract_of(model, need_version(repo, model, version).signatures)


def _pinned(path: Path, contract: Contract, *, of: str, pinned: bool) -> Pinned:
    return Pinned(
        model=contract.model,
        path=str(path),
        pinned=pinned,
        of=of,
        contract=contract,
        text=render_contract(contract),
    )


def signatures_of(repo: Repository, model: str, version: int) -> tuple[Signature, ...] | None:
    """Return the signatures of a version from its record, or of an unmanaged one from its files; None if neither."""
    record = load_record(repo, model, version)
    if record is not None:
        return record.signatures
    from servingrepo.savedmodel.inspection import inspect_export

    inspection = inspect_export(repo.layout.version(model, version), boundary=ANYWHERE)
    return inspection.signatures if inspection.tags else None
