"""The warm-up file of an export, read record by record as a server will replay it, without a server.

TensorFlow Serving replays `assets.extra/tf_serving_warmup_requests` before a version becomes available, and
one record that fails fails the load, six times over five minutes by default
(servables/tensorflow/saved_model_warmup.cc and saved_model_warmup_util.cc). What it would refuse is a defect
here; what it ignores is a note.
"""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.reading import ExportFiles, Unreadable
from servingrepo.savedmodel.replay import Known, replay_problems
from servingrepo.savedmodel.values import Defect, Signature, Warmup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FILE",
    "MAX_RECORDS",
    "RECORD_LIMIT",
    "SLUG",
    "BadRecord",
    "WarmupCheck",
    "check_warmup",
    "read_records",
]

FILE = "assets.extra/tf_serving_warmup_requests"
SLUG = "warm-up"
"""The slug of a defect of this file."""
MAX_RECORDS = 1000
RECORD_LIMIT = 256 << 20
"""Bytes of the longest record that is parsed; a server takes up to 2 GiB."""
MOST_PROBLEMS = 20
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_GZIP = b"\x1f\x8b"
_SUPPORTED = frozenset({"classify_log", "regress_log", "predict_log", "multi_inference_log"})
_HINT = "write the file anew, or leave it out: a server refuses to load a version over it"


class WarmupCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking a warm-up file; `warmup` is None where there is no file."""

    warmup: Warmup | None = None
    defects: tuple[Defect, ...] = ()
    notes: tuple[str, ...] = ()


class BadRecord(Exception):
    """A TFRecord file cannot be read on from here; the message says why."""


def check_warmup(
    files: ExportFiles, *, signatures: tuple[Signature, ...], fed: Mapping[tuple[str, str], str]
) -> WarmupCheck:
    """Check an export's warm-up file.

    Args:
        files: The export.
        signatures: What it answers.
        fed: The dtypes that the graph wants, by signature and alias, where that is known.
    """
    try:
        with files.open(FILE) as (file, size):
            return _check(file, size, Known({one.key: one for one in signatures}, fed))
    except Unreadable as error:
        if error.missing:
            return WarmupCheck()
        return WarmupCheck(
            warmup=Warmup(records=0, models=()), defects=(_defect(str(error), kind="damaged"),)
        )


def _check(file: IO[bytes], size: int, known: Known) -> WarmupCheck:
    damage: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    models: set[str] = set()
    number = 0
    try:
        for number, offset, data in read_records(file, size, notes):
            where = f"record {number} at byte {offset}"
            if number > MAX_RECORDS:
                problems.append(f"it has more than {MAX_RECORDS} records; {where} is one too many")
                break
            if data is None:
                notes.append(
                    f"{FILE}: {where} was not checked: it is longer than {RECORD_LIMIT} bytes"
                )
                continue
            found, aside = _check_record(data, known, models)
            problems += [f"{where}: {text}" for text in found]
            notes += [f"{FILE}: {where}: {text}" for text in aside]
            if len(problems) >= MOST_PROBLEMS:
                problems.append("what follows was not checked")
                break
    except BadRecord as error:
        damage.append(str(error))
    notes = [
        *notes[:MOST_PROBLEMS],
        *([f"{FILE}: and more of it"] if len(notes) > MOST_PROBLEMS else []),
    ]
    return WarmupCheck(
        warmup=Warmup(records=number, models=tuple(sorted(models)[:MOST_PROBLEMS])),
        defects=(
            *(_defect(text, kind="damaged") for text in damage),
            *(_defect(text, kind="unsupported") for text in problems),
        ),
        notes=tuple(notes),
    )


def _check_record(data: bytes, known: Known, models: set[str]) -> tuple[list[str], list[str]]:
    from servingrepo.protos import prediction_log_pb2  # only a model with such a file pays for it

    log = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(data)
    except DecodeError:
        return ["it is no PredictionLog"], []
    kind = log.WhichOneof("log_type")
    if kind is None:
        return [], ["it holds no request; servers pass over it"]
    if kind not in _SUPPORTED:
        return [f"servers do not replay a {kind}"], []
    request: Any = getattr(log, kind).request
    specs = (
        [one.model_spec for one in request.tasks]
        if kind == "multi_inference_log"
        else [request.model_spec]
    )
    models.update(one.name for one in specs if one.name)
    return replay_problems(kind, request, known)


def read_records(
    file: IO[bytes], size: int, notes: list[str]
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield number, offset and bytes of the records of an uncompressed TFRecord file; None for a huge one.

    As xla/tsl/lib/io/record_reader.cc reads it: less than a header at the end is the end.

    Raises:
        BadRecord: A checksum is wrong or a record is cut short: a server stops there with DATA_LOSS.
    """
    offset = 0
    number = 0
    while size - offset >= _HEADER.size:
        number += 1
        where = f"record {number} at byte {offset}"
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise BadRecord(f"{where} is cut short: the file shrank")
        length, stored = _HEADER.unpack(head)
        if stored != mask(crc32c(head[:8])):
            if number == 1:
                what = "gzip-compressed" if head.startswith(_GZIP) else "no TFRecord file"
                raise BadRecord(f"it is {what}: servers read uncompressed TFRecords ({where})")
            raise BadRecord(f"{where} is damaged: the checksum of its length is wrong")
        if length > size - offset - _HEADER.size - _FOOTER.size:
            raise BadRecord(f"{where} is cut short: it should have {length} bytes")
        if length > RECORD_LIMIT:
            file.seek(length + _FOOTER.size, 1)
            yield number, offset, None
        else:
            body = file.read(length + _FOOTER.size)
            if len(body) < length + _FOOTER.size:
                raise BadRecord(f"{where} is cut short: the file shrank")
            data = body[:length]
            if _FOOTER.unpack(body[length:])[0] != mask(crc32c(data)):
                raise BadRecord(f"{where} is damaged: the checksum of its data is wrong")
            yield number, offset, data
        offset += _HEADER.size + length + _FOOTER.size
    if size > offset:
        notes.append(f"{FILE}: {size - offset} bytes behind the last record, which servers ignore")


def _defect(text: str, *, kind: Any) -> Defect:
    return Defect(slug=SLUG, kind=kind, message=f"{FILE}: {text}", hint=_HINT)
