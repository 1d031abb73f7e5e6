"""Cases that a smoke test writes: they are the requests that were answered, and are answered the same again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from servingrepo.errors import ServingRepoError, UsageError
from servingrepo.savedmodel.values import Signature
from servingrepo.smoke.cases import SmokeCase
from servingrepo.smoke.expectations import read_expected
from servingrepo.smoke.fitting import Fitted
from servingrepo.smoke.requests import Result
from servingrepo.smoke.tensors import Tensor, make_tensor
from servingrepo.smoke.writing import Sink
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import Served, write_export
from servingrepo.verbs.options import SmokeOptions
from tests.crash.test_steps import NEED_SMOKE
from tests.support import command
from tests.verbs.test_found_cases import document

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURES = (
    Served(),
    Served(key="regress", api="regress", feed="parse_example_v2"),
    Served(key="classify", api="classify", feed="parse_example"),
)


def smoke(folder: Path, run: str, *options: str | Path) -> Any:
    return command("smoke", f"./{run}", "--engine", "embedded", *options, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_export(tmp_path / "good", signatures=SIGNATURES)
    write_export(tmp_path / "changed", signatures=SIGNATURES, offset=2.001)
    return tmp_path


@pytest.mark.tf
@pytest.mark.parametrize("name", ["golden.json", "golden.jsonl"])
def test_golden_answers_come_from_nothing(folder: Path, name: str) -> None:
    done = smoke(folder, "good", "--write-answers", name)
    assert done.code == 0, done.err
    assert f"{name} has 9 cases now" in done.err
    assert smoke(folder, "good", "--case", name).code == 0
    done = smoke(folder, "changed", "--case", name)
    assert done.code == 70
    assert done.out.count(": failed (") == 9
    # A new answer takes the place of the old one.
    assert smoke(folder, "changed", "--case", name, "--write-answers", name).code == 0
    assert smoke(folder, "changed", "--case", name).code == 0
    assert smoke(folder, "good", "--case", name).code == 70


@pytest.mark.tf
def test_written_cases_expect_what_they_did(folder: Path) -> None:
    np.savez(folder / "d.npz", x=np.array([1.0, 0.1], dtype="float32"))
    expect = {"outputs": {"y": {"max": 9.0}}}
    (folder / "c.json").write_text(
        document({"file": "d.npz", "expect": expect}, {"inputs": [3], "outputs": [3.5]})
    )
    done = smoke(folder, "good", "--case", "c.json", "--write-cases", "w.json")
    assert done.code == 0, done.err
    first, second, *others = json.loads((folder / "w.json").read_text())["cases"]
    assert first == {
        "signature_name": "serving_default",
        "inputs": {"x": [1.0, 0.1]},
        "expect": expect,
    }
    assert second["outputs"] == [3.5]
    assert {one["signature_name"] for one in others} == {"classify", "regress"}
    assert "expect" not in others[0]
    assert smoke(folder, "good", "--case", "w.json").code == 0


@pytest.mark.tf
def test_a_failed_test_writes_nothing(folder: Path) -> None:
    (folder / "c.json").write_text(
        document({"inputs": [1.0], "expect": {"outputs": {"y": {"max": 1}}}})
    )
    before = (folder / "c.json").read_bytes()
    done = smoke(folder, "good", "--case", "c.json", "--write-answers", "c.json")
    assert done.code == 70
    assert "was not written" in done.err
    assert (folder / "c.json").read_bytes() == before


def test_other_names_and_two_files_are_refused() -> None:
    with pytest.raises(UsageError, match="does not end in"):
        SmokeOptions(write_cases="cases.toml")
    with pytest.raises(UsageError, match="exclude each other"):
        SmokeOptions(write_cases="a.json", write_answers="b.json")


SIGNATURE = Signature(key="s", method_name="", inputs=(), outputs=())


def written(case: SmokeCase | None, result: Result, *, answers: bool = True) -> Any:
    """Return the one case of a document, and what is missing in it."""
    sink = Sink(answers=answers)
    inputs = {"x": make_tensor("string", [2, 1], [b"a", b"\xff"])}
    sink.take(case, Fitted(signature=SIGNATURE, api="Predict", inputs=inputs), result)
    (one,) = json.loads(sink.document("c.json"))["cases"]
    return one


def answer(**outputs: Tensor) -> Result:
    return Result(outcome="passed", reason="", milliseconds=1.0, outputs=outputs)


def test_answers_of_each_dtype_are_expected_back() -> None:
    outputs = answer(
        f=Tensor(dtype="float32", shape=(1, 2), values=(0.10000000149011612, -1.0)),
        i=Tensor(dtype="int64", shape=(), values=(7,)),
        b=Tensor(dtype="bool", shape=(1,), values=(True,)),
        s=Tensor(dtype="string", shape=(2,), values=("ä".encode(), b"\xff")),
        c=Tensor(dtype="complex64", shape=(1,), values=(1j,)),
        e=Tensor(dtype="float32", shape=(2, 0), values=()),
    )
    one = written(None, outputs)
    assert one["inputs"] == {"x": [["a"], [{"b64": "/w=="}]]}
    assert one["expect"]["outputs"] == {
        "f": {"close": [[0.1, -1.0]]},
        "i": {"equal": 7},
        "b": {"equal": [True]},
        "s": {"equal": ["ä", {"b64": "/w=="}]},
        "c": {"dtype": "complex64", "shape": [1]},
        "e": {"dtype": "float32", "shape": [2, 0]},
    }


def test_new_answers_keep_other_conditions() -> None:
    expect = read_expected(
        {"outputs": {"y": {"close": [9.0], "rtol": 0.5, "min": 0}}, "predicate": "a:b"}
    )
    case = SmokeCase(file="c", position=1, name="n", data=[1.0], expect=expect)
    judged = Sink(answers=True).to_judge(case)
    assert judged.expect == read_expected(
        {"outputs": {"y": {"rtol": 0.5, "min": 0}}, "predicate": "a:b"}
    )
    result = answer(y=Tensor(dtype="float32", shape=(1,), values=(2.0,)))
    one = written(case, result)
    assert one["name"] == "n"
    assert one["expect"] == {
        "outputs": {"y": {"close": [2.0], "rtol": 0.5, "min": 0.0}},
        "predicate": "a:b",
    }


def test_an_expected_error_is_written_as_it_was() -> None:
    expect = read_expected({"error": {"code": "INTERNAL", "text": "part"}})
    case = SmokeCase(file="c", position=1, data=[1.0], expect=expect)
    refused = Result(
        outcome="failed", reason="", milliseconds=1.0, code="INTERNAL", text="a part of it"
    )
    assert written(case, refused)["expect"] == {"error": {"code": "INTERNAL", "text": "part"}}


def test_data_that_json_cannot_hold_is_missing() -> None:
    sink = Sink(answers=True)
    inputs = {"x": make_tensor("complex64", [1], [1j])}
    sink.take(None, Fitted(signature=SIGNATURE, api="Predict", inputs=inputs), answer())
    assert sink.lacking == ("s: JSON has no complex64",)
    assert sink.count == 0


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "EACCES"])
@pytest.mark.parametrize("step", sorted(NEED_SMOKE))
def test_a_fault_leaves_the_old_or_the_new_file(tmp_path: Path, step: str, fault: str) -> None:
    path = tmp_path / "golden.json"
    path.write_bytes(b"old")
    disk = Disk(faults=Faults.parse(f"{step}={fault}"))
    with pytest.raises(ServingRepoError):
        disk.replace_file(path, b"new", step="cases")
    assert path.read_bytes() in {b"old", b"new"}
    assert list(tmp_path.iterdir()) == [path]
