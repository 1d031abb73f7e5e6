"""Warm-up files that are made from cases: servers replay them, and nothing is written before one did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import (
    BadCase,
    LoadFailed,
    ServingRepoError,
    SmokeFailed,
    StorageFailed,
    UnsafeExport,
    UsageError,
)
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.warmup import FILE
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import Served
from tests.crash.test_steps import NEED_WARMUP
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

SIGNATURES = (
    Served(),
    Served(key="regress", api="regress", feed="parse_example_v2"),
    Served(key="classify", api="classify", feed="parse_example"),
)


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    return new_repository(tmp_path / "serving")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_with(tmp_path / "run", offset=2.0, signatures=SIGNATURES)


def case(folder: Path, *cases: dict[str, Any]) -> Path:
    path = folder / "c.json"
    path.write_text(json.dumps({"schema": 1, "cases": list(cases)}))
    return path


def all_signatures(folder: Path) -> Path:
    return case(
        folder,
        {"instances": [{"x": 1.0}]},
        {"signature_name": "regress", "examples": [{"x": 1.0}]},
        {"signature_name": "classify", "examples": [{"x": 1.0}], "context": {"x": 2.0}},
    )


@pytest.mark.tf
def test_a_warm_up_file_is_written_replayed_and_published(
    repo: OpenRepository, run: Path, tmp_path: Path
) -> None:
    before = (run / "saved_model/saved_model.pb").read_bytes()
    done = repo.warmup(run, cases=[all_signatures(tmp_path)], engine="embedded")
    file = run / "saved_model" / FILE
    assert (done.path, done.records, done.size) == (str(file), 3, file.stat().st_size)
    assert done.proof is not None
    assert len(done.proof.report.passed) == 3
    found = inspect_export(run / "saved_model")
    assert (found.defects, found.warmup and found.warmup.records) == ((), 3)
    assert (run / "saved_model/saved_model.pb").read_bytes() == before
    promoted = repo.promote(run, model="m", engine="embedded")
    assert (tmp_path / "serving/models/m/1" / FILE).read_bytes() == file.read_bytes()
    assert promoted.proof is not None
    again = repo.warmup(run, cases=["warmup"], engine="embedded", replace=True)
    assert again.records == 3, "a warm-up file can be made anew from itself"


@pytest.mark.tf
def test_what_a_server_does_not_answer_leaves_the_run_alone(
    repo: OpenRepository, tmp_path: Path
) -> None:
    nan = run_with(tmp_path / "nan", offset=2.0, signatures=[Served(fault="refuses")])
    with pytest.raises((LoadFailed, SmokeFailed)):
        repo.warmup(nan, cases=[case(tmp_path, {"instances": [{"x": 1.0}]})], engine="embedded")
    assert not (nan / "saved_model/assets.extra").exists()


def test_cases_that_make_no_warm_up_file_are_all_named(
    repo: OpenRepository, run: Path, tmp_path: Path
) -> None:
    bad = case(
        tmp_path,
        {"instances": [{"x": "text"}]},
        {"signature_name": "nobody", "instances": [1.0]},
        {"instances": [{"x": 1.0}], "expect": {"error": {"code": "INTERNAL", "text": ""}}},
    )
    with pytest.raises(BadCase) as refused:
        repo.warmup(run, cases=[bad], engine="embedded")
    assert len(refused.value.problems) == 3
    many = case(tmp_path, *[{"instances": [{"x": 1.0}]}] * 1001)
    with pytest.raises(BadCase, match="no warm-up file") as refused:
        repo.warmup(run, cases=[many], dry_run=True)
    assert "more than 1000 cases" in refused.value.problems[0]
    with pytest.raises(BadCase) as refused:
        repo.warmup(run, engine="embedded")
    assert refused.value.problems == ("there is no case",)


def test_a_file_that_is_there_is_replaced_only_if_asked(
    repo: OpenRepository, run: Path, tmp_path: Path
) -> None:
    file = run / "saved_model" / FILE
    file.parent.mkdir()
    file.write_bytes(b"damaged, and longer than a header")
    cases = [all_signatures(tmp_path)]
    with pytest.raises(UsageError, match="is there already"):
        repo.warmup(run, cases=cases, dry_run=True)
    assert repo.warmup(run, cases=cases, dry_run=True, replace=True).records == 3
    assert file.read_bytes().startswith(b"damaged")


@pytest.mark.tf
def test_no_link_is_followed_out_of_the_run(
    repo: OpenRepository, run: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / "saved_model/assets.extra").symlink_to(outside)
    with pytest.raises(UnsafeExport):
        repo.warmup(run, cases=[all_signatures(tmp_path)], engine="embedded", replace=True)
    inside = run / "inside"
    inside.mkdir()
    (run / "saved_model/assets.extra").unlink()
    (run / "saved_model/assets.extra").symlink_to("../inside")
    with pytest.raises(UnsafeExport, match="is a link"):
        repo.warmup(run, cases=[all_signatures(tmp_path)], engine="embedded", replace=True)
    assert list(outside.iterdir()) == list(inside.iterdir()) == []


@pytest.mark.tf
@pytest.mark.parametrize("step", sorted(NEED_WARMUP))
def test_a_write_that_fails_leaves_a_whole_file_or_none(
    step: str, run: Path, tmp_path: Path
) -> None:
    new_repository(tmp_path / "serving")
    from servingrepo import open as open_repository

    broken = open_repository(tmp_path / "serving", disk=Disk(faults=Faults.parse(f"{step}=EIO")))
    with pytest.raises(ServingRepoError) as failed:
        broken.warmup(run, cases=[all_signatures(tmp_path)], engine="embedded")
    assert isinstance(failed.value, StorageFailed)
    assert "/proc/" not in failed.value.message
    folder = run / "saved_model" / "assets.extra"
    assert [one.name for one in folder.iterdir()] in ([], [FILE.rpartition("/")[2]])
    assert inspect_export(run / "saved_model").defects == ()


@pytest.mark.tf
def test_the_command_says_what_it_wrote_and_what_is_next(run: Path, tmp_path: Path) -> None:
    new_repository(tmp_path / "serving")
    done = command(
        *("--root", tmp_path / "serving", "warmup", run, "--engine", "embedded"),
        *("--case", all_signatures(tmp_path)),
    )
    assert done.code == 0, done.err
    assert f"{run / 'saved_model' / FILE} written: 3 requests" in done.out
    assert f"servingrepo promote {run} --model NAME" in done.out
