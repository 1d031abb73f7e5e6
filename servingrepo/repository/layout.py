"""The layout: where each file of a repository lies. These are pure paths; this module touches no disk."""

from __future__ import annotations

from pathlib import Path

import msgspec

CONFIG_NAME = "models.config"
STAGING_NAME = ".staging"
TRASH_NAME = ".trash"
TXID = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"
"""The names that `new_txid` makes, as a pattern. We remove nothing of another name."""


class Layout(msgspec.Struct, frozen=True):
    """The paths below one root."""

    root: Path

    @property
    def models(self) -> Path:
        """The directory that servers mount."""
        return self.root / "models"

    @property
    def config(self) -> Path:
        """The file that servers read, and the only record of what is served."""
        return self.models / CONFIG_NAME

    @property
    def own(self) -> Path:
        """Our records: beside the models, never in them."""
        return self.root / ".servingrepo"

    @property
    def format(self) -> Path:
        """The marker that makes a directory a repository."""
        return self.own / "format.json"

    @property
    def lock(self) -> Path:
        """The file whose flock is the repository's lock."""
        return self.own / "lock"

    @property
    def smoke_lock(self) -> Path:
        """The file whose flock a smoke test on a running server holds: only one can use such a server at a time."""
        return self.own / "smoke-lock"

    @property
    def journal(self) -> Path:
        """The intents of commands that are running or died."""
        return self.own / "journal"

    @property
    def history(self) -> Path:
        """One line per event, append-only."""
        return self.own / "history.jsonl"

    @property
    def round(self) -> Path:
        """The versions that the present round of verification has found whole or damaged."""
        return self.own / "round.json"

    @property
    def last_config(self) -> Path:
        """A copy of the models.config that we wrote last: it shows what an edit by hand changed."""
        return self.own / CONFIG_NAME

    @property
    def stragglers(self) -> Path:
        """The lagging servers: endpoints that may not follow models.config yet."""
        return self.own / "stragglers.json"

    @property
    def reserved_space(self) -> Path:
        """The reserved space: a file that a rollback on a full disk may use up."""
        return self.own / "spare"

    @property
    def states(self) -> Path:
        """The folder of model states and records."""
        return self.own / "models"

    @property
    def adoptions(self) -> Path:
        """The folder of adoptions that can be taken back."""
        return self.own / "adoptions"

    def adoption(self, txid: str) -> Path:
        """Say where an adoption is noted."""
        return self.adoptions / f"{txid}.json"

    def state(self, model: str) -> Path:
        """Say where the state of a model is."""
        return self.states / f"{model}.json"

    def records(self, model: str) -> Path:
        """Say where the records of a model's versions are."""
        return self.states / model

    def record(self, model: str, version: int) -> Path:
        """Say where one version's record is."""
        return self.records(model) / f"{version}.json"

    @property
    def contracts(self) -> Path:
        """The folder of contracts, among other files that people write."""
        return self.root / "configs"

    def contract(self, model: str) -> Path:
        """Say where the contract of a model is, if it has one."""
        return self.contracts / f"{model}.contract.toml"

    def model(self, model: str) -> Path:
        """Say where a model's base path is, as we see it."""
        return self.models / model

    def version(self, model: str, version: int) -> Path:
        """Say where a published version is."""
        return self.models / model / str(version)

    def staging(self, model: str, txid: str) -> Path:
        """Say where one promotion puts its staging copy.

        It is on the file system of its target, so that a rename publishes it. Its name is no integer, so that TF
        Serving ignores it. The version directory below it has its final number, so that a server can serve from it.
        """
        return self.models / model / STAGING_NAME / txid

    def trash(self, model: str) -> Path:
        """Say where pruned versions of a model lie: on the same file system, and under a name that is no integer."""
        return self.models / model / TRASH_NAME

    def intent(self, txid: str) -> Path:
        """Say where an intent is."""
        return self.journal / f"{txid}.json"
