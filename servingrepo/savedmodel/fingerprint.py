"""fingerprint.pb: what TensorFlow noted about an export, and whether it still holds.

TensorFlow and TensorFlow Serving only report fingerprints; neither verifies them. Here the checkpoint hash is
computed again. The other hashes are shown and called "not checked".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import farmhash
from google.protobuf.message import DecodeError

from servingrepo.protos import fingerprint_pb2
from servingrepo.savedmodel.values import FieldVerdict, Fingerprint, FingerprintField

if TYPE_CHECKING:
    from typing import Any

__all__ = ["read_fingerprint"]

HASHES = (
    "saved_model_checksum",
    "graph_def_program_hash",
    "signature_def_hash",
    "saved_object_graph_hash",
    "checkpoint_hash",
)


def read_fingerprint(data: bytes, *, index: bytes | None) -> Fingerprint:
    """Read the bytes of fingerprint.pb and check what can be checked.

    Args:
        data: The file's bytes.
        index: The bytes of `variables/variables.index`; None when there is no such file.

    Raises:
        ValueError: It is no FingerprintDef.
    """
    message = fingerprint_pb2.FingerprintDef()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("fingerprint.pb is no FingerprintDef") from error
    # fingerprinting_utils.cc: the hash of a checkpoint that is not there is 0.
    computed = farmhash.fingerprint64(index) if index is not None else 0
    return Fingerprint(
        producer=message.version.producer,
        uuid=message.uuid,
        fields=tuple(_field(message, name, computed) for name in HASHES),
    )


def _field(message: Any, name: str, checkpoint_hash: int) -> FingerprintField:
    stored: int = getattr(message, name)
    if name != "checkpoint_hash":
        verdict: FieldVerdict = "not checked" if stored else "absent"
        return FingerprintField(name=name, stored=stored, computed=None, verdict=verdict)
    # proto3 does not store a 0, so a 0 beside a checkpoint means that nothing was noted.
    verdict = "matches" if stored == checkpoint_hash else "differs" if stored else "absent"
    return FingerprintField(name=name, stored=stored, computed=checkpoint_hash, verdict=verdict)
