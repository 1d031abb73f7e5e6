"""Smoke tests against a real server: servingrepo's own, with TensorFlow in its child process."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import LoadFailed, SmokeFailed
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.smoke.files import load_cases
from servingrepo.smoke.report import SmokeReport, judge
from servingrepo.smoke.run import run_smoke
from servingrepo.testing.exports import Served, write_export

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servingrepo.smoke.cases import SmokeCase

pytestmark = pytest.mark.tf

FLOAT_FED = {"classify_x2_to_y3", "regress_x2_to_y3"}

GOOD = {
    "serving/saved_model_counter/00000123": set(),
    "serving/saved_model_half_plus_three/00000123": set(),
    "serving/saved_model_half_plus_two_2_versions/00000123": FLOAT_FED,
    "serving/saved_model_half_plus_two_2_versions/00000124": FLOAT_FED,
    "serving/saved_model_half_plus_two_cpu/00000123": FLOAT_FED,
    "serving/saved_model_half_plus_two_cpu_with_saved_model_config/00000123": FLOAT_FED,
    "serving/saved_model_half_plus_two_mkl/00000123": FLOAT_FED | {"regress_x_to_y2"},
    "serving/saved_model_half_plus_two_mlmd/00000123": FLOAT_FED,
    "serving/saved_model_half_plus_two_tf2_cpu/00000123": set(),
    "tfx/estimator_run/export/chicago-taxi/1646034756": set(),
}
"""Good models, and those of their signatures that the declared API does not fit, so that Predict must."""

BAD = {
    "serving/saved_model_half_plus_two_gpu/00000123": "GPU:0",
    "serving/saved_model_half_plus_two_gpu_trt/00000123": "GPU:0",
    "tfx/pusher_model_push/1584391735": "BoostedTreesBucketize",
}
DECLARED = {
    "tensorflow/serving/predict": "Predict",
    "tensorflow/serving/classify": "Classify",
    "tensorflow/serving/regress": "Regress",
}


def smoke(base_path: Path, version: int, cases: Sequence[SmokeCase] = ()) -> SmokeReport:
    path = next(
        one for one in base_path.iterdir() if one.name.isdigit() and int(one.name) == version
    )
    deadline = Deadline.after(60.0)
    with (
        EmbeddedEngine().serve(
            model="m", version=version, export=path, deadline=deadline
        ) as server,
        ServingClient(server.endpoint) as client,
    ):
        return run_smoke(
            client,
            model="m",
            version=version,
            inspection=inspect_export(path),
            cases=cases,
            deadline=deadline,
        )


@pytest.mark.corpus
@pytest.mark.parametrize("name", sorted(GOOD))
def test_run_smoke_of_a_good_model_of_others_proves_every_signature(
    corpus: Path, name: str
) -> None:
    path = corpus / name
    report = smoke(path.parent, int(path.name))
    judge(report, strict=True)
    assert report.unproven == ()
    methods = {one.key: one.method_name for one in inspect_export(path).signatures}
    for verdict in report.verdicts:
        fits = verdict.signature not in GOOD[name]
        assert verdict.api == (DECLARED[methods[verdict.signature]] if fits else "Predict")
        assert ("does not work" in verdict.reason) is not fits


@pytest.mark.corpus
@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_model_of_others_fails_for_its_reason(corpus: Path, name: str) -> None:
    path = corpus / name
    with pytest.raises(LoadFailed, match=BAD[name]):
        smoke(path.parent, int(path.name))


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["two_cpu", "two_tf2_cpu", "three"])
def test_run_smoke_of_a_model_that_lost_its_variables_fails(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(corpus / f"serving/saved_model_half_plus_{name}/00000123", tmp_path / "1")
    shutil.rmtree(tmp_path / "1" / "variables")
    report = smoke(tmp_path, 1)
    assert report.passed == ()
    assert report.failed
    with pytest.raises(SmokeFailed):
        judge(report, strict=False)


def test_run_smoke_of_exports_with_every_fault_gives_each_its_verdict(tmp_path: Path) -> None:
    served = [
        Served(),
        Served(key="classify", api="classify", feed="parse_example"),
        Served(key="examples", feed="parse_example_v2"),
        Served(key="lost", fault="uninitialized"),
        Served(key="nan", fault="nan"),
        Served(key="picky", fault="refuses"),
        Served(key="regress", api="regress", feed="parse_example_v2"),
        Served(key="wrong_method", api="classify"),
    ]
    write_export(tmp_path / "1", signatures=served, variables=True, assets={"w.txt": b"a\n"})
    report = smoke(tmp_path, 1)
    found = {one.signature: (one.api, one.outcome) for one in report.verdicts}
    assert found == {
        "serving_default": ("Predict", "passed"),
        "classify": ("Classify", "passed"),
        "examples": ("Predict", "passed"),
        "lost": ("Predict", "failed"),
        "nan": ("Predict", "inconclusive"),
        "picky": ("Predict", "inconclusive"),
        "regress": ("Regress", "passed"),
        "wrong_method": ("Predict", "passed"),
    }
    (failed,) = report.failed
    assert "uninitialized value lost/never_assigned" in failed.reason


def test_run_smoke_with_a_users_cases_compares_answers_and_blames_the_model(
    tmp_path: Path,
) -> None:
    served = [Served(), Served(key="picky", fault="refuses"), Served(key="other")]
    write_export(tmp_path / "1", signatures=served)
    file = tmp_path / "cases.json"
    file.write_text(
        json.dumps(
            [
                {"instances": [1.0, 2.0], "predictions": [2.5, 3.0]},
                {"inputs": {"x": [0.0]}, "outputs": {"y": [7.0]}},
                {"signature_name": "picky", "inputs": [1]},
            ]
        )
    )
    report = smoke(tmp_path, 1, load_cases(file))
    assert [(one.source, one.outcome) for one in report.verdicts] == [
        (f"case {file}#1", "passed"),
        (f"case {file}#2", "failed"),
        (f"case {file}#3", "failed"),
        ("made-up", "passed"),
    ]
    assert report.verdicts[1].reason == "output y: element 0 is 2.0, expected 7.0"


@pytest.mark.corpus
def test_run_smoke_with_examples_as_cases_goes_through_the_declared_api(
    corpus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cases.json"
    example = {"x": 1, "x2": 2}
    file.write_text(
        json.dumps(
            [
                {"signature_name": "classify_x_to_y", "examples": [example, example]},
                {"signature_name": "regress_x_to_y", "examples": [{"x2": 1}], "context": {"x": 1}},
            ]
        )
    )
    base = corpus / "serving/saved_model_half_plus_two_cpu"
    report = smoke(base, 123, load_cases(file))
    judge(report, strict=True)
    assert [one.api for one in report.verdicts[:2]] == ["Classify", "Regress"]
