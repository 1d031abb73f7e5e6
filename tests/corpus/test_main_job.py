"""The whole main job on SavedModels and run directories that other people wrote over ten years of TensorFlow.

What is right was observed on a real TensorFlow Serving and is written in the corpus's README.
"""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from pathlib import Path

import pytest

from servingrepo.api import OpenRepository
from servingrepo.errors import (
    AmbiguousExport,
    NoSavedModel,
    ServingRepoError,
    UnsupportedExport,
)
from servingrepo.servers.client import ServingClient
from servingrepo.smoke.report import judge
from servingrepo.verbs.values import Promotion
from tests.support import live_server, new_repository

pytestmark = [pytest.mark.corpus, pytest.mark.tf, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Good:
    """A run that a real server loads, where its SavedModel lies, and the API that proves each signature."""

    run: str
    export: str
    apis: dict[str, str]
    saved_model: str | None = None

    @property
    def model(self) -> str:
        return self.run.rpartition("/")[2]


HALF = {
    "classify_x_to_y": "Classify",
    "regress_x2_to_y3": "Predict",  # says regress, but takes floats where Regress sends tf.Examples
    "regress_x_to_y": "Regress",
    "regress_x_to_y2": "Regress",
    "serving_default": "Predict",
}
"""The signatures of the half_plus_two models, with the API through which each can be had."""

MORE = {"classify_x2_to_y3": "Predict"}

GOOD = [
    Good("serving/saved_model_half_plus_two_cpu", "00000123", HALF),
    Good("serving/saved_model_half_plus_two_cpu_with_saved_model_config", "00000123", HALF | MORE),
    Good("serving/saved_model_half_plus_two_mlmd", "00000123", HALF),
    Good(
        "serving/saved_model_half_plus_two_mkl",
        "00000123",
        HALF | {"regress_x_to_y2": "Predict"},  # its output has four dimensions
    ),
    Good(
        "serving/saved_model_half_plus_two_tf2_cpu",
        "00000123",
        dict.fromkeys(HALF | MORE, "Predict"),
    ),
    Good("serving/saved_model_half_plus_two_2_versions", "00000124", HALF | MORE, "00000124"),
    Good(
        "serving/saved_model_half_plus_three",
        "00000123",
        {"serving_default": "Predict", "tensorflow/serving/regress": "Regress"},
    ),
    Good(
        "serving/saved_model_counter",
        "00000123",
        dict.fromkeys(
            ("get_counter", "incr_counter", "incr_counter_by", "reset_counter"), "Predict"
        ),
    ),
    Good(
        "tfx/estimator_run",
        "export/chicago-taxi/1646034756",
        {
            "classification": "Classify",
            "predict": "Predict",
            "regression": "Regress",
            "serving_default": "Classify",
        },
    ),
]

BAD: list[tuple[str, type[ServingRepoError], tuple[str, ...]]] = [
    ("serving/saved_model_half_plus_two_gpu", UnsupportedExport, ("GPU",)),
    ("serving/saved_model_half_plus_two_gpu_trt", UnsupportedExport, ("GPU",)),
    ("serving/saved_model_half_plus_two_tflite", NoSavedModel, ("TFLite",)),
    ("serving/parse_example_tflite", NoSavedModel, ("TFLite",)),
    ("serving/bad_half_plus_two", UnsupportedExport, ("SessionBundle",)),
    ("tfx/pusher_model_push", UnsupportedExport, ("BoostedTreesBucketize",)),
    ("tfx/transform_fn", UnsupportedExport, ("serve",)),
]


Promoted = tuple[OpenRepository, dict[str, Promotion | ServingRepoError]]


@pytest.fixture(scope="module")
def promoted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """One repository with all of the good ones, each promoted with its smoke test; or the error it met."""
    repo = new_repository(tmp_path_factory.mktemp("corpus") / "serving")
    done: dict[str, Promotion | ServingRepoError] = {}
    for good in GOOD:
        try:
            done[good.model] = repo.promote(
                corpus / good.run,
                model=good.model,
                saved_model=good.saved_model,
                engine="embedded",
            )
        except ServingRepoError as error:
            done[good.model] = error
    return repo, done


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.model)
def test_a_good_one_is_promoted_proven_and_served(
    good: Good, promoted: Promoted, corpus: Path
) -> None:
    repo, outcomes = promoted
    done = outcomes[good.model]
    if isinstance(done, ServingRepoError):
        raise done
    assert Path(done.export).samefile(corpus / good.run / good.export)
    assert (done.version, done.published, done.served, done.after) == (1, True, True, (1,))
    assert done.proof is not None
    verdicts = done.proof.report.verdicts
    assert {one.signature: one.api for one in verdicts} == good.apis
    assert {
        one.signature: (one.outcome, one.reason) for one in verdicts if one.outcome != "passed"
    } == {}
    (verified,) = repo.verify(good.model)
    assert verified.ok
    assert_same(corpus / good.run / good.export, Path(done.path))


def assert_same(one: Path, other: Path) -> None:
    """What was published is the export, byte for byte."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def test_all_good_ones_are_served_at_once_and_answer_with_their_version(
    promoted: Promoted, tmp_path: Path
) -> None:
    repo, _ = promoted
    with live_server(repo, log=tmp_path / "server.log") as endpoint:
        assert repo.status(endpoints=[endpoint], wait=30).ok
        with ServingClient(endpoint) as client:
            for good in GOOD:
                assert client.metadata(good.model, None, timeout=20).version == 1


@pytest.mark.parametrize(
    "name", ["saved_model_half_plus_three", "saved_model_half_plus_two_tf2_cpu", "estimator_run"]
)
def test_a_served_one_is_proven_again_by_its_reference(name: str, promoted: Promoted) -> None:
    repo, _ = promoted
    proof = repo.smoke(f"{name}@served", engine="embedded")
    judge(proof.report, strict=True)


@pytest.mark.parametrize(("run", "kind", "said"), BAD, ids=[run for run, _, _ in BAD])
def test_a_bad_one_is_refused_for_the_right_reason_and_nothing_is_left(
    run: str, kind: type[ServingRepoError], said: tuple[str, ...], corpus: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "serving")
    before = sorted(path for path in repo.root.rglob("*"))
    with pytest.raises(ServingRepoError) as caught:
        repo.promote(corpus / run, model="bad", engine="embedded")
    error = caught.value
    assert type(error) is kind, (type(error), error.message)
    text = "\n".join([error.message, *error.problems])
    for one in said:
        assert one in text, text
    assert error.hint
    assert sorted(path for path in repo.root.rglob("*")) == before


def test_a_run_with_two_versions_is_ambiguous_and_both_are_named(
    corpus: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "serving")
    run = corpus / "serving" / "saved_model_half_plus_two_2_versions"
    with pytest.raises(AmbiguousExport) as caught:
        repo.promote(run, model="half")
    assert "00000123" in "\n".join(caught.value.problems)
    assert "00000124" in "\n".join(caught.value.problems)
    assert "--saved-model" in (caught.value.hint or "")
    assert repo.list() == ()


def test_an_estimator_s_run_is_described_with_what_else_lies_there(corpus: Path) -> None:
    from servingrepo.runs.scan import scan_run

    found = scan_run(corpus / "tfx" / "estimator_run")
    assert found.export.endswith("export/chicago-taxi/1646034756")
    assert found.kind == "estimator-export"
    kinds = {other.kind: other for other in found.others}
    assert kinds["estimator-checkpoint"].path == "model.ckpt-1000"
    assert "events" in kinds
