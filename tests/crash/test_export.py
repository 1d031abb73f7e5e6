"""`export` interrupted: whatever has the SavedModel's name is whole and durable, and the next call cleans up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from servingrepo.errors import ServingRepoError
from servingrepo.runs.export import keep
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.storage.scratch import scratch
from servingrepo.testing.exports import write_export
from tests.crash.test_steps import NEED_KERAS
from tests.support import command

STEPS = tuple(NEED_KERAS)
ERRORS = {"ENOSPC": 51, "EIO": 50, "EACCES": 52}
PREFIX = ".saved_model.partial-"

KEEP = f"""
import sys
from pathlib import Path
from servingrepo.runs.export import keep
from servingrepo.storage.scratch import scratch
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import write_export
run = Path(sys.argv[1])
with scratch(run, {PREFIX!r}) as place:
    write_export(place / "saved_model", variables=True)
    keep(place / "saved_model", run / "saved_model", disk=Disk(faults=Faults.parse(sys.argv[2])))
"""
"""What export does with what Keras made, in a process that can be killed."""

H5_MODEL = """
import sys, keras
inputs = keras.Input((2,))
keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(sys.argv[1])
"""


class Watched(Disk, frozen=True, kw_only=True):
    """A disk that remembers what was made durable, and what was there when the name was given."""

    synced: list[Path]

    def sync_file(self, path: Path) -> None:
        """Remember it."""
        self.synced.append(path)
        super().sync_file(path)

    def sync_directory(self, path: Path) -> None:
        """Remember it."""
        self.synced.append(path)
        super().sync_directory(path)


def whole(folder: Path) -> bool:
    return {path.name for path in folder.rglob("*") if path.is_file()} >= {
        "saved_model.pb",
        "variables.index",
        "variables.data-00000-of-00001",
    }


def test_all_of_an_export_is_durable_before_it_has_its_name(tmp_path: Path) -> None:
    made, target = tmp_path / "made", tmp_path / "saved_model"
    write_export(made, variables=True, assets={"words": b"a"})
    everything = {made, *made.rglob("*")}
    disk = Watched(synced=[], faults=Faults.parse("export.before-rename@1=EIO"))
    with pytest.raises(ServingRepoError):
        keep(made, target, disk=disk)
    assert set(disk.synced) == everything
    keep(made, target, disk=disk)
    assert disk.synced[-1] == tmp_path


@pytest.mark.parametrize("step", STEPS)
def test_an_export_killed_at_any_step_is_whole_or_not_there_and_the_next_one_cleans_up(
    tmp_path: Path, step: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEEP, tmp_path, f"{step}=kill"], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list(tmp_path.glob(f"{PREFIX}*"))
    assert len(left) == 1
    assert whole(tmp_path / "saved_model") == (step in {"export.after-rename", "export.done"})
    with scratch(tmp_path, PREFIX):
        assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", ERRORS)
def test_an_export_that_the_disk_refuses_says_what_is_there(
    tmp_path: Path, step: str, fault: str
) -> None:
    target = tmp_path / "saved_model"
    with scratch(tmp_path, PREFIX) as place:
        write_export(place / "saved_model", variables=True)
        with pytest.raises(ServingRepoError) as caught:
            keep(place / "saved_model", target, disk=Disk(faults=Faults.parse(f"{step}={fault}")))
    assert caught.value.exit_code == ERRORS[fault]
    assert whole(target) == target.exists() == ("all the same" in caught.value.message)
    assert target.exists() == (step in {"export.after-rename", "export.done"})
    assert [path.name for path in tmp_path.iterdir()] in ([], ["saved_model"])


def h5_model(folder: Path) -> Path:
    """Have Keras write a whole model."""
    model = folder / "best.h5"
    subprocess.run(
        [sys.executable, "-c", H5_MODEL, model],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
    )
    return model


def started(model: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"keras_child" in line and os.fsencode(model) in line:
            found.append(int(folder.name))
    return found


@pytest.mark.tf
@pytest.mark.timeout(240)
def test_an_export_killed_while_keras_works_takes_keras_along_and_is_made_when_repeated(
    tmp_path: Path,
) -> None:
    model = h5_model(tmp_path)
    with h5py.File(model) as file:
        assert "model_config" in file.attrs
    exporting = subprocess.Popen([sys.executable, "-m", "servingrepo", "export", tmp_path])
    ends = time.monotonic() + 30
    while not started(model) and time.monotonic() < ends:
        time.sleep(0.02)
    assert started(model)
    exporting.kill()
    exporting.wait()
    while started(model) and time.monotonic() < ends:
        time.sleep(0.02)
    assert started(model) == []
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    at_the_end = {"SERVINGREPO_FAILPOINTS": "export.before-rename=EIO"}
    done = command("export", tmp_path, env=at_the_end, timeout=120)
    assert done.code == 50, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["best.h5"]


@pytest.mark.crash
@pytest.mark.tf
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["kill", "term", "int", *ERRORS])
def test_the_command_with_any_fault_at_any_step(tmp_path: Path, fault: str) -> None:
    h5_model(tmp_path)
    codes = {"kill": -9, "term": 143, "int": 130, **ERRORS}
    for step in STEPS:
        plan = {"SERVINGREPO_FAILPOINTS": f"{step}={fault}"}
        done = command("export", tmp_path, env=plan, timeout=120)
        assert done.code == codes[fault], done.err
        made = tmp_path / "saved_model"
        assert whole(made) == made.exists()
        if made.exists():
            shutil.rmtree(made)
    assert command("export", tmp_path, timeout=120).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.h5", "saved_model"]
