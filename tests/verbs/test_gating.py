from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import GateFailed
from servingrepo.repository.records import VersionRecord, decode, encode
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    return new_repository(tmp_path / "repo")


def run_of(folder: Path, *, auc: object, offset: float = 0.0) -> Path:
    run_with(folder, offset=offset)
    (folder / "metrics.json").write_text(json.dumps({"validation": {"auc": auc}}))
    return folder


def test_promote_when_a_gate_fails_publishes_nothing_and_burns_no_number(
    repo: OpenRepository, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", auc=0.8)
    with pytest.raises(GateFailed) as caught:
        repo.promote(run, model="m", smoke=False, require=["auc >= 0.9", "auc > 0", "f1 > 0.5"])
    assert "auc >= 0.9: validation/auc is 0.8 (last, step 0, metrics.json)" in caught.value.message
    assert [one.split(": ")[1] for one in caught.value.problems] == ["failed", "passed", "missing"]
    assert repo.models() == ()
    with pytest.raises(GateFailed):
        repo.promote(run, model="m", smoke=False, require=["auc >= 0.9"], dry_run=True)


def test_promote_records_gates_and_numbers_and_compares_with_what_is_served(
    repo: OpenRepository, tmp_path: Path
) -> None:
    gate = "validation/auc >= served - 0.005"
    first = repo.promote(run_of(tmp_path / "1", auc=0.9), model="m", smoke=False, require=[gate])
    assert [one.verdict for one in first.gates] == ["not compared"]
    with pytest.raises(GateFailed, match=r"version 1, which is served, had 0.9"):
        repo.promote(
            run_of(tmp_path / "2", auc=0.89, offset=1), model="m", smoke=False, require=[gate]
        )
    third = repo.promote(
        run_of(tmp_path / "3", auc=0.896, offset=2), model="m", smoke=False, require=[gate]
    )
    record = repo.show_version("m")
    assert (record.version, record.measured[0].last) == (third.version, 0.896)
    (verdict,) = record.gates
    assert (verdict.verdict, verdict.served, verdict.value) == ("passed", 1, 0.896)


def test_promote_when_a_number_is_nan_still_leaves_a_readable_record(
    repo: OpenRepository, tmp_path: Path
) -> None:
    repo.promote(run_of(tmp_path / "run", auc=float("nan")), model="m", smoke=False)
    assert repo.show_version("m").measured[0].last is None


def test_a_record_from_before_there_were_gates_is_still_read(
    repo: OpenRepository, tmp_path: Path
) -> None:
    repo.promote(run_of(tmp_path / "run", auc=1), model="m", smoke=False)
    path = repo.value.layout.record("m", 1)
    old = json.loads(path.read_bytes())
    del old["gates"], old["measured"]
    record = decode(json.dumps(old).encode(), VersionRecord, path)
    assert (record.gates, record.measured) == ((), ())
    assert decode(encode(record), VersionRecord, path) == record


def test_promote_holds_the_gates_of_the_settings_file_and_of_the_command_line(
    repo: OpenRepository, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", auc=0.8)
    settings = tmp_path / "servingrepo.toml"
    settings.write_text('[models.m]\nrequire = ["auc >= 0.9"]\n')
    arguments: list[str | Path] = ["--root", repo.root, "promote", run, "--no-smoke", "--json"]
    done = command(*arguments, "--model", "m", "--require", "auc > 0", cwd=tmp_path)
    assert done.code == 28, done.err
    assert [one["verdict"] for one in done.json["error"]["details"]["gates"]] == [
        "failed",
        "passed",
    ]
    assert command(*arguments, "--model", "other", cwd=tmp_path).code == 0
    settings.write_text('[models.m]\nrequire = ["auc >="]\n')
    done = command(*arguments, "--model", "m", cwd=tmp_path)
    assert (done.code, done.json["error"]["slug"]) == (10, "bad-setting")
    assert "models.m.require" in done.json["error"]["problems"][0]


def test_promote_and_show_say_how_gates_stood(repo: OpenRepository, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", auc=0.8)
    done = command(
        *("--root", repo.root, "promote", run, "--model", "m", "--no-smoke"),
        *("--require", "best(auc) >= 0.8"),
    )
    assert "gate      best(auc) >= 0.8: passed: validation/auc is 0.8" in done.out, done.err
    shown = command("--root", repo.root, "show", "m@1").out
    assert "measured      validation/auc: 0.8 (step 0)" in shown
    assert "gate          best(auc) >= 0.8: passed" in shown
    assert command("--root", repo.root, "promote", run, "--model", "m", "--require", "x").code == 2


def test_promote_records_and_says_what_it_could_not_read_of_the_numbers(
    repo: OpenRepository, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", auc=0.9)
    (run / "results.json").write_text('{"f1": ')
    done = command("--root", repo.root, "promote", run, "--model", "m", "--no-smoke")
    assert "not read  results.json: it is no JSON" in done.out
    assert repo.show_version("m").unread[0].startswith("results.json: it is no JSON")
    assert "not read      results.json" in command("--root", repo.root, "show", "m@1").out
