"""Where cases come from: files in several formats, the model's own warm-up file, and the caller's own code.

The format of a file goes by its name: `.json`, `.jsonl`, `.toml`, `.npz`, `.tfrecord`, `tf_serving_warmup_requests`.
Any other file that begins as a TFRecord is one, and the rest is JSON. JSON Lines and TFRecords are read one case at a
time, so that their number costs no memory.
"""

from __future__ import annotations

import io
import json
import os
import tomllib
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.errors import BadCase
from servingrepo.protos import example_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.reading import ANYWHERE, ExportFiles, Unreadable, files_of
from servingrepo.savedmodel.warmup import FILE as WARMUP
from servingrepo.savedmodel.warmup import RECORD_LIMIT, BadRecord, read_records
from servingrepo.smoke.cases import (
    HINT,
    Document,
    SmokeCase,
    read_case,
    read_document,
    read_header,
    refuse_bad,
)
from servingrepo.smoke.code import CaseCode
from servingrepo.smoke.npz import read_npz
from servingrepo.smoke.tensors import TENSOR_LIMIT
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "FILE_LIMIT",
    "OWN_WARMUP",
    "CaseCode",
    "CaseFile",
    "Cases",
    "OwnWarmup",
    "as_source",
    "cases_in",
    "cases_of_model",
    "load_cases",
]

FILE_LIMIT = 64 << 20
"""The most bytes of a JSON or TOML file, of one line of JSON Lines, and of all cases that lie in a run."""
OWN_WARMUP = "warmup"
"""What `--case` calls the model's own warm-up file."""
_DOCUMENTS = (".json", ".jsonl", ".toml")
_DATA = (".npz", ".tfrecord", ".tfrecords")
_WARMUP_NAME = WARMUP.rpartition("/")[2]
_RECORD_HEAD = 12


class CaseFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of cases; each iteration reads it anew.

    Attributes:
        folder: The folder that it lies in, with the boundary that its links may not leave.
        name: Its path in the folder.
        shown: Its name in reports.
        runs_code: Whether its cases may name predicates: the caller named this file.
        contents: The bytes of the folder's files, if they were read before and must not be read again.
    """

    folder: ExportFiles
    name: str
    shown: str
    runs_code: bool = False
    contents: Mapping[str, bytes] | None = None

    def __iter__(self) -> Iterator[SmokeCase]:
        """Yield its cases. What is wrong with one is in its `problems`.

        Raises:
            BadCase: The file cannot be read, or is of no format of cases.
        """
        try:
            with self._open(self.name) as (file, size):
                yield from self._read(file, size)
        except Unreadable as error:
            raise BadCase(
                f"{self.shown}: {error}", hint="give a file of smoke cases that can be read"
            ) from error

    def _read(self, file: IO[bytes], size: int) -> Iterator[SmokeCase]:
        suffix = Path(self.name).suffix
        if Path(self.name).name == _WARMUP_NAME:
            yield from _warmup(file, size, self.shown)
        elif suffix == ".npz":
            yield _arrays(file, self.shown, self._limit)
        elif suffix == ".jsonl":
            yield from self._lines(file)
        elif suffix in _DATA or (suffix not in _DOCUMENTS and _begins_as_records(file)):
            yield from _examples(file, size, self.shown)
        else:
            if size > FILE_LIMIT:
                raise Unreadable(
                    f"it has {size} bytes, more than {FILE_LIMIT}; JSON Lines (.jsonl) may be as long as you like"
                )
            parse = _toml if suffix == ".toml" else _json
            document = read_document(parse(file.read(FILE_LIMIT), self.shown), self.shown)
            yield from self._document(document)

    def _document(self, document: Document) -> Iterator[SmokeCase]:
        cases = (
            read_case(
                one,
                file=self.shown,
                position=position,
                document=document,
                runs_code=self.runs_code,
            )
            for position, one in enumerate(document.cases, start=1)
        )
        if document.strict:
            listed = list(cases)
            refuse_bad(self.shown, listed)
            yield from listed
            return
        for case, value in zip(cases, document.cases, strict=True):
            yield from self._expanded(case, value)

    def _lines(self, file: IO[bytes]) -> Iterator[SmokeCase]:
        """Yield the cases of JSON Lines. The first line has the schema number, each other one a case."""
        header = _json(_line(file), self.shown, "its first line, the header,")
        document = Document(cases=[], budget=read_header(header, self.shown))
        position = 0
        while line := _line(file):
            if not line.strip():
                continue
            position += 1
            try:
                value = _decoded(line)
            except (ValueError, RecursionError) as error:
                why = f"the line is no JSON: {error}"
                yield SmokeCase(file=self.shown, position=position, problems=(why,))
                if not line.endswith(b"\n"):  # the end, or a line that is too long
                    return
                continue
            case = read_case(
                value,
                file=self.shown,
                position=position,
                document=document,
                runs_code=self.runs_code,
            )
            yield from self._expanded(case, value)

    def _expanded(self, case: SmokeCase, value: Any) -> Iterator[SmokeCase]:
        """Yield a case, or those of the file of data that it names."""
        if case.problems or "file" not in value:
            yield case
            return
        name = value["file"]
        if name != os.path.basename(name) or not name.endswith(_DATA):  # noqa: PTH119 - a name is no path yet
            yield _broken(
                case, f"file: {name!r} is no name of a .npz or .tfrecord file beside this one"
            )
            return
        shown = str(Path(self.shown).with_name(name))
        try:
            with self._open(str(Path(self.name).with_name(name))) as (file, size):
                found = (
                    iter((_arrays(file, shown, self._limit),))
                    if name.endswith(".npz")
                    else _examples(file, size, shown)
                )
                for one in found:
                    yield msgspec.structs.replace(
                        one,
                        signature=case.signature or one.signature,
                        name=case.name,
                        expect=case.expect,
                        labels=case.labels,
                        budget=case.budget,
                        expected=case.expected,
                        expected_form=case.expected_form,
                        rtol=case.rtol,
                        atol=case.atol,
                    )
        except Unreadable as error:
            yield _broken(case, f"file {name}: {error}")

    @property
    def _limit(self) -> int:
        """The most bytes of arrays: a small file of a run must not unpack to any size."""
        return TENSOR_LIMIT if self.contents is None else FILE_LIMIT

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        if self.contents is None:
            with self.folder.open(name) as found:
                yield found
        elif name in self.contents:
            yield io.BytesIO(self.contents[name]), len(self.contents[name])
        else:
            raise Unreadable("it is missing", missing=True)


class OwnWarmup(msgspec.Struct, frozen=True, kw_only=True):
    """The warm-up file of the export that is tested. `Cases.of` finds it."""


class Cases(msgspec.Struct, frozen=True, kw_only=True):
    """All cases of one smoke test. Each iteration reads them anew, one at a time."""

    sources: tuple[CaseFile | CaseCode | OwnWarmup | SmokeCase, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is a source of cases."""
        return bool(self.sources)

    def __add__(self, others: Cases) -> Cases:
        """Return these cases and others."""
        return Cases(sources=(*self.sources, *others.sources))

    def __iter__(self) -> Iterator[SmokeCase]:
        """Yield the cases.

        Raises:
            BadCase: A file or function of cases cannot be used.
        """
        for one in self.sources:
            if isinstance(one, SmokeCase):
                yield one
            elif isinstance(one, OwnWarmup):
                raise BadCase(
                    "a warm-up file belongs to an export, and there is none here",
                    hint="name the file itself",
                )
            else:
                yield from one

    def of(self, export: Path) -> Cases:
        """Return these cases with the warm-up file of an export, if it is asked for."""
        own = CaseFile(folder=files_of(export), name=WARMUP, shown=WARMUP)
        sources = (own if isinstance(one, OwnWarmup) else one for one in self.sources)
        return Cases(sources=tuple(sources))


