"""A reader that behaves like TensorFlow Serving's poller, while versions are published and switched."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

import servingrepo
from servingrepo.modelconfig import models, parse
from servingrepo.modelconfig.names import names_by_version
from servingrepo.storage.copying import hash_source
from servingrepo.storage.hashing import content_digest, hash_tree
from servingrepo.storage.tree import read_tree
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

PROMOTIONS = 12


class Poller:
    """Lists a base path every few milliseconds and takes each new integer at once for a whole version.

    That is what file_system_storage_path_source.cc does, only faster than once a second. It reads
    models.config too, each time whole.
    """

    def __init__(self, shelf: Path, *, contents: set[str]) -> None:
        self.shelf = shelf
        self.contents = contents
        self.seen: set[int] = set()
        self.configs: set[bytes] = set()
        self.wrong: list[str] = []
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - any surprise is a finding
                self.wrong.append(repr(error))
            self.looks += 1
            time.sleep(0.001)

    def _look(self) -> None:
        base = self.shelf / "m"
        for number, names in names_by_version(one.name for one in base.iterdir()).items():
            if number in self.seen:
                continue
            self.seen.add(number)
            if content_digest(hash_tree(base / names[0])) not in self.contents:
                self.wrong.append(f"{number} was not whole when it was seen first")
        text = (self.shelf / "models.config").read_bytes()
        if text in self.configs:
            return
        self.configs.add(text)
        for one in models(parse(text.decode(), source="models.config")):
            for version in one.versions:
                if not (base / str(version) / "saved_model.pb").is_file():
                    self.wrong.append(f"{version} is pinned and not there")


@pytest.mark.parametrize("kind", ["promote", "promote and roll back"])
def test_a_poller_never_sees_a_version_that_is_not_whole(kind: str, tmp_path: Path) -> None:
    repo, _ = servingrepo.init(tmp_path / "repo")
    exports = [
        write_export(
            tmp_path / "runs" / str(number) / "saved_model",
            slope=float(number),
            variables=True,
            assets={f"words-{one}": f"{one}\n".encode() for one in range(20)},
            payload_bytes=3_000_000,
        )
        for number in range(PROMOTIONS)
    ]
    contents = {content_digest(hash_source(read_tree(one, boundary=one))) for one in exports}
    repo.value.layout.model("m").mkdir()
    with Poller(repo.value.layout.models, contents=contents) as poller:
        for export in exports:
            version = repo.promote(export, model="m", smoke=False).version
            if kind != "promote" and version > 1:
                repo.rollback("m", mark_bad=False)
        time.sleep(0.05)
    assert poller.wrong == []
    assert poller.seen == set(range(1, PROMOTIONS + 1))
    assert poller.looks > PROMOTIONS
    assert len(poller.configs) > 2
