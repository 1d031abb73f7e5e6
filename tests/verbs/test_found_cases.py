"""Cases that lie in a run or beside a model are used without a flag, and nothing that is found is executed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import BadCase, SmokeFailed, SourceChanged
from servingrepo.runs.case_files import LIMIT, read_case_files
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import list_run
from servingrepo.testing.exports import write_export
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path


def document(*cases: Any, **more: Any) -> str:
    return json.dumps({"schema": 1, "cases": list(cases), **more})


RIGHT = {"name": "right", "inputs": [1.0], "expect": {"outputs": {"y": {"close": [2.5]}}}}
WRONG = {"name": "wrong", "inputs": [1.0], "expect": {"outputs": {"y": {"equal": [3.0]}}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_export(tmp_path / "run" / "export")
    (tmp_path / "run" / "smoke").mkdir()
    return tmp_path / "run"


@pytest.mark.tf
def test_cases_of_run_and_model_are_both_used(tmp_path: Path, run: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    (run / "smoke" / "c.json").write_text(document(RIGHT))
    (tmp_path / "repo" / "configs").mkdir(exist_ok=True)
    (tmp_path / "repo" / "configs" / "m.cases.json").write_text(document(RIGHT))
    done = repo.promote(run, model="m", engine="embedded")
    assert done.proof is not None
    assert [one.source for one in done.proof.report.passed] == [
        f"case {tmp_path}/repo/configs/m.cases.json#1 (right)",
        f"case {run}/smoke/c.json#1 (right)",
    ]
    (tmp_path / "repo" / "configs" / "m.cases.json").write_text(document(WRONG))
    proof = repo.smoke("m@1", engine="embedded")
    assert [one.reason for one in proof.report.failed] == [
        "output y: element 0 is 2.5, expected 3.0"
    ]
    named = tmp_path / "named.json"
    named.write_text(document(RIGHT))
    proof = repo.smoke("m@1", engine="embedded", cases=[named])
    assert [one.source for one in proof.report.verdicts] == [f"case {named}#1 (right)"]


@pytest.mark.tf
def test_a_wrong_answer_to_a_case_of_a_run_fails(tmp_path: Path, run: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    (run / "smoke" / "c.toml").write_text(
        'schema = 1\n[[cases]]\nname = "n"\ninputs = [1.0]\nexpect.outputs.y.max = 2.0\n'
    )
    with pytest.raises(SmokeFailed) as caught:
        repo.promote(run, model="m", engine="embedded")
    assert "#1 (n)" in caught.value.problems[0]
    assert "element 0 is 2.5, expected between -inf and 2.0" in caught.value.problems[0]
    done = command("smoke", f"{run}/", "--engine", "embedded")
    assert (done.code, "#1 (n)" in done.out) == (70, True)


def test_a_case_of_a_run_that_does_not_fit_stops_a_promotion(tmp_path: Path, run: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    (run / "smoke" / "c.json").write_text(document({"inputs": {"z": 1}}, RIGHT))
    with pytest.raises(BadCase) as caught:
        repo.promote(run, model="m", engine="embedded", dry_run=True)
    assert len(caught.value.problems) == 2
    assert all("c.json#1: inputs: " in one for one in caught.value.problems)
    repo.promote(run, model="m", smoke=False, dry_run=True)


def test_a_predicate_in_a_run_is_refused_and_not_run(tmp_path: Path, run: Path) -> None:
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    case = {"inputs": [1.0], "expect": {"predicate": "evil:check"}}
    (run / "smoke" / "c.json").write_text(document(case))
    new_repository(tmp_path / "repo")
    done = command(
        *("--root", tmp_path / "repo", "promote", run, "--model", "m", "--engine", "embedded"),
        cwd=tmp_path,
    )
    assert done.code == 71
    assert "never from a run" in done.err
    assert not (tmp_path / "ran").exists()


def test_a_link_out_of_a_run_is_not_followed(tmp_path: Path, run: Path) -> None:
    (tmp_path / "secret.json").write_text(document(RIGHT))
    (run / "smoke" / "c.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadCase, match="a link out of the run"):
        read_case_files(list_run(run), FilesRead())
    (run / "smoke" / "c.json").unlink()
    (run / "smoke").rmdir()
    (run / "smoke").symlink_to(tmp_path)
    with pytest.raises(BadCase, match="a link out of the run"):
        read_case_files(list_run(run), FilesRead())


def test_too_many_bytes_in_a_run_are_refused(run: Path) -> None:
    for name in ("a.npz", "b.npz"):
        with (run / "smoke" / name).open("wb") as file:
            file.truncate(LIMIT // 2 + 1)
    with pytest.raises(BadCase, match="more than 67,108,864 bytes"):
        read_case_files(list_run(run), FilesRead())


@pytest.mark.tf
def test_cases_that_change_meanwhile_stop_a_promotion(tmp_path: Path, run: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    path = run / "smoke" / "c.json"
    path.write_text(document(RIGHT))

    def change(*_: Any) -> None:
        path.write_text(document(RIGHT, RIGHT))

    with pytest.raises(SourceChanged, match=r"smoke/c\.json"):
        repo.promote(run, model="m", engine="embedded", progress=change)


@pytest.mark.tf
def test_many_cases_have_few_lines_and_a_count(tmp_path: Path, run: Path) -> None:
    lines = ['{"schema": 1}', *['{"inputs": [1.0]}'] * 29, '{"inputs": ["text"]}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    done = command(
        *("smoke", f"{run}/", "--engine", "embedded", "--case", tmp_path / "c.jsonl"), cwd=tmp_path
    )
    assert done.code == 71
    assert done.out.count(": passed (") == 20
    assert "and 9 more cases passed" in done.out
    assert "c.jsonl#30): input x: 'text' is no float32" in done.out
    assert "28 answers to cases: median" in done.out


@pytest.mark.tf
def test_functions_and_warm_up_are_named_as_cases(tmp_path: Path, run: Path) -> None:
    from tests.smoke.test_files import records, warmup_requests

    extra = write_export(tmp_path / "warm") / "assets.extra"
    extra.mkdir()
    (extra / "tf_serving_warmup_requests").write_bytes(records(warmup_requests()[0]))
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "def some(): yield {'name': 'n', 'inputs': {'x': np.ones(2, 'float32')},"
        " 'expect': {'predicate': 'own:check'}}\n"
        "def check(case, outputs): return outputs['y'].tolist() == [2.5, 2.5]\n"
    )
    done = command(
        *("smoke", "./warm", "--engine", "embedded", "--case", "own:some", "--case", "warmup"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    assert "case own:some#1 (n)" in done.out
    assert "case assets.extra/tf_serving_warmup_requests#1" in done.out
    done = command("smoke", f"{run}/", "--case", "own.some", cwd=tmp_path)
    assert (done.code, "does not exist" in done.err) == (2, True)