def as_source(given: str | Path) -> CaseFile | CaseCode | OwnWarmup:
    """Return the source that `--case` names: a file, `MODULE:FUNCTION`, or `warmup`.

    Raises:
        BadCase: It is no file, or a file that is read whole has no cases.
        UsageError: It is a URL, or no name that a file can have.
    """
    text = str(given)
    if isinstance(given, str) and text == OWN_WARMUP and not os.path.lexists(text):
        return OwnWarmup()
    if isinstance(given, str) and CaseCode.names(text) and not os.path.lexists(text):
        return CaseCode(what=text)
    path = as_path(given, "case file")
    source = CaseFile(
        folder=files_of(path.parent, boundary=ANYWHERE), name=path.name, shown=text, runs_code=True
    )
    if not path.is_file():
        try:
            next(iter(source), None)  # says why not
        except BadCase as error:
            hint = f"{error.hint}; or MODULE:FUNCTION of your own code, or warmup"
            raise BadCase(error.message, hint=hint) from error
    if path.suffix not in (".jsonl", *_DATA) and path.name != _WARMUP_NAME:
        for _ in source:  # what is read whole is refused before anything starts
            pass
    return source


def load_cases(path: Path) -> tuple[SmokeCase, ...]:
    """Read a file of cases whole, for live servers. `check_cases` then checks whether they fit a model.

    Raises:
        BadCase: The file cannot be read, is of no format of cases, or has a case that cannot be sent. The error lists
            all problems.
    """
    source = as_source(Path(path))
    cases = list(source) if isinstance(source, CaseFile) else []
    refuse_bad(str(path), cases)
    if any(one.budget is not None for one in cases):
        raise BadCase(
            f"{path} has a budget, which only a smoke test judges",
            hint="leave the budget out of the cases that go to live servers",
        )
    return tuple(cases)


def cases_of_model(configs: Path, model: str) -> tuple[CaseFile, ...]:
    """Return the files `<model>.cases.*` of a folder, by name.

    A document of cases may have files of data beside it, so where there is one, these count only as it names them.
    """
    try:
        names = sorted(os.listdir(configs))  # noqa: PTH208 - names, for the folder may be gone
    except OSError:
        return ()
    named = [one for one in names if one.startswith(f"{model}.cases.")]
    folder = files_of(configs, boundary=ANYWHERE)
    return tuple(
        CaseFile(folder=folder, name=name, shown=str(configs / name)) for name in _used(named)
    )


def cases_in(contents: Mapping[str, bytes], *, shown: str) -> tuple[CaseFile, ...]:
    """Return the case files of a run, whose bytes were read already. `shown` is the folder's name in reports."""
    nowhere = ExportFiles(Path("/"), "/")
    return tuple(
        CaseFile(folder=nowhere, name=name, shown=f"{shown}/{name}", contents=contents)
        for name in _used(sorted(contents))
    )


def _used(names: Iterable[str]) -> list[str]:
    """Return the names that are files of cases by themselves."""
    named = list(names)
    documents = [one for one in named if one.endswith(_DOCUMENTS)]
    return documents or [one for one in named if one.endswith(_DATA) or one == _WARMUP_NAME]


def _json(data: bytes, shown: str, what: str = "it") -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        part = "" if what == "it" else f": {what}"
        raise BadCase(f"{shown}{part} is no JSON: {error}", hint=HINT) from error


def _toml(data: bytes, shown: str) -> Any:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadCase(f"{shown} is no TOML: {error}", hint=HINT) from error


