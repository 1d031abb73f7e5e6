"""What TensorFlow Hub hands out and keeps: an archive, and its cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.runs.scan import scan_run
from tests.support import new_repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.producers, pytest.mark.timeout(400)]


def test_the_archive_is_promoted_and_serves(hub: Path, tmp_path: Path) -> None:
    repo = new_repository(tmp_path)
    done = repo.promote(hub / "site/half.tar.gz", model="m", engine="embedded")
    assert done.export == str(hub / "site/half.tar.gz")


def test_a_module_in_the_cache_is_promoted_from_the_cache_and_by_its_own_directory(
    hub: Path, tmp_path: Path
) -> None:
    (module,) = [path for path in (hub / "cache").iterdir() if path.is_dir()]
    assert module.with_name(f"{module.name}.descriptor.txt").is_file()
    assert scan_run(hub / "cache").export == str(module)
    done = new_repository(tmp_path).promote(module, model="m", smoke=False)
    assert done.export == str(module)
