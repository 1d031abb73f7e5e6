"""A child process: reads texts as saved_model.pbtxt with TensorFlow's own C++ library and writes what it took.

`python tensorflow_reader.py TEXTS ANSWERS`: msgpack of a list of bytes in, of a list of answers out. An answer is
None for a text that the parser refused, else the signatures of the MetaGraph with the tag serve, serialized.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.embedded.capi import TensorFlowRuntime
from servingrepo.embedded.status import Code, Status

# What ReadTextProto (tsl/platform/env.cc) returns for a text that does not parse: the second where its end was read.
REFUSED = {Code.DATA_LOSS, Code.OUT_OF_RANGE}


def answers(texts: list[bytes]) -> list[dict[str, bytes] | None]:
    runtime = TensorFlowRuntime()
    found: list[dict[str, bytes] | None] = []
    with tempfile.TemporaryDirectory() as folder:
        for text in texts:
            Path(folder, "saved_model.pbtxt").write_bytes(text)
            try:
                loaded = runtime.load(folder, ["serve"])
            except DecodeError:  # taken, but Python has no place for a string that is not UTF-8
                found.append({})
                continue
            if isinstance(loaded, Status):
                found.append(None if loaded.code in REFUSED else {})
                continue
            found.append(
                {
                    key: signature.SerializeToString(deterministic=True)
                    for key, signature in loaded.signatures.items()
                }
            )
            loaded.close()
    return found


if __name__ == "__main__":
    given, wanted = map(Path, sys.argv[1:])
    texts = msgspec.msgpack.decode(given.read_bytes(), type=list[bytes])
    wanted.write_bytes(msgspec.msgpack.encode(answers(texts)))
