"""Fuzz each parser of an export's files with coverage: `python tests/fuzz/parsers.py PARSER [libFuzzer options]`.

The archives that an export may come in are among them. Anything but a result or the parser's own error ends the run
with a traceback, and the bytes are kept in a file. `make fuzz` gives each parser a minute, with the options that
libFuzzer has: memory and time for one input.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))  # for what the tests make

with atheris.instrument_imports(
    include=["servingrepo.savedmodel", "servingrepo.textproto", "servingrepo.rundir"]
):
    from servingrepo.errors import ServingRepoError
    from servingrepo.protos import model_server_config_pb2, saved_model_pb2
    from servingrepo.rundir.archives import Limits, unpacked
    from servingrepo.savedmodel import inspect_export
    from servingrepo.savedmodel.bundle import BadIndex, read_index
    from servingrepo.savedmodel.canonical import canonical_bytes
    from servingrepo.savedmodel.fingerprint import read_fingerprint
    from servingrepo.savedmodel.layouts import BrokenLayout, Strings, Variants
    from servingrepo.savedmodel.snappy import BadSnappy, decompress
    from servingrepo.textproto import BadText, parse

from google.protobuf import text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from tests.savedmodel.hostile import block
from tests.savedmodel.hostile import index as made_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

NOTHING_KNOWN = DescriptorPool()
FOLDER = Path(tempfile.mkdtemp(prefix="servingrepo-fuzz-"))


def index(data: bytes) -> None:
    """Fuzz blocks whose checksums are right: nothing else gets further than them."""
    size = int.from_bytes(data[:2], "little")
    plain, packed = (
        block(data[3 : 3 + size]),
        block(data[3 + size :], kind=sum(data[2:3]) & 1),
    )
    for whole in (data, made_index(plain), made_index(plain, packed)):
        with suppress(BadIndex):
            read_index(whole)


def snappy(data: bytes) -> None:
    with suppress(BadSnappy):
        decompress(data, limit=1 << 20)


def layouts(data: bytes) -> None:
    elements = int.from_bytes(data[:2], "little")
    for kind in (Strings, Variants):
        with suppress(BrokenLayout):
            layout = kind(elements)
            layout.feed(data[2:10])
            layout.feed(data[10:])
            layout.finish()


def graph(data: bytes) -> None:
    (FOLDER / "saved_model.pb").write_bytes(data)
    inspect_export(FOLDER)


def fingerprint(data: bytes) -> None:
    size = int.from_bytes(data[:1], "little")
    message = saved_model_pb2.SavedModel()
    message.meta_graphs.add()
    with suppress(ValueError, DecodeError):
        message.MergeFromString(data[1 + size :])
        canonical = bytes(canonical_bytes(message))
        assert saved_model_pb2.SavedModel.FromString(canonical) == message
        read_fingerprint(data[1 : 1 + size], saved_model=data, message=message, index=data)


def text(data: bytes) -> None:
    """Fuzz the strict reader; what it takes, Python writes as a text that it takes again."""
    for kind in (model_server_config_pb2.ModelServerConfig, saved_model_pb2.SavedModel):
        message, again = kind(), kind()
        with suppress(BadText):
            parse(data.decode(errors="surrogateescape"), message)
            written = _written(message)
            try:
                parse(written, again)
            except BadText as error:
                raise AssertionError(written) from error
            assert _written(again) == written


def _written(message: Message) -> str:
    # Python writes an Any out if it knows the type, and fails where the bytes are none of it.
    return text_format.MessageToString(message, as_utf8=True, descriptor_pool=NOTHING_KNOWN)


def archive(data: bytes) -> None:
    """Fuzz archives by themselves, and as a tar whose checksums are right: nothing else gets further than them."""
    tempfile.tempdir = str(FOLDER)
    blocks = [data[at : at + 512].ljust(512, b"\0") for at in range(0, len(data), 512)]
    for whole in (data, b"".join(map(checksummed, blocks)) + bytes(1024)):
        (FOLDER / "archive").write_bytes(whole)
        with (
            suppress(ServingRepoError),
            unpacked(FOLDER / "archive", limits=Limits(files=100, size=1 << 20)) as place,
        ):
            root = place.resolve()
            assert all(path.resolve().is_relative_to(root) for path in place.rglob("*"))


def checksummed(block: bytes) -> bytes:
    """Make a header of tar of what claims to be one."""
    if block[257:262] != b"ustar":
        return block
    rest = block[:148] + b" " * 8 + block[156:]
    return rest[:148] + b"%06o\0 " % sum(rest) + rest[156:]


PARSERS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (index, snappy, layouts, graph, fingerprint, text, archive)
}


def main() -> None:
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(PARSERS))
        return
    parser = PARSERS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, parser)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
