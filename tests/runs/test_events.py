from __future__ import annotations

import json
import math
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from servingrepo.protos import event_pb2
from servingrepo.runs import event_file
from servingrepo.runs.event_file import read_events
from servingrepo.runs.measure import measure_run
from servingrepo.savedmodel.crc32c import crc32c, mask
from tests.support import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def framed(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    ends = [struct.pack("<I", mask(crc32c(part))) for part in (head, payload)]
    return head + ends[0] + payload + ends[1]


def scalar(tag: str, step: int, value: float, *, tensor: bool = False, time: float = 1e9) -> bytes:
    event = event_pb2.Event(wall_time=time + step, step=step)
    one = event.summary.value.add(tag=tag)
    if tensor:
        one.tensor.dtype = 1
        one.tensor.tensor_shape.SetInParent()
        one.tensor.tensor_content = struct.pack("<f", value)
        one.metadata.plugin_data.plugin_name = "scalars"
    else:
        one.simple_value = value
    return framed(event.SerializeToString())


def file_of(folder: Path, *records: bytes, time: int = 1_000_000_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{time}.host.1.0.v2"
    path.write_bytes(b"".join(records))
    return path


def flat(path: Path) -> dict[str, list[tuple[int, float]]]:
    """All that is read of a file, in its order, by tag."""
    read = read_events(str(path))
    found: dict[str, list[tuple[int, int, float]]] = {}
    for rows in read.rows:
        columns = (rows.places.tolist(), rows.steps.tolist(), rows.values.tolist())
        found.setdefault(rows.tag, []).extend(zip(*columns, strict=True))
    return {
        tag: [(step, value) for _, step, value in sorted(values)] for tag, values in found.items()
    }


def test_events_of_real_producers_are_what_tensorflow_reads(produced: Path) -> None:
    expected: dict[str, dict[str, list[Any]]] = json.loads((produced / "expected.json").read_text())
    assert len(expected) == 6
    for name, tags in expected.items():
        assert flat(produced / name) == {
            tag: [(step, value) for step, value in values] for tag, values in tags.items()
        }


def test_events_of_an_estimator_of_tensorflow_1_are_read(corpus: Path) -> None:
    measured = measure_run(corpus / "tfx/estimator_run")
    by_name = {one.name: one for one in measured.measurements}
    accuracy = by_name["eval_chicago-taxi-eval/accuracy"]
    assert (accuracy.last.step, round(accuracy.last.value, 6)) == (1000, 0.77735)
    assert by_name["loss"].count == 10
    assert [one.problems for one in measured.event_runs] == [(), ()]


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("first", [0, 120, 16_300, 2_097_000])
def test_events_when_there_are_many_then_columns_and_single_records_agree(
    tmp_path: Path, tensor: bool, first: int
) -> None:
    random = np.random.default_rng(first)
    said: dict[str, list[tuple[int, float]]] = {}
    records = []
    for step in range(first, first + 700):
        for tag in ("loss", "a/b", "ccc", "loos"):
            if random.random() < (1 if step % 250 else 0.5):
                value = float(np.float32(random.normal()))
                said.setdefault(tag, []).append((step, value))
                records.append(scalar(tag, step, value, tensor=tensor))
    path = file_of(tmp_path, *records)
    assert flat(path) == said
    assert read_events(str(path)).alone < 0.1 * len(records)


def test_events_when_payloads_are_damaged_then_only_those_are_lost(tmp_path: Path) -> None:
    records = [scalar("loss", step, step) for step in range(400)]
    for hit, byte in {50: 12 + 3, 51: 12 + 14, 200: len(records[200]) - 6, 333: 12 + 20}.items():
        broken = bytearray(records[hit])
        broken[byte] ^= 0x10
        records[hit] = bytes(broken)
    path = file_of(tmp_path, *records)
    assert [step for step, _ in flat(path)["loss"]] == [
        step for step in range(400) if step not in {50, 51, 200, 333}
    ]
    (problem,) = read_events(str(path)).problems
    assert problem.startswith("4 damaged records were passed over")


def test_events_when_a_length_is_damaged_then_what_is_before_counts(tmp_path: Path) -> None:
    records = [scalar("loss", step, step) for step in range(1000)]
    start = sum(map(len, records[:700]))
    path = file_of(tmp_path, *records[:700], b"\xff" * 30, *records[700:])
    assert len(flat(path)["loss"]) == 700
    (problem,) = read_events(str(path)).problems
    assert f"damaged at byte {start:,}" in problem


@pytest.mark.parametrize("cut", [1, 5, 13, 40])
def test_events_when_the_file_ends_within_a_record_then_said(tmp_path: Path, cut: int) -> None:
    records = [scalar("loss", step, step) for step in range(100)]
    whole = b"".join(records)
    path = file_of(tmp_path, whole[:-cut])
    assert len(flat(path)["loss"]) == 99
    assert "ends within a record" in read_events(str(path)).problems[0]


@pytest.mark.parametrize("content", [b"", b"\0" * 100_000, b"not events at all" * 9])
def test_events_when_it_is_something_else_then_nothing_and_no_crash(
    tmp_path: Path, content: bytes
) -> None:
    read = read_events(str(file_of(tmp_path, content)))
    assert (read.records, read.rows) == (0, [])
    assert bool(read.problems) == bool(content)


def test_events_when_it_is_a_fifo_or_gone_then_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_events(str(tmp_path / "fifo")).problems == ("it cannot be read: it is a FIFO",)
    assert "cannot be read" in read_events(str(tmp_path / "missing")).problems[0]


def test_scalars_of_large_payloads_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = event_pb2.Event(wall_time=2e9, step=7)
    event.summary.value.add(tag="image").image.encoded_image_string = b"x" * 1_500_000
    event.summary.value.add(tag="loss").simple_value = 0.25
    event.summary.value.add(tag="other").image.encoded_image_string = b"x" * 500_000
    graph = event_pb2.Event(wall_time=1e9, graph_def=b"g" * 20_000_000)
    path = file_of(
        tmp_path,
        framed(graph.SerializeToString()),
        scalar("loss", 1, 0.5),
        framed(event.SerializeToString()),
        scalar("loss", 9, 0.125),
    )
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(event_file, "_PIECE", 1_100_000)
    assert flat(path) == {"loss": [(1, 0.5), (7, 0.25), (9, 0.125)]}
    assert sum(read) < 4_000_000


def tensors() -> Iterator[tuple[Any, bytes, float]]:
    import ml_dtypes

    for dtype, kind in {1: "f4", 2: "f8", 3: "i4", 9: "i8", 19: "f2"}.items():
        yield dtype, np.array(3, kind).tobytes(), 3.0
    yield 14, np.array(3, ml_dtypes.bfloat16).tobytes(), 3.0


def test_events_when_scalars_are_tensors_of_other_types_then_read(tmp_path: Path) -> None:
    records = []
    for dtype, content, _ in tensors():
        event = event_pb2.Event(wall_time=1.0, step=1)
        one = event.summary.value.add(tag=f"t{dtype}")
        one.tensor.dtype = dtype
        one.tensor.tensor_shape.SetInParent()
        one.tensor.tensor_content = content
        records.append(framed(event.SerializeToString()))
    vector = event_pb2.Event(wall_time=1.0)
    one = vector.summary.value.add(tag="vector")
    one.tensor.dtype = 1
    one.tensor.tensor_shape.dim.add(size=1)
    one.tensor.float_val.append(1.0)
    path = file_of(tmp_path, *records, framed(vector.SerializeToString()))
    assert flat(path) == {f"t{dtype}": [(1, number)] for dtype, _, number in tensors()}


def test_measure_when_two_runs_write_into_one_folder_then_detected(produced: Path) -> None:
    measured = measure_run(produced / "mixed")
    (run,) = measured.event_runs
    assert "written at the same time: two runs write into one folder" in run.mixed
    assert all(one.doubtful for one in measured.measurements)
    assert not measure_run(produced / "keras_run").event_runs[0].mixed


def test_repeated_steps_count_once(
    tmp_path: Path,
) -> None:
    file_of(tmp_path, *(scalar("acc", step, 0.9 if step == 8 else 0.5) for step in range(10)))
    later = (scalar("acc", step, 0.6, time=2e9) for step in range(6, 12))
    file_of(tmp_path, *later, time=2_000_000_000)
    measured = measure_run(tmp_path)
    (acc,) = measured.measurements
    assert (acc.count, acc.last.step, round(acc.highest.value, 3)) == (12, 11, 0.6)  # type: ignore[union-attr]
    assert not measured.event_runs[0].reused


def test_measure_when_a_folder_was_used_for_a_second_run_then_said(tmp_path: Path) -> None:
    file_of(tmp_path, *(scalar("acc", step, 0.9) for step in range(10)))
    file_of(
        tmp_path, *(scalar("acc", step, 0.1, time=2e9) for step in range(3)), time=2_000_000_000
    )
    measured = measure_run(tmp_path)
    assert "the folder was used for a second run" in measured.event_runs[0].reused
    assert measured.measurements[0].count == 3


def test_measure_when_values_are_nan_then_best_is_of_the_others(tmp_path: Path) -> None:
    values = [math.nan, 0.5, math.inf, math.nan]
    file_of(tmp_path, *(scalar("loss", step, value) for step, value in enumerate(values)))
    (loss,) = measure_run(tmp_path).measurements
    assert math.isnan(loss.last.value)
    assert loss.lowest is not None
    assert (loss.lowest.value, loss.lowest.step) == (0.5, 1)


def test_measure_reads_json_lines_and_csv(produced: Path, tmp_path: Path) -> None:
    by_name = {one.name: one for one in measure_run(produced / "keras_run").measurements}
    assert by_name["logs/validation/epoch_mae"].count == 4
    assert by_name["val_mae"].last.step == 3
    assert math.isclose(
        by_name["val_mae"].last.value, by_name["logs/validation/epoch_mae"].last.value, rel_tol=1e-5
    )
    assert by_name["validation/mae"].last.file == "metrics.json"
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "auc": 0.5}\n{"step": 10, "auc": 0.75}\n')
    (tmp_path / "history.json").write_text('{"loss": [3, 1, 2], "ok": true, "n": NaN}')
    by_name = {one.name: one for one in measure_run(tmp_path).measurements}
    assert (by_name["auc"].last.step, by_name["auc"].last.value) == (10, 0.75)
    assert by_name["loss"].lowest is not None
    assert (by_name["loss"].lowest.step, by_name["loss"].last.value) == (1, 2.0)
    assert by_name["n"].highest is None
    assert "ok" not in by_name


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'["a", {}]'])
def test_a_broken_metrics_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    (tmp_path / "results.json").write_text('{"auc": 1}')
    measured = measure_run(tmp_path)
    assert [one.name for one in measured.measurements] == ["auc"]
    assert all("metrics.json: it is no JSON" in problem for problem in measured.problems)


