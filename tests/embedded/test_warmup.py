from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.embedded.inference import Model, Options
from servingrepo.embedded.metrics import Metrics
from servingrepo.embedded.status import OK, Code, Status
from servingrepo.embedded.warmup import FILE, warm_up
from servingrepo.protos import meta_graph_pb2, prediction_log_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask

if TYPE_CHECKING:
    from pathlib import Path


class FakeSession:
    """Has no signatures, so that any Predict fails, or one that takes and gives nothing."""

    def __init__(self, *, good: bool) -> None:
        self.ran = 0
        self.signatures: dict[str, Any] = (
            {"serving_default": meta_graph_pb2.SignatureDef()} if good else {}
        )

    def decode(self, proto: Any) -> Any:
        return proto

    def run(self, *_: Any, **__: Any) -> list[Any]:
        self.ran += 1
        return []

    def close(self) -> None: ...


def record(log: Any) -> bytes:
    data = log if isinstance(log, bytes) else log.SerializeToString()
    head = struct.pack("<Q", len(data))
    return (
        head + struct.pack("<I", mask(crc32c(head))) + data + struct.pack("<I", mask(crc32c(data)))
    )


def predict_log() -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.SetInParent()
    return log


def run(
    tmp_path: Path, data: bytes, *, good: bool = True, iterations: int = 1
) -> tuple[Status, int]:
    file = tmp_path / FILE
    file.parent.mkdir()
    file.write_bytes(data)
    session = FakeSession(good=good)
    model = Model(session, Options())
    return warm_up(model, str(tmp_path), iterations=iterations, metrics=Metrics()), session.ran


def test_crc32c_of_the_standard_check_value() -> None:
    # CRC-32C of "123456789" is 0xE3069283; masked as TFRecord does.
    crc = 0xE3069283
    assert mask(crc32c(b"123456789")) == (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def test_no_file_is_fine(tmp_path: Path) -> None:
    model = Model(FakeSession(good=True), Options())
    assert warm_up(model, str(tmp_path), iterations=1, metrics=Metrics()) == OK


@pytest.mark.parametrize("data", [b"", b"short"])
def test_empty_or_less_than_a_header_is_the_end(tmp_path: Path, data: bytes) -> None:
    assert run(tmp_path, data) == (OK, 0)


def test_records_run_as_often_as_asked(tmp_path: Path) -> None:
    assert run(tmp_path, record(predict_log()) * 3, iterations=4) == (OK, 12)


def test_failing_record_fails_with_its_own_status(tmp_path: Path) -> None:
    expected = Status(
        Code.FAILED_PRECONDITION, 'Serving signature key "serving_default" not found.'
    )
    assert run(tmp_path, record(predict_log()), good=False) == (expected, 0)


def test_other_text_is_data_loss(tmp_path: Path) -> None:
    expected = Status(
        Code.DATA_LOSS,
        "corrupted record at 0 (Is this even a TFRecord file?). "
        "Please verify your warmup data is in TFRecord format.",
    )
    assert run(tmp_path, b"this is not a TFRecord file") == (expected, 0)


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (b"x", "corrupted record at {data}"),
        (b"", "truncated record at {record}' failed with Read less bytes than requested"),
    ],
)
def test_damaged_second_record_is_data_loss(tmp_path: Path, cut: bytes, text: str) -> None:
    good = record(predict_log())
    status, ran = run(tmp_path, good + good[:-1] + cut)
    told = text.format(record=len(good), data=len(good) + 12)
    assert status == Status(
        Code.DATA_LOSS, f"{told}. Please verify your warmup data is in TFRecord format."
    )
    assert ran == 1


def test_more_than_a_thousand_records(tmp_path: Path) -> None:
    status, ran = run(tmp_path, record(predict_log()) * 1002)
    assert status == Status(
        Code.INVALID_ARGUMENT,
        f"Number of warmup records exceeds the maximum (1000) at {tmp_path}/{FILE}",
    )
    assert ran == 1001


def test_unsupported_and_empty_logs(tmp_path: Path) -> None:
    session_log = prediction_log_pb2.PredictionLog()
    session_log.session_run_log.SetInParent()
    status, ran = run(tmp_path, record(prediction_log_pb2.PredictionLog()) + record(session_log))
    number = session_log.DESCRIPTOR.fields_by_name["session_run_log"].number
    assert status == Status(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    assert ran == 0


def test_record_that_is_no_prediction_log(tmp_path: Path) -> None:
    status, _ = run(tmp_path, record(b"\xff\xff"))
    assert status.code is Code.INVALID_ARGUMENT
    assert status.message.startswith("Failed to parse warmup record: ")


def test_what_was_read_is_counted_unless_a_request_failed(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.parent.mkdir()
    damaged = "DATA_LOSS: corrupted record at"
    for data, good, expected in (
        (record(predict_log()) * 3, True, 'status="OK"} 3'),
        (b"", True, 'status="OK"} 0'),
        (record(predict_log()) + b"x" * 20, True, f'status="{damaged}'),
        (record(predict_log()), False, None),
    ):
        file.write_bytes(data)
        metrics = Metrics()
        model = Model(FakeSession(good=good), Options())
        warm_up(model, str(tmp_path), iterations=2, metrics=metrics)
        lines = [one for one in metrics.page().splitlines() if "records_read{" in one]
        assert [expected in one for one in lines if expected] == [True] * bool(expected)
        assert bool(lines) is (expected is not None)
