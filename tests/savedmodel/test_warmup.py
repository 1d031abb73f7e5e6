from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingrepo.errors import DamagedExport, UnsupportedExport
from servingrepo.protos import prediction_log_pb2, types_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.warmup import FILE
from servingrepo.testing.exports import Served, write_export
from tests.support import new_repository, put, run_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIGNATURES = (
    Served(),
    Served(key="c", api="classify", feed="parse_example"),
    Served(key="r", api="regress", feed="parse_example"),
)


def framed(data: bytes) -> bytes:
    """Frame a record as TFRecord files do."""
    head = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", mask(crc32c(one))) for one in (head, data)]
    return head + crcs[0] + data + crcs[1]


def log() -> Any:
    return prediction_log_pb2.PredictionLog()


def predict(change: Callable[[Any], None] = lambda _: None) -> Any:
    """Return a Predict request that the export answers, after a change."""
    made = log()
    request = made.predict_log.request
    request.model_spec.name = "m"
    tensor = request.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(1.0)
    change(request)
    return made


def examples(kind: str, key: str, *, count: int = 1) -> Any:
    made = log()
    request = getattr(made, kind).request
    request.model_spec.name = "m"
    request.model_spec.signature_name = key
    for _ in range(count):
        one = request.input.example_list.examples.add()
        one.features.feature["x"].float_list.value.append(1.0)
    return made


def multi(*tasks: tuple[str, str, str]) -> Any:
    made = log()
    for model, key, api in tasks:
        task = made.multi_inference_log.request.tasks.add(method_name=f"tensorflow/serving/{api}")
        task.model_spec.name = model
        task.model_spec.signature_name = key
    one = made.multi_inference_log.request.input.example_list.examples.add()
    one.features.feature["x"].float_list.value.append(1.0)
    return made


def dtype(request: Any) -> None:
    request.inputs["x"].dtype = types_pb2.DT_INT32


def content(request: Any) -> None:
    request.inputs["x"].ClearField("float_val")
    request.inputs["x"].tensor_content = struct.pack("<f", 1)


def only(kind: str) -> Any:
    made = log()
    getattr(made, kind).SetInParent()
    return made


GOOD: dict[str, list[Any]] = {
    "predict": [predict(), predict()],
    "another model's name": [predict(lambda one: setattr(one.model_spec, "name", "other"))],
    "another shape": [predict(lambda one: one.inputs["x"].tensor_shape.dim.add(size=1))],
    "a filter": [predict(lambda one: one.output_filter.append("y"))],
    "classify": [examples("classify_log", "c")],
    "regress": [examples("regress_log", "r", count=2)],
    "multi inference": [multi(("m", "c", "classify"), ("m", "r", "regress"))],
    "no request": [log()],
    "content": [predict(content)],
}
BAD: dict[str, tuple[list[Any], str]] = {
    "signature": (
        [predict(lambda one: setattr(one.model_spec, "signature_name", "no"))],
        "no signature no",
    ),
    "input's name": (
        [predict(lambda one: one.inputs["z"].CopyFrom(one.inputs.pop("x")))],
        "no input z",
    ),
    "input missing": ([predict(lambda one: one.inputs.pop("x"))], "does not have input x"),
    "input too many": ([predict(lambda one: one.inputs["z"].SetInParent())], "no input z"),
    "dtype": ([predict(), predict(dtype)], "record 2 at byte"),
    "ref dtype": (
        [predict(lambda one: setattr(one.inputs["x"], "dtype", types_pb2.DT_FLOAT_REF))],
        "float32_ref",
    ),
    "content's size": (
        [predict(lambda one: setattr(one.inputs["x"], "tensor_content", b"123"))],
        "3 bytes for 1 elements of 4",
    ),
    "unknown size": (
        [predict(lambda one: one.inputs["x"].tensor_shape.dim.add(size=-1))],
        "dimension of unknown size",
    ),
    "output": ([predict(lambda one: one.output_filter.append("q"))], "no output q"),
    "output twice": ([predict(lambda one: one.output_filter.extend("yy"))], "twice"),
    "no examples": ([examples("classify_log", "c", count=0)], "no tf.Example"),
    "classify a predict signature": ([examples("classify_log", "")], "one input, inputs"),
    "regress a classify signature": ([examples("regress_log", "c")], "one output, outputs"),
    "no task": ([multi()], "no task"),
    "nameless task": ([multi(("", "c", "classify"))], "does not name the model"),
    "two models": ([multi(("a", "c", "classify"), ("b", "r", "regress"))], "several models"),
    "task twice": ([multi(("m", "c", "classify"), ("m", "c", "classify"))], "same signature"),
    "task's method": ([multi(("m", "c", "predict"))], "has the method"),
    "session run": ([only("session_run_log")], "do not replay a session_run_log"),
    "streamed": ([only("predict_streamed_log")], "do not replay a predict_streamed_log"),
    "no log": ([b"\xff\xff"], "no PredictionLog"),
    "too many": ([predict()] * 1001, "more than 1000 records; record 1001 at byte"),
}


def file_of(records: list[Any]) -> bytes:
    return b"".join(
        framed(one if isinstance(one, bytes) else one.SerializeToString()) for one in records
    )


def export(path: Path, data: bytes) -> Path:
    put(path / FILE, data)
    return write_export(path, signatures=SIGNATURES)


