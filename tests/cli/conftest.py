"""A small repository for the command line to work on."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servingrepo
from tests.support import run_with

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose model `ranker` has versions 1 and 2, and serves 2."""
    repo, _ = servingrepo.init(tmp_path / "serving")
    for number in (1, 2):
        run = run_with(tmp_path / f"run{number}", offset=float(number))
        repo.promote(run, model="ranker", smoke=False, message=f"run {number}")
    return repo.root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory whose SavedModel was never promoted."""
    return run_with(tmp_path / "run3", offset=3.0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read: pytest's own are for one user only."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="servingrepo-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
