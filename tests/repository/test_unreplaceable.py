"""A models.config that is no file of the repository: a link, as in a ConfigMap's volume, or mounted by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import RepositoryDamaged
from servingrepo.repository.config_write import rewrite
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release

WRITERS: dict[str, Callable[[OpenRepository], object]] = {
    "promote": lambda repo: repo.promote(repo.root.parent / "new", model="m", smoke=False),
    "promote --dry-run": lambda repo: repo.promote(
        repo.root.parent / "new", model="m", smoke=False, dry_run=True
    ),
    "serve": lambda repo: repo.serve("m@1"),
    "unserve": lambda repo: repo.unserve("m"),
    "rollback": lambda repo: repo.rollback("m"),
    "label set": lambda repo: repo.label_set("m@2", "stable"),
    "adopt": lambda repo: repo.adopt((), all=True),
    "config write": lambda repo: rewrite(repo.value),
    "config write --take-edit": lambda repo: rewrite(repo.value, edit="take"),
    "config write --discard-edit": lambda repo: rewrite(repo.value, edit="discard"),
    "config write --server-root": lambda repo: rewrite(repo.value, server_root="/elsewhere"),
}


@pytest.fixture
def two(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with two versions of `m`, the second one served, and a run that is new."""
    for slope in (1.0, 2.0):
        release(slope)
    write_export(repo.root.parent / "new" / "saved_model", slope=3.0)
    return repo


@pytest.fixture
def linked(two: OpenRepository, tmp_path: Path) -> OpenRepository:
    """Its models.config is mounted as Kubernetes mounts a ConfigMap: config > ..data/config > ..2026/config."""
    models = two.value.layout.models
    (models / "..2026_05_10").mkdir()
    two.value.layout.config.rename(models / "..2026_05_10" / "models.config")
    (models / "..data").symlink_to("..2026_05_10")
    two.value.layout.config.symlink_to("..data/models.config")
    return two


@pytest.fixture
def mounted(two: OpenRepository, tmp_path: Path) -> Iterator[OpenRepository]:
    """Its models.config is mounted by itself, as with `subPath` or `docker run -v FILE:FILE`."""
    outside = tmp_path / "outside.config"
    shutil.copyfile(two.value.layout.config, outside)
    bind = ["mount", "--bind", str(outside), str(two.value.layout.config)]
    if os.geteuid() != 0 or subprocess.run(bind, check=False).returncode:
        pytest.skip("only root can mount")
    yield two
    subprocess.run(["umount", two.value.layout.config], check=True)


def untouched(repo: OpenRepository) -> dict[str, bytes]:
    """Return all that a refused command must leave: files, but for the lock's."""
    layout = repo.value.layout
    return {
        str(path): path.read_bytes()
        for path in sorted(repo.root.rglob("*"))
        if path.is_file() and path != layout.lock
    }


@pytest.mark.parametrize("writer", WRITERS)
def test_a_linked_config_is_never_replaced(writer: str, linked: OpenRepository) -> None:
    before = untouched(linked)
    with pytest.raises(RepositoryDamaged, match=r"is a link to \.\.data/models") as refused:
        WRITERS[writer](linked)
    assert "mount the directory in servers" in (refused.value.hint or "")
    assert untouched(linked) == before
    assert linked.value.layout.config.is_symlink()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_mounted_config_is_never_replaced(writer: str, mounted: OpenRepository) -> None:
    before = untouched(mounted)
    with pytest.raises(RepositoryDamaged, match="is mounted by itself"):
        WRITERS[writer](mounted)
    assert untouched(mounted) == before


def test_a_linked_config_stops_nobody_who_leaves_it(linked: OpenRepository) -> None:
    linked.hold("m")
    linked.mark_bad("m@1")
    assert linked.recover() == ()
    assert linked.list()[0].served == 2
    assert linked.status().ok
    assert linked.reload(endpoints=[]).models == {"m": (2,)}
    assert servingrepo.init(linked.root)[1] is False


def test_a_linked_config_of_others_is_not_to_be_taken_over(linked: OpenRepository) -> None:
    real = linked.value.layout.config.resolve()
    real.write_text(real.read_text().replace("versions: 2", "versions: 1"))
    status = linked.status()
    assert not status.ok
    assert "mount the directory in servers" in status.next
    # What the hint says works.
    linked.value.layout.config.unlink()
    shutil.copyfile(real, linked.value.layout.config)
    rewrite(linked.value, edit="take")
    assert linked.list()[0].served == 1


def test_a_link_to_nothing_is_not_replaced_by_init(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    config = tmp_path / "models" / "models.config"
    config.symlink_to("..data/models.config")
    with pytest.raises(RepositoryDamaged, match="where nothing is"):
        servingrepo.init(tmp_path)
    assert config.is_symlink()