def test_measure_when_there_is_too_much_then_left_out_and_said(tmp_path: Path) -> None:
    file_of(tmp_path, scalar("loss", 1, 1.0))
    measured = measure_run(tmp_path, most=10)
    assert not measured.measurements
    assert "were not read" in measured.problems[0]


def test_scan_says_what_was_measured(produced: Path) -> None:
    done = command("scan", produced / "keras_run")
    assert done.code == 0, done.err
    assert "measured      logs/validation/epoch_mae: last " in done.out
    found = command("scan", produced / "keras_run", "--json").json["result"]["measured"]
    assert [one["path"] for one in found["event_runs"]] == ["logs/train", "logs/validation"]


def test_progress_counts_every_byte_of_events_once(tmp_path: Path) -> None:
    long = [scalar("loss", step, 1 / (step + 1)) for step in range(200_000)]
    paths = [
        file_of(tmp_path / "whole", *long),
        file_of(tmp_path / "cut", scalar("loss", 1, 0.5), b"half"),
        file_of(tmp_path / "damaged", scalar("loss", 1, 0.5), b"x" * 100),
        file_of(tmp_path / "empty"),
    ]
    told: list[int] = []
    measure_run(tmp_path, progress=told.append)
    assert sum(told) == sum(path.stat().st_size for path in paths)
    assert max(told) < paths[0].stat().st_size, "not only when the file is done"
