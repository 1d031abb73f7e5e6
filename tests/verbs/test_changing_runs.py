"""Runs that are written on while they are promoted: what was judged is what is recorded."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import SourceChanged
from servingrepo.testing.exports import write_export
from tests.runs.test_events import file_of, scalar
from tests.runs.test_mlflow import RUN, database
from tests.support import Meanwhile, command, git, new_repository, work_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository

LARGE = json.dumps({"auc": 0.5, "padding": "x" * (2 << 20)})


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    return new_repository(tmp_path / "repo")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of MLflow's in a work tree, with files of every kind that is read."""
    work_tree(tmp_path / "code")
    run = tmp_path / "code/mlruns/1" / RUN
    write_export(run / "artifacts/saved_model")
    (run / "meta.yaml").write_text(f"run_id: {RUN}\n")
    for name, text in {
        "config.json": '{"lr": 0.1}',
        "metrics.json": '{"loss": 0.25}',
        "results.json": LARGE,
        "params/depth": "3",
        "metrics/f1": "1000 0.5 0\n",
    }.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(text)
    file_of(run / "logs", *(scalar("acc", step, step / 8) for step in range(10)))
    return run


def while_copied(run: Path, happens: Callable[[], object]) -> Callable[[int], None]:
    """Progress that does something once: when the events are read and the copy has begun."""
    left = [sum(path.stat().st_size for path in run.rglob("*tfevents*"))]

    def progress(done: int) -> None:
        before, left[0] = left[0], left[0] - done
        if before >= 0 > left[0]:
            happens()

    return progress


def promote(repo: OpenRepository, run: Path, happens: Callable[[], object]) -> Any:
    progress = while_copied(run, happens)
    return repo.promote(
        run, model="m", smoke=False, progress=progress, require=["acc >= 0.9", "loss < 0.5"]
    )


def left(repo: OpenRepository) -> list[Path]:
    """The files that a model has: of versions, and in staging."""
    return [path for path in (repo.value.layout.models / "m").rglob("*") if path.is_file()]


def rewrite(path: Path, text: str) -> None:
    """Write other content of the same length, and leave the time as it was."""
    facts = path.stat()
    path.write_text(text)
    assert path.stat().st_size == facts.st_size
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def link_away(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a configuration": ("config.json", lambda path: path.write_text('{"lr": 99}')),
    "a configuration with its time kept": ("config.json", lambda path: rewrite(path, '{"lr": 9.9}')),
    "a configuration that is gone": ("config.json", lambda path: path.unlink()),
    "a configuration that is a link": ("config.json", link_away),
    "metrics": ("metrics.json", lambda path: path.write_text('{"loss": 9}')),
    "large metrics": ("results.json", lambda path: path.write_text(LARGE.replace("0.5", "0.9"))),
    "a parameter": ("params/depth", lambda path: path.write_text("9")),
    "a metric of MLflow's": ("metrics/f1", lambda path: path.write_text("1000 0.9 0\n")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_judged_and_changed_is_refused(
    change: str, repo: OpenRepository, run: Path
) -> None:
    name, happens = CHANGES[change]
    with pytest.raises(SourceChanged, match=f"changed during the copy and the smoke test: {name}$"):
        promote(repo, run, lambda: happens(run / name))
    assert left(repo) == []


def test_all_files_that_changed_are_named_at_once(repo: OpenRepository, run: Path) -> None:
    def happens() -> None:
        for name in ("config.json", "metrics.json"):
            (run / name).write_text("{}")

    with pytest.raises(SourceChanged) as caught:
        promote(repo, run, happens)
    assert caught.value.problems == ("config.json", "metrics.json")
    assert (caught.value.exit_code, caught.value.slug) == (25, "source-changed")


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def same_again(run: Path) -> None:
    for name in ("config.json", "metrics.json"):
        data = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).write_bytes(data)


FINE: dict[str, Callable[[Path], object]] = {
    "events that grew": lambda run: append(
        next(run.glob("logs/*tfevents*")), scalar("acc", 10, 0.0)
    ),
    "a metric of MLflow's that grew": lambda run: append(run / "metrics/f1", b"2000 0.0 1\n"),
    "files written again as they were": same_again,
    "a file that was not there": lambda run: (run / "params.json").write_text('{"lr": 99}'),
    "another commit": lambda run: git(run, "commit", "-q", "--allow-empty", "-m", "two"),
}


@pytest.mark.parametrize("change", FINE)
def test_what_was_judged_is_recorded_whatever_is_added_meanwhile(
    change: str, repo: OpenRepository, run: Path
) -> None:
    commit = git(run, "rev-parse", "HEAD")
    promote(repo, run, lambda: FINE[change](run))
    record = repo.show_version("m")
    numbers = {one.name: (one.step, one.last) for one in record.measured}
    assert numbers["logs/acc"] == (9, 1.125)
    assert numbers["f1"] == (0, 0.5)
    assert record.origin.config == {"lr": "0.1", "params/depth": "3"}
    assert record.origin.code is not None
    assert record.origin.code.commit == commit


def test_a_database_of_all_runs_that_is_written_on_is_no_change(
    repo: OpenRepository, tmp_path: Path
) -> None:
    path = database(tmp_path)
    run = tmp_path / "mlruns/1" / RUN
    write_export(run / "artifacts/saved_model")
    file_of(run, scalar("acc", 1, 0.95), scalar("loss", 1, 0.1))

    def happens() -> None:
        with closing(sqlite3.connect(path)) as made, made:
            made.execute("UPDATE params SET value = '99'")

    progress = while_copied(run, happens)
    repo.promote(run, model="m", smoke=False, progress=progress, require=["acc >= 0.9"])
    assert repo.show_version("m").origin.config == {"params/lr": "0.1"}


@pytest.mark.tf
def test_a_configuration_that_changes_during_the_smoke_test_is_refused(
    repo: OpenRepository, run: Path
) -> None:
    def happens() -> None:
        (run / "config.json").write_text('{"lr": 99}')

    with pytest.raises(SourceChanged, match=r"config\.json"):
        repo.promote(run, model="m", engine=Meanwhile(happens))
    assert left(repo) == []
    repo.promote(run, model="m", smoke=False)
    assert repo.show_version("m").origin.config["lr"] == "99"


@pytest.mark.tf
def test_a_commit_during_the_smoke_test_is_not_that_of_the_version(
    repo: OpenRepository, run: Path
) -> None:
    commit = git(run, "rev-parse", "HEAD")
    repo.promote(
        run,
        model="m",
        engine=Meanwhile(lambda: git(run, "commit", "-q", "--allow-empty", "-m", "two")),
    )
    code = repo.show_version("m").origin.code
    assert code is not None
    assert code.commit == commit
    assert f"git {commit}" in command("--root", repo.root, "show", "m@1").out
