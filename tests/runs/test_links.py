"""Links in a run, as somebody would put them there who wants to read what only the promoter may: SECRET."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.runs.configuration import read_configuration
from servingrepo.runs.listing import list_names
from servingrepo.runs.measure import measure, measure_run
from servingrepo.runs.mlflow import read_mlflow
from servingrepo.runs.others import others
from servingrepo.runs.savedmodels import candidates
from servingrepo.runs.scan import scan_run
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.storage.beneath import entries_of, open_beneath, open_plain, stat_plain
from servingrepo.testing.exports import Served, write_export
from tests.runs.test_events import file_of, scalar
from tests.runs.test_mlflow import RUN, TABLES
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.runs.listing import Listing

SECRET = "only-root-may-read-this"  # noqa: S105 - it is none
NUMBER = 424242.0
NOBODY = 65534


def secrets(folder: Path) -> Path:
    """Files with secrets, of every kind that a run's readers take, which nobody but their owner may read."""
    folder.mkdir(mode=0o700)
    (folder / "config.json").write_text(json.dumps({"lr": SECRET}))
    (folder / "metrics.json").write_text(json.dumps({"auc": NUMBER}))
    (folder / "auc").write_text(f"1000 {NUMBER} 0\n")
    (folder / "lr").write_text(SECRET)
    (folder / "mlflow.user").write_text(SECRET)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{SECRET}"\n')
    (folder / "MLmodel").write_text(f"flavors:\n  {SECRET.replace('-', '_')}:\n")
    (folder / "meta.yaml").write_text(f"run_id: {RUN}\nrun_name: {SECRET}\n")
    file_of(folder, scalar("auc", 1, NUMBER))
    write_export(folder / "export", signatures=[Served(key=SECRET)], variables=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    return folder


def mlflow_run(experiment: Path) -> Path:
    """A run of MLflow's that has an export, and nothing of MLflow's but its meta.yaml."""
    run = experiment / RUN
    write_export(run / "artifacts/saved_model")
    (run / "meta.yaml").write_text(f"run_id: {RUN}\nrun_name: mine\n")
    return run


def link(place: Path, target: Path | str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def chain(place: Path, target: Path) -> None:
    """A link to a link in the run, which leads out of it."""
    link(place, "hop")
    link(place.with_name("hop"), target)


ATTACKS: dict[str, Callable[[Path, Path], None]] = {
    "params": lambda run, out: link(run / "params", out),
    "a parameter": lambda run, out: link(run / "params/lr", out / "lr"),
    "a folder of parameters": lambda run, out: link(run / "params/group", out),
    "params by a chain": lambda run, out: chain(run / "params", out),
    "metrics": lambda run, out: link(run / "metrics", out),
    "a metric": lambda run, out: link(run / "metrics/auc", out / "auc"),
    "tags": lambda run, out: link(run / "tags", out),
    "a tag": lambda run, out: link(run / "tags/mlflow.user", out / "mlflow.user"),
    "a configuration": lambda run, out: link(run / "config.json", out / "config.json"),
    "a folder with a configuration": lambda run, out: link(run / "conf", out),
    "a configuration by a chain": lambda run, out: chain(run / "config.json", out / "config.json"),
    "a file of metrics": lambda run, out: link(run / "metrics.json", out / "metrics.json"),
    "an event file": lambda run, out: link(
        run / "events.out.tfevents.1.x", next(out.glob("events*"))
    ),
    "a model's description": lambda run, out: link(run / "MLmodel", out / "MLmodel"),
    "a checkpoint's state": lambda run, out: link(run / "checkpoint", out / "checkpoint"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_link_out_of_a_run_tells_nothing(attack: str, tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "mlruns/1")
    ATTACKS[attack](run, secrets(tmp_path / "out"))
    for path in (run, *run.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    repo = new_repository(tmp_path / "repo")
    scanned = command("scan", "-v", run)
    assert scanned.code == 0
    done = command("--root", repo.root, "promote", run, "--model", "m", "--no-smoke")
    assert done.code == 0, done.err
    told = [scanned.out, scanned.err, done.out, done.err, command("scan", run, "--json").out]
    told += [path.read_text() for path in (repo.root / ".servingrepo").rglob("*.json*")]
    assert len(told) > 5
    for text in told:
        assert SECRET not in text
        assert SECRET.replace("-", "_") not in text
        assert f"{NUMBER:.0f}" not in text
    assert "link" in scanned.out, "and that something was not read is said"


@pytest.mark.parametrize("part", ["saved_model.pb", "variables", "variables/variables.index"])
def test_a_link_out_of_an_export_tells_nothing(part: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    export = write_export(run / "saved_model", variables=True)
    for path in sorted(export.glob(f"{part}*"), reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    link(export / part, secrets(tmp_path / "out") / "export" / part)
    found = inspect_export(export, boundary=run)
    assert found.defects
    assert SECRET not in repr(found)
    for arguments in (("scan",), ("smoke", "--engine", "embedded"), ("contract", "--check")):
        repo = new_repository(tmp_path / f"repo-{arguments[0]}")
        subject = ["m", run] if arguments[0] == "contract" else [run]
        done = command("--root", repo.root, *arguments, *subject)
        assert done.code != 0
        assert SECRET not in done.out + done.err


def test_a_run_s_id_that_is_a_path_leads_nowhere(tmp_path: Path) -> None:
    """A logged model names its run; what is beside it is read, and what a path leads to is not."""
    private = mlflow_run(tmp_path / "of somebody/mlruns/1")
    (private / "params").mkdir()
    (private / "params/lr").write_text(SECRET)
    model = tmp_path / "mlruns/1/models/m-1"
    model.mkdir(parents=True)
    for name in (str(private), f"../../of somebody/mlruns/1/{RUN}"):
        # What meta.yaml says last counts for the model's id, and the run's is a path whose end is the private one.
        (model / "meta.yaml").write_text(f"model_id: m-1\nrun_id: {name}\n")
        (private / "meta.yaml").write_text(f"run_id: {RUN}\nrun_name: {SECRET}\n")
        assert SECRET not in repr(read_mlflow(str(model)))


def test_a_database_behind_a_link_is_not_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with closing(sqlite3.connect(tmp_path / "out/mlflow.db")) as made, made:
        made.executescript(TABLES)
        made.execute("INSERT INTO runs VALUES (?, ?, 1, 'root', 'active')", (RUN, SECRET))
    run = tmp_path / "mlruns/1" / RUN
    run.mkdir(parents=True)
    link(tmp_path / "mlflow.db", tmp_path / "out/mlflow.db")
    (problem,) = measure_run(run).problems
    assert "MLflow's database, cannot be read: it is a link" in problem
    assert SECRET not in repr(read_mlflow(str(run)))


# swapped after the look -----------------------------------------------------------------------------

READERS: dict[str, Callable[[Listing], object]] = {
    "config.json": read_configuration,
    "metrics.json": lambda seen: measure(seen, None),
    "events.out.tfevents.1000000000.host.1.0.v2": lambda seen: measure(seen, None),
    "checkpoint": others,
    "MLmodel": others,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", ["the file", "its folder", "the run"])
def test_what_becomes_a_link_after_listing_is_not_followed(
    name: str, what: str, tmp_path: Path
) -> None:
    out = secrets(tmp_path / "out")
    run = tmp_path / "run"
    (run / "sub").mkdir(parents=True)
    for path in out.iterdir():
        if path.is_file():
            (run / "sub" / path.name).write_bytes(b"{}")
    for part in ("ckpt-1.index", "ckpt-1.data-00000-of-00001", f"{SECRET}.index"):
        (run / "sub" / part).write_bytes(b"")
    (run / "sub" / f"{SECRET}.data-00000-of-00001").write_bytes(b"")
    os.utime(run / "sub/ckpt-1.index", (2e9, 2e9))
    (tmp_path / "moved").mkdir()
    seen = list_names(str(run))
    before = msgspec.json.encode(READERS[name](seen))
    swapped, target = {
        "the file": (run / "sub" / name, out / name),
        "its folder": (run / "sub", out),
        "the run": (run, tmp_path / "elsewhere"),
    }[what]
    link(tmp_path / "elsewhere/sub", out)
    swapped.rename(tmp_path / "moved" / swapped.name)
    link(swapped, target)
    after = msgspec.json.encode(READERS[name](seen)).decode()
    assert f"{NUMBER:.0f}" not in after
    assert after.count(SECRET) <= before.decode().count(SECRET)
    assert SECRET.replace("-", "_") not in after


SWAP_IN_BETWEEN = """
import sys
import tempfile
from pathlib import Path
from servingrepo.runs.listing import list_names
run, swapped, outside = map(Path, sys.argv[1:])
done = []
def hook(event, arguments):  # called before the kernel is: the moment between listing and opening
    if event == "open" and str(arguments[0]).endswith("deep") and not done:
        done.append(True)
        swapped.rename(swapped.with_name("aside"))
        swapped.symlink_to(outside)
    if event == "os.scandir" and str(arguments[0]).endswith("deep") and not done:
        done.append(True)
        swapped.rename(swapped.with_name("aside"))
        swapped.symlink_to(outside)
sys.addaudithook(hook)
seen = list_names(str(run))
assert done
print([name for folder in seen.folders for name in folder.files])
"""


@pytest.mark.parametrize("swapped", ["a", "a/deep"])
def test_a_folder_that_becomes_a_link_is_not_listed(swapped: str, tmp_path: Path) -> None:
    (tmp_path / "run/a/deep").mkdir(parents=True)
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out" / SECRET).touch()
    (tmp_path / "out/deep" / SECRET).touch()
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", SWAP_IN_BETWEEN, run, run / swapped, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


# links that stay inside -----------------------------------------------------------------------------


def test_links_that_stay_in_the_run_are_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_export(run / "cache/export", variables=True)
    (run / "saved_model").mkdir(parents=True)
    link(run / "saved_model/saved_model.pb", "../cache/export/saved_model.pb")
    link(run / "saved_model/variables", run / "cache/export/variables")
    (run / "cache/c.json").write_text('{"lr": 0.5}')
    link(run / "config.json", "hop.json")
    link(run / "hop.json", "cache/c.json")
    seen = list_names(str(run))
    assert read_configuration(seen).values == {"lr": "0.5"}
    assert [one.path for one in candidates(seen)] == ["cache/export", "saved_model"]
    assert inspect_export(run / "saved_model", boundary=run).defects == ()
    assert scan_run(run, saved_model=Path("saved_model")).export == str(run / "saved_model")


def test_a_run_that_is_named_by_a_link_is_read(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "disk/mlruns/1")
    (run / "params").mkdir()
    (run / "params/lr").write_text("0.5")
    (run / "config.json").write_text('{"a": 1}')
    # An absolute link by another name of the run: it stays inside all the same.
    link(tmp_path / "home", "disk")
    link(run / "latest", tmp_path / f"home/mlruns/1/{RUN}/artifacts/saved_model")
    repo = new_repository(tmp_path / "repo")
    repo.promote(tmp_path / f"home/mlruns/1/{RUN}", model="m", smoke=False)
    origin = repo.show_version("m").origin
    assert origin.config == {"a": "1", "params/lr": "0.5"}
    assert list_names(str(run)).links_out == ()


# what opens files -----------------------------------------------------------------------------------


def test_only_files_and_directories_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    link(tmp_path / "link", "file")
    link(tmp_path / "way", "folder")
    link(tmp_path / "folder/out", "/etc/passwd")
    (tmp_path / "folder/file").write_bytes(b"x")
    for name in ("file", "folder", "folder/file"):
        os.close(open_plain(f"{tmp_path}/{name}"))
    refused = {
        "link": "it is a link",
        "way/file": "it lies behind a link, way",
        "fifo": "it is a FIFO",
        "missing": "No such file or directory",
        "file/below": "Not a directory",
        "folder/../file": "it is no absolute path without . and ..",
    }
    for name, why in refused.items():
        with pytest.raises(OSError, match=re.escape(why)):
            open_plain(f"{tmp_path}/{name}")
    os.close(open_plain("/"))
    assert stat_plain(f"{tmp_path}/fifo").st_size == 0
    assert entries_of(str(tmp_path / "folder"), most=9) == [("file", "file"), ("out", "link")]
    os.close(open_beneath(f"{tmp_path}/way/file", str(tmp_path)))
    with pytest.raises(OSError, match="a link out of"):
        open_beneath(f"{tmp_path}/folder/out", str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_directory_on_the_way_need_not_be_readable() -> None:
    with tempfile.TemporaryDirectory() as way:  # pytest's own directories are closed to others
        file = Path(way, "file")
        file.write_bytes(b"x")
        Path(way).chmod(0o711)
        child = os.fork()
        if not child:
            try:
                os.setgroups([])
                os.setuid(NOBODY)
                os._exit(os.read(open_plain(str(file)), 9) != b"x")
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
