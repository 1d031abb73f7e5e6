"""What SageMaker's SDK packs: model.tar.gz of a job, and the same with code for inference in it."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from servingrepo.runs.scan import scan_run
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.producers, pytest.mark.timeout(400)]


@pytest.mark.parametrize("archive", ["compressed_artifacts/model.tar.gz", "repacked.tar.gz"])
def test_an_archive_is_promoted(sagemaker: Path, tmp_path: Path, archive: str) -> None:
    repo = new_repository(tmp_path)
    done = repo.promote(sagemaker / archive, model="m", engine="embedded")
    assert done.export == f"{sagemaker / archive}:000000001"
    published = repo.value.layout.version("m", 1)
    original = sagemaker / "ml/model/000000001"
    for path in original.rglob("*"):
        if path.is_file():
            assert (published / path.relative_to(original)).read_bytes() == path.read_bytes()


def test_a_repacked_archive_has_a_root_of_its_own(sagemaker: Path) -> None:
    with tarfile.open(sagemaker / "repacked.tar.gz") as archive:
        # repack_model adds the directory as "/": this is why unpacking takes such a member for the root.
        assert "" in archive.getnames()
    assert command("scan", sagemaker / "repacked.tar.gz").code == 0


def test_a_container_s_directory_is_promoted_with_its_metrics(
    sagemaker: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path)
    done = repo.promote(
        sagemaker / "ml", model="m", smoke=False, require=["output/data/auc >= 0.9"]
    )
    assert done.export == str(sagemaker / "ml/model/000000001")
    (checkpoint,) = [o for o in scan_run(sagemaker / "ml").others if o.kind == "tf-checkpoint"]
    assert checkpoint.path == "checkpoints/ckpt-1"
