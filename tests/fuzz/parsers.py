"""Fuzz what reads strangers' files, with coverage: `python tests/fuzz/parsers.py PARSER [libFuzzer options]`.

These are the parsers of an export's files and of configs, and the readers of a run: its archive, its events,
configurations and metrics, and what MLflow keeps of it. Anything but a result or the parser's own error ends the run
with a traceback, and the bytes are kept in a file. `make fuzz` gives each parser a minute, with the options that
libFuzzer has: memory and time for one input.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import struct
import sys
import tarfile
import tempfile
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))  # for what the tests make

with atheris.instrument_imports(
    include=["servingrepo.savedmodel", "servingrepo.textproto", "servingrepo.runs"]
):
    from servingrepo.errors import ServingRepoError
    from servingrepo.protos import event_pb2, model_server_config_pb2, saved_model_pb2
    from servingrepo.runs import tensorboard  # noqa: F401 - imported where a run has some
    from servingrepo.runs.archives import Limits, unpacked
    from servingrepo.runs.configuration import read_configuration
    from servingrepo.runs.listing import Folder, Listing
    from servingrepo.runs.measure import measure
    from servingrepo.runs.mlflow import read_database, read_mlflow
    from servingrepo.savedmodel.bundle import BadIndex, read_index
    from servingrepo.savedmodel.canonical import canonical_bytes
    from servingrepo.savedmodel.crc32c import crc32c, mask
    from servingrepo.savedmodel.fingerprint import read_fingerprint
    from servingrepo.savedmodel.inspection import inspect_export
    from servingrepo.savedmodel.layouts import BrokenLayout, Strings, Variants
    from servingrepo.savedmodel.snappy import BadSnappy, decompress
    from servingrepo.textproto import BadText, parse

from google.protobuf import text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from tests.savedmodel.hostile import block
from tests.savedmodel.hostile import index as made_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

NOTHING_KNOWN = DescriptorPool()
FOLDER = Path(tempfile.mkdtemp(prefix="servingrepo-fuzz-"))
RUN = FOLDER / "mlruns" / "1" / ("8" * 32)
LONG_AGO = (1_000_000_000, 1_000_000_000)


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


def folder_of(**files: bytes) -> Folder:
    """Write files into the run's folder, and return it as a look has it; the last `_` of a name is a dot."""
    RUN.mkdir(parents=True, exist_ok=True)
    places = {}
    for name, data in files.items():
        path = RUN / ".".join(name.rsplit("_", 1))
        path.write_bytes(data)
        places[path.name] = str(path)
    return Folder(real_path=str(RUN), path=".", depth=0, files=places, folders=())


def look_of(folder: Folder) -> Listing:
    return Listing(
        run=str(RUN), folders=(folder,), links_out=(), unreadable=(), entries=1, complete=True
    )


