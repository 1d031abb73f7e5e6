"""Single bits flipped at random in models that other people wrote: which flips are found, and by what.

Short in `make test`; `make flips` flips 2,000. Every flip that is not found makes the test fail, and prints where.
"""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.repository.verification import verify_path, verify_version
from tests.support import new_repository

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.repository.verification import Verification

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]

FLIPS = int(os.environ.get("FLIPS", "60"))
TF2 = "serving/saved_model_half_plus_two_tf2_cpu/00000123"
MODELS = [
    TF2,
    "serving/saved_model_half_plus_two_mkl/00000123",
    "serving/saved_model_counter/00000123",
    "serving/saved_model_half_plus_two_mlmd/00000123",
    "tfx/estimator_run/export/chicago-taxi/1646034756",
]
CHECKED = ("variables/variables.index", "variables/variables.data-")


def flip(file: Path, bit: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(bit // 8)
        byte = stream.read(1)[0] ^ 1 << bit % 8
        stream.seek(bit // 8)
        stream.write(bytes([byte]))


def somewhere(files: list[Path], chance: random.Random) -> tuple[Path, int]:
    """Choose a file, so that small ones get their share, and a bit of it."""
    file = chance.choice([one for one in files if one.stat().st_size])
    return file, chance.randrange(file.stat().st_size * 8)


def test_every_flip_in_a_published_version_is_found(corpus: Path, tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number, name in enumerate(MODELS):
        repo.promote(corpus / name, model=f"m{number}", smoke=False)
    chance = random.Random(FLIPS)  # noqa: S311 - repeatable, not secret
    missed = []
    for count in range(FLIPS):
        model = f"m{count % len(MODELS)}"
        version = repo.value.layout.version(model, 1)
        files = sorted(one for one in version.rglob("*") if one.is_file())
        file, bit = somewhere(files, chance)
        flip(file, bit)
        found = verify_version(repo.value, model, 1)
        if found.differences.changed != (str(file.relative_to(version)),):
            missed.append((model, file, bit))
        flip(file, bit)
    assert missed == []
    assert all(one.ok for one in repo.verify())


def test_every_flip_that_something_vouches_for_is_found_in_a_run_and_the_rest_is_named(
    corpus: Path, tmp_path: Path
) -> None:
    """Without a record: tensors and index by their checksums, the graph by fingerprint.pb where there is one."""
    copies = []
    for number, name in enumerate(MODELS):
        copies.append(tmp_path / str(number))
        shutil.copytree(corpus / name, copies[-1])
    chance = random.Random(FLIPS + 1)  # noqa: S311 - repeatable, not secret
    missed = []
    for count in range(FLIPS):
        path = copies[count % len(MODELS)]
        files = sorted(one for one in path.rglob("*") if one.is_file())
        file, bit = somewhere(files, chance)
        name = str(file.relative_to(path))
        flip(file, bit)
        found = verify_path(path)
        if found.ok and not is_said_to_be_unchecked(found, name):
            missed.append((path.name, name, bit))
        if name.startswith(CHECKED) or (name == "saved_model.pb" and path == copies[0]):
            assert not found.ok, (name, bit)
        flip(file, bit)
    assert missed == []


def is_said_to_be_unchecked(found: Verification, name: str) -> bool:
    """Tell whether the report says that nothing vouches for a file."""
    return any(name in line for line in found.not_checked)
