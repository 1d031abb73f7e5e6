"""The layout: where each file of a repository lies. These are pure paths; this module touches no disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import msgspec

CONFIG_NAME = "models.config"
STAGING_NAME = ".staging"
TRASH_NAME = ".trash"
TXID = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"
"""The names that `new_txid` makes, as a pattern. We remove nothing of another name."""


def is_state_name(name: str) -> bool:
    """Tell whether a file among the records is the state of a model: the model's name and `.json`."""
    return name.endswith(".json") and name[0] != "."


def overlaps(paths: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield two models each, of which the first one's path is that of the second or lies in it.

    Paths that differ only in case count as one: on some disks they are one folder.
    """
    names: dict[str, str] = {}
    for name, path in paths.items():
        other = names.setdefault(path.casefold(), name)
        if other != name:
            yield name, other
    for name, path in paths.items():
        parts = path.casefold().split("/")
        for inner in range(1, len(parts)):
            outer = names.get("/".join(parts[:inner]))
            if outer is not None:
                yield name, outer


class Layout(msgspec.Struct, frozen=True, dict=True):
    """The paths of one repository. `models_at` is the models directory where it is not `<root>/models`.

    `paths` has the path of each model whose folder in the models directory is not its name, as in `Format`. Folders
    that every version's path begins with are joined once, because there may be 50,000 of these.
    """

    root: Path
    models_at: Path | None = None
    paths: Mapping[str, str] = {}

    @cached_property
    def models(self) -> Path:
        """The models directory, which servers mount."""
        return self.models_at or self.root / "models"

    @property
    def config(self) -> Path:
        """The file that servers read, and the only record of what is served."""
        return self.models / CONFIG_NAME

    @cached_property
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

    @cached_property
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
        return self.states.joinpath(model, f"{version}.json")

    @property
    def contracts(self) -> Path:
        """The folder of contracts, among other files that people write."""
        return self.root / "configs"

    def contract(self, model: str) -> Path:
        """Say where the contract of a model is, if it has one."""
        return self.contracts / f"{model}.contract.toml"

    def path(self, model: str) -> str:
        """Return a model's path: its folder, relative to the models directory. Usually it is the model's name."""
        return self.paths.get(model, model)

    def model(self, model: str) -> Path:
        """Say where a model's base path is, as we see it."""
        return self.models / self.path(model)

    def folders(self, model: str) -> tuple[Path, ...]:
        """Return the folders on the way from the models directory to a model's folder, that one included."""
        folder = self.model(model)
        inner = self.path(model).count("/")
        return (*reversed(folder.parents[:inner]), folder)

    def version(self, model: str, version: int) -> Path:
        """Say where a published version is."""
        return self.models.joinpath(self.path(model), str(version))

    def staging(self, model: str, txid: str) -> Path:
        """Say where one promotion puts its staging copy.

        It is on the file system of its target, so that a rename publishes it. Its name is no integer, so that TF
        Serving ignores it. The version directory below it has its final number, so that a server can serve from it.
        """
        return self.model(model) / STAGING_NAME / txid

    def trash(self, model: str) -> Path:
        """Say where pruned versions of a model lie: on the same file system, and under a name that is no integer."""
        return self.model(model) / TRASH_NAME

    def intent(self, txid: str) -> Path:
        """Say where an intent is."""
        return self.journal / f"{txid}.json"