def framed(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    ends = [struct.pack("<I", mask(crc32c(part))) for part in (head, payload)]
    return head + ends[0] + payload + ends[1]


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut bytes in pieces, each of which begins with its length."""
    while data:
        yield data[1 : 1 + data[0]]
        data = data[1 + data[0] :]


def events(data: bytes) -> None:
    """Fuzz the bytes as they are, or records whose checksums are right: many of them alike, or a large one."""
    kind, data = sum(data[:1]) % 3, data[1:]
    if kind == 1:
        records = (framed(one) * (30 if at % 2 else 1) for at, one in enumerate(pieces(data)))
        data = b"".join(records)
    elif kind:
        data = framed(data[:200] + b"\x1a\xf0\xa2\x04" + b"x" * 70_000 + data[200:])
    name = "events.out.tfevents.1_x"
    measure(look_of(folder_of(**{name: data, f"2{name}": data[::2]})), None)


def configuration(data: bytes) -> None:
    name = ("config_json", "params_toml", "hparams_yaml")[sum(data[:1]) % 3]
    read_configuration(look_of(folder_of(**{name: data[1:]})))


def metrics(data: bytes) -> None:
    name = ("metrics_json", "history_jsonl", "results_csv")[sum(data[:1]) % 3]
    measure(look_of(folder_of(**{name: data[1:]})), None)


def mlflow(data: bytes) -> None:
    first, second, third, *_ = (*pieces(data), b"", b"", b"")
    for name in ("metrics", "params"):
        (RUN / name).mkdir(parents=True, exist_ok=True)
    (RUN / "meta.yaml").write_bytes(f"run_id: {RUN.name}\n".encode() + first)
    (RUN / "MLmodel").write_bytes(third)
    (RUN / "metrics/f1").write_bytes(second)
    (RUN / "params/lr").write_bytes(third)
    read_mlflow(str(RUN))
    (RUN / "meta.yaml").unlink()
    read_mlflow(str(RUN / "params"))


def patched(whole: bytes, data: bytes) -> bytes:
    """Change bytes of something that is whole: each three are a place and what to put there."""
    changed = bytearray(whole)
    for at in range(0, len(data) - 2, 3):
        changed[int.from_bytes(data[at : at + 2], "little") % len(changed)] = data[at + 2]
    return bytes(changed)


def _database() -> tuple[bytes, bytes]:
    """Return a small database as MLflow makes it, and its write-ahead log."""
    path = FOLDER / "made.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.executescript(
            """
            PRAGMA page_size = 512;
            PRAGMA journal_mode = WAL;
            CREATE TABLE runs (run_uuid, name, experiment_id, user_id, lifecycle_stage);
            CREATE TABLE params (key, value, run_uuid, PRIMARY KEY (key, run_uuid));
            CREATE TABLE tags (key, value, run_uuid);
            CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);
            CREATE TABLE logged_models (model_id, source_run_id);
            """
        )
        made.execute("INSERT INTO runs VALUES (?, 'n', 1, 'root', 'active')", (RUN.name,))
        made.execute("INSERT INTO params VALUES ('lr', ?, ?)", ("0.1" * 400, RUN.name))
        made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        made.execute("INSERT INTO metrics VALUES ('auc', 0.5, 1000, ?, 1, 0)", (RUN.name,))
        return path.read_bytes(), path.with_name("made.db-wal").read_bytes()


def database(data: bytes) -> None:
    """Fuzz a database and a log of which some bytes are others; the checksums of a log are seldom right then."""
    whole, log = DATABASE
    log = log if data[:1] < b"@" else patched(log, data[1:4])
    for name, content in (("mlflow.db", patched(whole, data[1:])), ("mlflow.db-wal", log)):
        (FOLDER / name).write_bytes(content)
        os.utime(FOLDER / name, LONG_AGO)
    read_database(FOLDER / "mlflow.db", run=RUN.name, model="m")
    assert {path.name for path in FOLDER.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db-wal"}


def _archives() -> tuple[bytes, ...]:
    """Return small archives with files, directories and links."""
    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
            for name, kind in (("a", tarfile.DIRTYPE), ("a/l", tarfile.SYMTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, "f"
                tar.addfile(entry)
            for name in ("a/f", f"a/{'n' * 120}"):
                entry = tarfile.TarInfo(name)
                entry.size = 3
                tar.addfile(entry, io.BytesIO(b"xyz"))
        found.append(packed.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name in ("a/", "a/f", "a/b/g"):
            zipped.writestr(name, b"" if name.endswith("/") else b"xyz" * 9, zipfile.ZIP_DEFLATED)
    return (*found, packed.getvalue())


EVENT = event_pb2.Event(
    wall_time=1.0, step=300, summary={"value": [{"tag": "loss", "simple_value": 0.5}]}
).SerializeToString()
DATABASE = _database()
ARCHIVES = _archives()
PARSERS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        *(index, snappy, layouts, graph, fingerprint, text, archive),
        *(events, configuration, metrics, mlflow, database),
    )
}


SEEDS: dict[str, tuple[bytes, ...]] = {
    "events": (
        b"\0" + framed(EVENT),
        b"\1" + bytes([len(EVENT)]) + EVENT + bytes([len(EVENT)]) + EVENT,
        b"\2" + EVENT,
    ),
    "configuration": (
        b'\0{"a": {"b": [1, {"c": 2.5e3}], "token": "x"}, "d": null}',
        b'\1a.b = 1\n[t.u]\nd = 2026-05-10\n[[v]]\ne = {f = [0x1, "x"]}\n"q" = """\nr"""\n',
        b"\2a: &a {b: [1, 2.5], c: 2026-05-10}\nd: {<<: *a}\ne: 1:30\nf: !!binary aGk=\n",
    ),
    "metrics": (
        b'\0{"a": {"b": [1, 2.5, NaN]}, "rows": [{"step": 1, "x": 2}], "c": "3"}',
        b'\1{"step": 1, "a": {"b": 2}}\n\n{"epoch": 2e3, "a": {"b": "7"}}\n',
        b'\2step,a,b\n1,0.5,"x"\n2,1e3,,\n',
    ),
    "mlflow": (b"\x0drun_name: 'x'\n\x0e1000 0.5 1\n2 3\n\x0amodel_id: m",),
    "database": (b"\0\0\0\0", b"\xff\x20\0\7\x18\0\1"),
    "archive": ARCHIVES,
}
"""What a fuzzer begins with, where it would take long to find out how anything looks at all."""


def main() -> None:
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(PARSERS))
        return
    name = sys.argv.pop(1)
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS.get(name, ())):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], PARSERS[name])
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
