"""Files of a run that are made to exhaust a reader: each gets a verdict within seconds and in bounded memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.protos import event_pb2
from servingrepo.runs.configuration import read_configuration
from servingrepo.runs.listing import list_names
from servingrepo.runs.measure import measure_run
from servingrepo.runs.mlflow import read_mlflow
from servingrepo.testing.exports import write_export
from tests.runs.test_events import file_of, framed, scalar
from tests.runs.test_mlflow import run_in_files
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable

READ = """
import json, re, sys, time
from pathlib import Path
from servingrepo.runs.configuration import read_configuration
from servingrepo.runs.listing import list_names
from servingrepo.runs.measure import measure_run
begin = time.process_time()
configuration = read_configuration(list_names(sys.argv[1]))
measured = measure_run(Path(sys.argv[1]))
said = [*configuration.unread.values(), *measured.problems, *(p for run in measured.event_runs for p in run.problems)]
peak = int(re.search("VmHWM:\\\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
values = sum(map(len, [*configuration.values, *configuration.values.values()]))
print(json.dumps([said, time.process_time() - begin, peak >> 10, values, len(measured.measurements)]))
"""


def file(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


def many_tags(run: Path) -> None:
    def tags(begin: int) -> bytes:
        event = event_pb2.Event(wall_time=1.0, step=1)
        for number in range(begin, begin + 1_000):
            event.summary.value.add(tag=f"{number:04000d}").simple_value = 1.0
        return framed(event.SerializeToString())

    file_of(run, *(tags(1_000 * number) for number in range(30)))


def hardly_alike(run: Path) -> None:
    """Records of all lengths, with steps and tags of all lengths: no two of them have one layout."""
    one_float = bytes([0x42, 0x0A, 0x08, 0x01, 0x12, 0x00, 0x22, 0x04]) + struct.pack("<f", 1.0)
    records = []
    for size in range(40, 136):
        for step_bytes in range(7):
            step = b"\x10" + b"\x80" * (step_bytes - 1) + b"\1" if step_bytes else b""
            head = b"\x09" + struct.pack("<d", 1.0) + step
            for length in range(size - len(head) - 18):
                inside = size - len(head) - 2
                rest = inside - 4 - length - len(one_float)
                payload = head + bytes([0x2A, inside, 0x0A, inside - 2, 0x0A, length])
                payload += b"t" * length + one_float
                if rest != 1:  # a field that nobody knows has two bytes at least
                    payload += (bytes([0x7A, rest - 2]) + b"\0" * (rest - 2)) if rest else b""
                    records.append(framed(payload))
    file_of(run, *(4 * records))


def many_points(run: Path) -> None:
    (run_in_files(run.parent).rename(run) / "meta.yaml").write_text(f"run_id: {run.name}\n")
    (run / "metrics/auc").write_text("1 1 1\n" * 3_000_000)


def long_points(run: Path) -> None:
    (run_in_files(run.parent).rename(run) / "meta.yaml").write_text(f"run_id: {run.name}\n")
    (run / "metrics/auc").write_text("1" * (70 << 20))


BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "toml: a dotted key": (file("config.toml", "a." * 40_000 + "a = 1"), "more than 64 parts"),
    "toml: a long header": (
        file("config.toml", f"[{'a.' * 30_000}a]\n" + "k.k = 1\n" * 10_000),
        "more than 64 parts",
    ),
    "toml: a dotted key in quotes": (
        file("config.toml", '"=".' + "a." * 40_000 + "a = 1"),
        "more than 64 parts",
    ),
    "toml: nested": (file("config.toml", "a = " + "[" * 100_000), "nested too deep"),
    "toml: a number": (file("config.toml", "a = 0x" + "f" * 200_000), "for integer string conversion"),
    "toml: long": (file("config.toml", "#" * (300 << 10)), "more than 262,144 bytes"),
    "json: nested": (file("config.json", "[" * 500_000), "recursion"),
    "json: a number": (file("config.json", f'{{"a": {"9" * 500_000}}}'), "for integer string conversion"),
    "json: a long key": (
        file("config.json", json.dumps({"k" * 300_000: dict.fromkeys(map(str, range(300)), 1)})),
        "a key has more than 500 characters",
    ),
    "yaml: a list of aliases": (
        file("config.yaml", f"s: &s {'x' * 9_000}\n" + f"a: [{'*s, ' * 19_000}1]\n"),
        "",
    ),
    "values to be masked": (
        file("config.json", json.dumps({f"k{n}": "token=" * 700 for n in range(230)})),
        "more than 200 values",
    ),
    "a long value to be masked": (file("config.json", json.dumps({"k": "a-token" * 140_000})), ""),
    "metrics: nested": (file("metrics.json", "[" * 10_000_000), "more than 1,000,000 values"),
    "metrics: long": (file("metrics.json", " " * (17 << 20)), "more than 16,777,216 bytes"),
    "metrics: many lists": (file("metrics.json", f"[{'[],' * 5_000_000}1]"), "1,000,000 values"),
    "metrics: many names": (
        file("metrics.json", json.dumps(dict.fromkeys(map(str, range(300_000)), 1))),
        "more than 10,000 names",
    ),
    "metrics: a long name": (
        file("metrics.json", json.dumps({"k" * 1_000_000: dict.fromkeys(map(str, range(9_000)), 1)})),
        "a name of more than 500 characters",
    ),
    "metrics: wide and long": (
        file("metrics.csv", ",".join(map(str, range(100_000))) + "\n1" * 100_000),
        "",
    ),
    "metrics: many rows": (file("metrics.csv", "a\n" + "1\n" * 2_000_000), "1,000,000 values"),
    "metrics: many lines": (file("metrics.jsonl", '{"a":1}\n' * 200_000), ""),
    "events: many tags": (many_tags, "more than 10,000,000 numbers or 10,000 tags"),
    "events: hardly alike": (hardly_alike, ""),
    "mlflow: many points": (many_points, "more than 1,000,000 points"),
    "mlflow: long": (long_points, "more than 67,108,864 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_run_is_said_within_seconds_and_bounded_memory(
    bomb: str, tmp_path: Path
) -> None:
    make, why = BOMBS[bomb]
    run = tmp_path / ("a" * 32)
    if "mlflow" not in bomb:
        run.mkdir()
    make(run)
    done = subprocess.run(
        [sys.executable, "-c", READ, run], capture_output=True, text=True, check=True, timeout=100
    )
    said, seconds, megabytes, characters, measurements = json.loads(done.stdout)
    assert any(why in one for one in said) if why else not said
    assert seconds < 10
    assert megabytes < 500
    assert characters < 200 * 700
    assert measurements <= 10_000


def test_numbers_that_no_record_can_hold_are_no_steps(tmp_path: Path) -> None:
    run = run_in_files(tmp_path / "mlruns/1")
    write_export(run / "artifacts/saved_model")
    (run / "metrics/f1").write_text("1000 0.5 1e300\n1000 0.25 2\n1e308 0.125 3\n")
    (run / "metrics.json").write_text('{"step": 1e300, "loss": 1e300}')
    (run / "history.jsonl").write_text('{"step": 1e300, "l": 0.5}\n{"epoch": -1e19, "l": 0.25}\n')
    (run / "config.json").write_text('{"a": 1e400, "b": 18446744073709551616}')
    for name in ("metrics.json", "config.json", "artifacts/saved_model/saved_model.pb"):
        os.utime(run / name, (1e9, 1e9))
    repo = new_repository(tmp_path / "repo")
    scanned = command("scan", run, "--json")
    assert scanned.code == 0, scanned.err
    done = command("--root", repo.root, "promote", run, "--model", "m", "--no-smoke")
    assert done.code == 0, done.err
    record = repo.show_version("m")
    numbers = {one.name: (one.step, one.last) for one in record.measured}
    assert numbers["f1"] == (3, 0.125)
    assert numbers["l"] == (1, 0.25)
    assert "metrics/f1: 1 of its lines are no points" in record.unread
    assert record.origin.config["b"] == "18446744073709551616"


def test_a_file_of_a_time_beyond_the_calendar_is_read() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # ext4 knows no such times
        run = Path(memory, "run")
        export = write_export(run / "saved_model")
        (run / "config.json").write_text("{}")
        repo = new_repository(Path(memory, "repo"))
        for files in ([export / "saved_model.pb"], [run / "config.json"]):
            for path in files:
                os.utime(path, (1e12, 1e12))
            done = command("scan", run)
            assert done.code == 0, done.err
            done = command("--root", repo.root, "promote", run, "--model", "m", "--no-smoke")
            assert done.code == 0, done.err
            os.utime(export / "saved_model.pb", (1e9, 1e9))


@pytest.mark.parametrize("number", [70_000, -1])
def test_an_event_with_half_floats_out_of_range_is_read(tmp_path: Path, number: int) -> None:
    event = event_pb2.Event(wall_time=1.0, step=1)
    tensor = event.summary.value.add(tag="half").tensor
    tensor.dtype = 19
    tensor.tensor_shape.SetInParent()
    tensor.half_val.append(number)
    file_of(tmp_path, framed(event.SerializeToString()))
    assert [one.name for one in measure_run(tmp_path).measurements] == ["half"]


def test_an_event_that_is_large_with_a_negative_step_is_read(tmp_path: Path) -> None:
    event = event_pb2.Event(wall_time=1.0, step=-5)
    event.summary.value.add(tag="image").image.encoded_image_string = b"x" * 100_000
    event.summary.value.add(tag="loss").simple_value = 0.25
    file_of(tmp_path, framed(event.SerializeToString()), scalar("loss", 1, 0.5))
    (loss,) = measure_run(tmp_path).measurements
    assert (loss.count, loss.lowest.step if loss.lowest else 0) == (2, -5)


def test_a_row_of_csv_that_is_longer_than_its_head_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,auc\n1,0.5,7,8\n2\n3,0.75\n")
    (auc,) = measure_run(tmp_path).measurements
    assert (auc.count, auc.last.step, auc.last.value) == (2, 3, 0.75)


def test_long_values_are_recorded_by_their_begin(tmp_path: Path) -> None:
    values = {"text": "x" * 5_000, "list": list(range(5_000)), "secret": f"{'y' * 990} token=abcd"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = read_configuration(list_names(str(tmp_path)))
    assert found.unread == {}
    assert found.values["text"] == "x" * 200
    assert found.values["list"].startswith("[0, 1, 2, 3")
    assert {len(one) for name, one in found.values.items() if name != "secret"} == {200}


def test_a_parameter_of_any_length_is_read_by_its_begin(tmp_path: Path) -> None:
    run = run_in_files(tmp_path)
    (run / "params/text").write_text("x" * 1_000_000)
    read = read_mlflow(str(run))
    assert read is not None
    assert read.params == {"lr": "0.1", "text": "x" * 8_000}
