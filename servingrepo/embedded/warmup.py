"""Warm-up: replays a version's recorded requests before it is available.

After servables/tensorflow/saved_model_warmup.cc and saved_model_warmup_util.cc, and xla/tsl/lib/io's
record_reader.cc. A record that fails makes the load fail. Responses in the records are ignored.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from servingrepo.embedded.examples import classify, multi_inference, regress
from servingrepo.embedded.inference import predict
from servingrepo.embedded.status import OK, Code, Status, from_os_error, invalid
from servingrepo.embedded.versions import exists, file_path, join_path
from servingrepo.protos import prediction_log_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.embedded.inference import Model
    from servingrepo.embedded.metrics import Metrics

__all__ = ["warm_up"]

FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000
ADVICE = ". Please verify your warmup data is in TFRecord format."
LATENCY = "/tensorflow/serving/model_warmup_latency"
READ = "/tensorflow/serving/model_warmup_records_read"
HEADER, FOOTER = 12, 4
# The members of PredictionLog's oneof that the server answers. It refuses 6 and 7.
_LOGS: dict[str, Any] = {
    "classify_log": classify,
    "regress_log": regress,
    "predict_log": predict,
    "multi_inference_log": multi_inference,
}


def warm_up(model: Model, version_path: str, *, iterations: int, metrics: Metrics) -> Status:
    """Run every record of the version's warm-up file `iterations` times; no file is fine."""
    begun = time.monotonic()
    path = join_path(version_path, FILE)
    if not exists(path):
        return OK
    try:
        data = Path(file_path(path)).read_bytes()
    except OSError as error:
        return from_os_error(error, path)
    number = 0
    for record in _records(data):
        if isinstance(record, Status):
            # Counted without the advice in the text. A request that fails is not counted.
            read = Status(record.code, record.message.removesuffix(ADVICE))
            metrics.observe(LATENCY, (version_path, str(read)), since=begun)
            metrics.count(READ, (version_path, str(read)), by=number)
            return record
        number += 1
        outcome = _replay(model, record, path, iterations)
        # The real server runs the first record over the limit, and refuses it then.
        if outcome.ok and number > MAX_RECORDS:
            text = f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
            outcome = invalid(text)
        if not outcome.ok:
            return outcome
    metrics.observe(LATENCY, (version_path, "OK"), since=begun)
    metrics.count(READ, (version_path, "OK"), by=number)
    return OK


def _replay(model: Model, record: bytes, path: str, iterations: int) -> Status:
    log = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(record)
    except DecodeError:
        return invalid(
            f"Failed to parse warmup record: {record.decode(errors='replace')} from {path}"
        )
    kind = log.WhichOneof("log_type")
    if kind is None:
        return OK
    if kind not in _LOGS:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        return Status(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    for _ in range(iterations):
        response = _LOGS[kind](model, getattr(log, kind).request)
        if isinstance(response, Status):
            return response
    return OK


def _records(data: bytes) -> Iterator[bytes | Status]:
    """Yield the records of an uncompressed TFRecord file, and a Status at damage.

    Less than a header at the end is the end of the file; a record cut short is an error.
    """
    position = 0
    while len(data) - position >= HEADER:
        head = data[position : position + 8]
        (length,) = struct.unpack("<Q", head)
        (stored,) = struct.unpack_from("<I", data, position + 8)
        if stored != mask(crc32c(head)):
            remark = "" if position else " (Is this even a TFRecord file?)"
            yield _damaged(f"corrupted record at {position}{remark}")
            return
        start = position + HEADER
        end = start + length
        if len(data) < end + FOOTER:
            # The stray apostrophe is the real server's.
            yield _damaged(
                f"truncated record at {position}' failed with Read less bytes than requested"
            )
            return
        (stored,) = struct.unpack_from("<I", data, end)
        if stored != mask(crc32c(data[start:end])):
            yield _damaged(f"corrupted record at {start}")
            return
        yield data[start:end]
        position = end + FOOTER


def _damaged(text: str) -> Status:
    return Status(Code.DATA_LOSS, text + ADVICE)
