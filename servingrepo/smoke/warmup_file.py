"""The warm-up file that cases make: each is a record that servers replay before a version becomes available.

Its form and limits are those of servables/tensorflow/saved_model_warmup.cc: an uncompressed TFRecord of
PredictionLogs, at most 1,000. Servers look at the signature's name of a record, and not at its model.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from servingrepo.errors import BadCase
from servingrepo.protos import prediction_log_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.warmup import MAX_RECORDS, RECORD_LIMIT
from servingrepo.smoke.fitting import Misfit, fit_case
from servingrepo.smoke.requests import fill_input

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.smoke.cases import SmokeCase
    from servingrepo.smoke.fitting import Fitted

__all__ = ["warmup_file"]

LIMIT = 256 << 20
"""The most bytes of a file that is written: a server reads all of it each time it loads the version."""


def warmup_file(cases: Iterable[SmokeCase], inspection: Inspection) -> tuple[bytes, int]:
    """Return a warm-up file of the cases, and the number of its records. Cases that expect errors are refused.

    Raises:
        BadCase: There is no case, or there are too many; one does not fit the export, or expects an error. The error
            lists all problems.
    """
    records: list[bytes] = []
    problems: list[str] = []
    for case in cases:
        if len(records) >= MAX_RECORDS:
            problems.append(
                f"there are more than {MAX_RECORDS} cases: a server refuses such a file"
            )
            break
        if case.expect is not None and case.expect.error is not None:
            problems.append(
                f"{case.source}: it expects an error, which fails the load of a version"
            )
            continue
        try:
            data = _log(fit_case(case, inspection)).SerializeToString(deterministic=True)
        except Misfit as misfit:
            problems += [f"{case.source}: {text}" for text in misfit.problems]
            continue
        if len(data) > RECORD_LIMIT:
            problems.append(f"{case.source}: it has more than {RECORD_LIMIT:,} bytes")
            continue
        records.append(_framed(data))
    size = sum(map(len, records))
    if size > LIMIT:
        problems.append(f"the file would have {size:,} bytes, more than {LIMIT:,}")
    if not records and not problems:
        problems.append("there is no case")
    if problems:
        raise BadCase(
            f"no warm-up file can be made for {inspection.path}",
            problems=problems,
            hint="name the cases to replay with --case, or leave out those that the problems name",
        )
    return b"".join(records), len(records)


def _log(fitted: Fitted) -> Any:
    log = prediction_log_pb2.PredictionLog()
    if fitted.api == "Predict":
        request = log.predict_log.request
        for alias, tensor in fitted.inputs.items():
            request.inputs[alias].CopyFrom(tensor)
    else:
        kind = log.regress_log if fitted.api == "Regress" else log.classify_log
        request = kind.request
        fill_input(request, fitted.examples, fitted.context)
    request.model_spec.signature_name = fitted.signature.key
    return log


def _framed(data: bytes) -> bytes:
    """Return a TFRecord (xla/tsl/lib/io/record_writer.cc)."""
    length = struct.pack("<Q", len(data))
    return (
        length
        + struct.pack("<I", mask(crc32c(length)))
        + data
        + struct.pack("<I", mask(crc32c(data)))
    )
