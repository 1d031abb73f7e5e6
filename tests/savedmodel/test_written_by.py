"""Models as TensorFlow itself wrote them, release by release: nothing in them is wrong, and all of it is checked.

`written_by/write_model.py` wrote each with the TensorFlow that its folder is named after; they stay as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from servingrepo.repository.verification import verify_path
from servingrepo.savedmodel.fingerprint import HASHES
from tests.savedmodel.test_flips import flip

FOLDERS = sorted(path for path in Path(__file__).with_name("written_by").iterdir() if path.is_dir())
PRODUCERS = {"2.4": None, "2.11": 0, "2.12": 1, "2.15": 1, "2.20": 1, "2.21": 4}


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.name)
def test_what_a_release_of_tensorflow_wrote_is_whole(path: Path) -> None:
    found = verify_path(path)
    assert found.problems == ()
    assert found.inspection.tensorflow_version.startswith(f"{path.name}.")
    assert [one.key for one in found.inspection.signatures] == ["look_up", "serving_default"]
    assert found.inspection.assets == ("words.txt",)
    assert found.inspection.demands is not None
    assert found.inspection.demands.effects == ()
    assert found.tensors is not None
    assert (found.tensors.tensors, found.tensors.checked, found.tensors.unreferenced) == (3, 3, {})
    fingerprint = found.inspection.fingerprint
    assert (fingerprint.producer if fingerprint is not None else None) == PRODUCERS[path.name]
    if fingerprint is not None:
        verdicts = {one.name: one.verdict for one in fingerprint.fields}
        assert verdicts == dict.fromkeys(HASHES, "matches")


def test_the_first_fingerprints_are_said_to_cover_the_graph_alone(tmp_path: Path) -> None:
    """TensorFlow 2.11 hashed the GraphDef where later releases hash the whole file."""
    path = shutil.copytree(Path(__file__).with_name("written_by") / "2.11", tmp_path / "1")
    (line,) = (one for one in verify_path(path).not_checked if one.startswith("saved_model.pb"))
    assert "what is not graph, signature or function" in line
    data = (path / "saved_model.pb").read_bytes()
    flip(path / "saved_model.pb", 8 * data.rindex(b"MatMul"))
    assert any("saved_model_checksum" in one for one in verify_path(path).problems)