def _decoded(line: bytes) -> Any:
    """Return the value of a line: by msgspec, which takes half the time, or with NaN and Infinity by json."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line)


def _line(file: IO[bytes]) -> bytes:
    """Return the next line, or the start of one that is too long; it then ends without a line break."""
    return file.readline(FILE_LIMIT)


def _arrays(file: IO[bytes], shown: str, limit: int) -> SmokeCase:
    try:
        return SmokeCase(file=shown, position=1, data=dict(read_npz(file, limit=limit)))
    except ValueError as error:
        return SmokeCase(file=shown, position=1, problems=(str(error),))


def _begins_as_records(file: IO[bytes]) -> bool:
    """Tell whether a file begins with the header of a TFRecord: a length and its checksum."""
    head = file.read(_RECORD_HEAD)
    file.seek(0)
    return len(head) == _RECORD_HEAD and int.from_bytes(head[8:], "little") == mask(
        crc32c(head[:8])
    )


def _records(file: IO[bytes], size: int, shown: str) -> Iterator[SmokeCase | tuple[int, bytes]]:
    """Yield number and bytes of each record, or a case that says why one cannot be read."""
    number, trailing = 0, list[str]()
    try:
        for number, _, data in read_records(file, size, trailing):
            if data is None:
                why = f"the record has more than {RECORD_LIMIT:,} bytes"
                yield SmokeCase(file=shown, position=number, signature="", problems=(why,))
            else:
                yield number, data
    except BadRecord as error:
        yield SmokeCase(file=shown, position=number + 1, signature="", problems=(str(error),))
        return
    if trailing or not number:
        why = "the file ends within the record" if trailing else "it holds no record"
        yield SmokeCase(file=shown, position=number + 1, signature="", problems=(why,))


def _examples(file: IO[bytes], size: int, shown: str) -> Iterator[SmokeCase]:
    """Yield a case for each tf.Example of a TFRecord file."""
    for one in _records(file, size, shown):
        if isinstance(one, SmokeCase):
            yield one
            continue
        number, data = one
        example = example_pb2.Example()
        problems: tuple[str, ...] = ()
        try:
            example.ParseFromString(data)
        except DecodeError:
            problems = ("the record is no tf.Example",)
        yield SmokeCase(
            file=shown,
            position=number,
            signature="",
            form="examples",
            data=[example],
            problems=problems,
        )


def _warmup(file: IO[bytes], size: int, shown: str) -> Iterator[SmokeCase]:
    """Yield a case for each request of a warm-up file, under the name and number of the version that is tested."""
    from servingrepo.protos import prediction_log_pb2

    for one in _records(file, size, shown):
        if isinstance(one, SmokeCase):
            yield one
            continue
        number, data = one
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(data)
        except DecodeError:
            why = "the record is no PredictionLog"
            yield SmokeCase(file=shown, position=number, problems=(why,))
            continue
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            request = log.predict_log.request
            yield SmokeCase(
                file=shown,
                position=number,
                signature=request.model_spec.signature_name or "serving_default",
                data=dict(request.inputs),
            )
        elif kind in {"classify_log", "regress_log"}:
            request = getattr(log, kind).request
            yield _of_input(request.input, request.model_spec, shown, number)
        elif kind == "multi_inference_log":
            request = log.multi_inference_log.request
            for task in request.tasks:
                yield _of_input(request.input, task.model_spec, shown, number)
        elif kind is not None:  # servers pass over an empty record
            yield SmokeCase(
                file=shown, position=number, problems=(f"servers do not replay {kind}",)
            )


def _of_input(given: Any, spec: Any, shown: str, number: int) -> SmokeCase:
    """Return the case of a request with tf.Examples."""
    kind = given.WhichOneof("kind")
    listed: Any = getattr(given, kind) if kind is not None else None
    return SmokeCase(
        file=shown,
        position=number,
        signature=spec.signature_name or "serving_default",
        form="examples",
        data=list(listed.examples) if listed is not None else [],
        context=listed.context if kind == "example_list_with_context" else None,
    )


def _broken(case: SmokeCase, problem: str) -> SmokeCase:
    return msgspec.structs.replace(case, problems=(problem,))