@pytest.mark.parametrize("name", GOOD)
def test_records_that_a_server_replays_are_fine(name: str, tmp_path: Path) -> None:
    found = inspect_export(export(tmp_path, file_of(GOOD[name])))
    assert found.defects == ()
    assert found.warmup is not None
    assert found.warmup.records == len(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_fails_the_load_is_named(name: str, tmp_path: Path) -> None:
    records, said = BAD[name]
    found = inspect_export(export(tmp_path, file_of(records)))
    assert {one.slug for one in found.defects} == {"warm-up"}
    assert any(said in one.message for one in found.defects)
    place = f"record {len(records)} at byte {len(file_of(records[:-1]))}"
    assert all(place in one.message for one in found.defects)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


ONE = file_of([predict()])
DAMAGED = {
    "gzip": (gzip.compress(ONE), "gzip-compressed"),
    "text": (b"this is not a TFRecord file", "no TFRecord file"),
    "length": (ONE + flipped(ONE, 2), f"record 2 at byte {len(ONE)} is damaged"),
    "data": (ONE + flipped(ONE, 20), "the checksum of its data is wrong"),
    "cut": (ONE[:-1], "record 1 at byte 0 is cut short"),
    "huge": (
        struct.pack("<QI", 1 << 63, mask(crc32c(struct.pack("<Q", 1 << 63)))),
        "should have 9223372036854775808 bytes",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_told_with_the_place(name: str, tmp_path: Path) -> None:
    data, said = DAMAGED[name]
    (defect,) = inspect_export(export(tmp_path, data)).defects
    assert (defect.slug, defect.kind) == ("warm-up", "damaged")
    assert said in defect.message


def test_what_a_server_ignores_is_a_note(tmp_path: Path) -> None:
    records = [*GOOD["another shape"], *GOOD["no request"]]
    found = inspect_export(export(tmp_path, file_of(records) + b"tail"))
    assert found.defects == ()
    notes = "\n".join(found.notes)
    assert "record 1 at byte 0: input x is [1, 1], not [?]" in notes
    assert "record 2 at byte" in notes
    assert "4 bytes behind the last record" in notes
    assert inspect_export(export(tmp_path / "empty", b"")).defects == ()


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    from tests.savedmodel.graphs import changed

    def add_default(meta_graph: Any) -> None:
        default = meta_graph.signature_def["serving_default"].defaults["x"]
        default.dtype = types_pb2.DT_FLOAT
        default.float_val.append(1.0)

    path = changed(
        export(tmp_path, file_of([predict(lambda one: one.inputs.pop("x"))])), add_default
    )
    found = inspect_export(path)
    assert found.defects == ()
    assert found.signatures[-1].inputs[0].default == "1.0"


def test_promote_refuses_a_bad_warm_up_file_and_says_whose_it_is(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for name, data, kind in (
        ("a", DAMAGED["data"][0], DamagedExport),
        ("b", file_of(BAD["dtype"][0]), UnsupportedExport),
    ):
        run = run_with(tmp_path / name, offset=1.0)
        put(run / "saved_model" / FILE, data)
        with pytest.raises(kind, match="tf_serving_warmup_requests: record 2 at byte"):
            repo.promote(run, model="m", smoke=False)
    other = file_of(GOOD["another model's name"])
    run = run_with(tmp_path / "c", offset=1.0)
    put(run / "saved_model" / FILE, other)
    done = repo.promote(run, model="m", smoke=False)
    assert done.guard is not None
    assert "written for the model other" in done.guard.notes[0]


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_a_warm_up_path_without_a_file_is_named(kind: str, tmp_path: Path) -> None:
    file = export(tmp_path, b"") / FILE
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    (defect,) = inspect_export(tmp_path).defects
    said = {"folder": "no regular file", "fifo": "a FIFO", "link": "a link out of"}
    assert said[kind] in defect.message


@given(noise=st.binary(max_size=200), place=st.integers(0, 400), valid=st.booleans())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bytes_make_the_check_fail(
    tmp_path: Path, noise: bytes, place: int, *, valid: bool
) -> None:
    """Hostile bytes, framed or not, are a defect or nothing, never an exception."""
    good = ONE * 3
    data = framed(noise) if valid else good[:place] + noise + good[place:]
    inspect_export(export(tmp_path / "e", data))


_SERVER = """
import json, sys
from servingrepo.embedded.capi import TensorFlowRuntime
from servingrepo.embedded.inference import Model, Options
from servingrepo.embedded.metrics import Metrics
from servingrepo.embedded.warmup import warm_up
session = TensorFlowRuntime().load(sys.argv[1], ["serve"])
model = Model(session, Options())
said = {one: str(warm_up(model, one, iterations=1, metrics=Metrics())) for one in sys.argv[1:]}
print(json.dumps(said))
"""


@pytest.mark.tf
def test_what_is_refused_here_is_what_tensorflow_refuses(tmp_path: Path) -> None:
    files = {f"good {name}": file_of(records) for name, records in GOOD.items()}
    files |= {f"bad {name}": file_of(records) for name, (records, _) in BAD.items()}
    files |= {f"bad {name}": data for name, (data, _) in DAMAGED.items()}
    paths = {str(export(tmp_path / name, data)): name for name, data in files.items()}
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, *paths], capture_output=True, text=True, check=True
    )
    said = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, str])
    wrong = {
        name: said[path] for path, name in paths.items() if (said[path] == "OK") != ("good" in name)
    }
    assert wrong == {}
