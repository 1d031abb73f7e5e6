from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import DamagedExport
from servingrepo.runs.run import read_run
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

LISTED = """
import collections, json, os, sys
from pathlib import Path
from servingrepo.runs.run import read_run
listed = collections.Counter()
def note(event, arguments):
    if event in {"os.scandir", "os.listdir"}:
        place = arguments[0]
        listed[os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else str(place)] += 1
sys.addaudithook(note)
read_run(Path(sys.argv[1]))
print(json.dumps(listed))
"""
"""Counts how often each directory is listed, by the interpreter's own audit events."""


def run_of(folder: Path) -> Path:
    write_export(folder / "saved_model", variables=True)
    (folder / "logs").mkdir()
    (folder / "logs/metrics.json").write_text('{"auc": 0.9}')
    return folder


def test_a_run_s_directories_are_listed_once(tmp_path: Path) -> None:
    """Only the export's are listed again: for its size, and for what is to be copied."""
    run = run_of(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", LISTED, run], capture_output=True, check=True, timeout=60
    )
    listed = json.loads(done.stdout)
    assert (listed[str(run)], listed[str(run / "logs")]) == (1, 1)


def test_a_run_is_read_into_one_value(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    events = run / "logs/events.out.tfevents.1.host"
    events.write_bytes(b"\0" * 100)
    steps: list[object] = []
    read = read_run(run, sizes=lambda *sizes: steps.append(sizes), progress=steps.append)
    assert steps[0] == (100, read.tree.size)
    assert sum(one for one in steps[1:] if isinstance(one, int)) == 100
    assert read.export == run / "saved_model"
    assert [one.name for one in read.measured.measurements] == ["logs/auc"]
    assert (read.inspection.defects, read.staleness, read.reads.changed()) == ((), (), ())
    (run / "logs/metrics.json").write_text('{"auc": 0.8}')
    assert read.reads.changed() == ("logs/metrics.json",)


def test_a_bad_export_is_refused_before_events_are_read(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    (run / "saved_model/saved_model.pb").write_bytes(b"no model")
    (run / "events.out.tfevents.1.host").write_bytes(b"\0" * 100)
    steps: list[int] = []
    with pytest.raises(DamagedExport):
        read_run(run, progress=steps.append)
    assert steps == []
