"""What we know of models and versions: values and their JSON files.

Every file has a `schema` number. A file of a newer schema is refused, one that cannot be read is damage that
is reported, never repaired by guessing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from servingrepo.errors import NewerFormat, RepositoryDamaged
from servingrepo.masking import masked
from servingrepo.runs.measurements import GateVerdict, Number
from servingrepo.runs.origin import Origin
from servingrepo.savedmodel import Demands, Fingerprint, Signature, TensorCheck
from servingrepo.savedmodel.compatibility import Change, Compatibility
from servingrepo.smoke import SmokeReport
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.manifest import Manifest
from servingrepo.storage.reading import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = 1

EXACT = frozenset(
    {
        # What a version is, and what its bytes and numbers are held against.
        *("VersionRecord.manifest", "VersionRecord.digest", "VersionRecord.signatures"),
        *("VersionRecord.fingerprint", "VersionRecord.tensors", "VersionRecord.demands"),
        *("VersionRecord.measured", "Origin.config_files", "BadMark.digest"),
        *("RoundState.done", "RoundState.damaged", "SmokeReport.signatures", "Verdict.signature"),
        # Names by which other files and servers know them.
        *("VersionRecord.model", "VersionRecord.txid", "SmokeReport.model", "SmokeReport.endpoint"),
        *("ModelState.name", "Format.server_root", "Intent.txid", "Intent.model", "Event.id"),
        *("Event.model", "Event.labels_before", "Event.labels_after", "Event.endpoints"),
        "StageVerdict.endpoints",
        "LaggingServer.endpoint",
    }
)
"""Fields that are recorded exactly as they are: what they hold is compared. All others may be texts with secrets."""

T = TypeVar("T", bound=msgspec.Struct)


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """The marker file: which format, and where servers see the models directory.

    `server_roots_before` is not empty while a change of the server root is under way: base paths below one of them
    are still to be moved.
    """

    schema: int = SCHEMA
    server_root: str
    created: str
    created_by: str
    server_roots_before: tuple[str, ...] = ()


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version came from."""

    run: str
    export: str
    kind: str
    provenance: dict[str, str] = {}


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What ran on what: one smoke test of a version.

    `image` is the container image, if there was one; `notes` is what makes the proof worth less than it looks.
    """

    engine: str
    server: str
    image: str = ""
    time: str
    staged: bool
    report: SmokeReport
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say in a few words what ran and what came of it."""
        report = self.report
        parts = [f"{len(report.passed)} passed"]
        if report.inconclusive:
            parts.append(f"{len(report.inconclusive)} inconclusive")
        if report.failed:
            parts.append(f"{len(report.failed)} failed")
        return f"{self.engine} ({self.server}): {', '.join(parts)}"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was held against before it was staged, and what it was let through with.

    Attributes:
        against: The version or the contract's file that its signatures were compared with; empty without one.
        verdict: What its signatures mean to clients of that.
        why: Why that was not checked.
        changes: How the signatures differ.
        allowed_breaking: Breaking changes were allowed, and there are some.
        allowed_ops: Operations that touch files, network or processes, which were allowed.
        server: The TensorFlow Serving whose operations the graph's were looked up in; empty if none.
        server_problems: What that server lacks.
        notes: What is odd and stops nothing.
    """

    against: str = ""
    verdict: Compatibility | Literal["not checked"] = "not checked"
    why: str = ""
    changes: tuple[Change, ...] = ()
    allowed_breaking: bool = False
    allowed_ops: tuple[str, ...] = ()
    server: str = ""
    server_problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> tuple[str, ...]:
        """What was let through, in words, for the history."""
        breaking = (f"breaking changes against {self.against}",) if self.allowed_breaking else ()
        return (*breaking, *(f"operation {op}" for op in self.allowed_ops))


class StageVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of watching one stage of a roll-out.

    Attributes:
        verdict: `inconclusive` is too little to judge by, where errors were asked to be judged.
        why: The reason, or what was not checked.
        endpoints: The servers that were watched.
        control: Whose requests theirs were compared with; empty if no errors were counted.
        requests: Answered by the watched servers, but for those that a full server turned away (`exhausted`).
        errors: How many of them failed.
        lower_bound: By how much the error rate is higher than the control's at least: a part of 1, at 95 %.
    """

    verdict: Literal["go", "stop", "inconclusive"]
    why: str = ""
    endpoints: tuple[str, ...]
    requests: int = 0
    errors: int = 0
    exhausted: int = 0
    control: str = ""
    control_requests: int = 0
    control_errors: int = 0
    control_exhausted: int = 0
    lower_bound: float | None = None

    def __str__(self) -> str:
        """Say the verdict, and the figures that it rests on."""
        said = f"{self.verdict}: {self.why}" if self.why else self.verdict
        if not self.control:
            return said
        figures = (
            f"{self.errors} of {self.requests} requests failed, {self.control_errors} of "
            f"{self.control_requests} on {self.control}"
        )
        if self.lower_bound is not None:
            figures += f"; at least {self.lower_bound * 100:+.2f} percentage points at 95 %"
        turned_away = self.exhausted + self.control_exhausted
        if turned_away:
            figures += f"; {turned_away} more met a full server"
        return f"{said}; {figures}"


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one published version; written before the version appears.

    `digest` and `size` repeat what the manifest says, so that a list need not read it. `tensors` is None where
    they were not checked: an older servingrepo did not, and a model without variables has none.
    """

    schema: int = SCHEMA
    model: str
    version: int
    txid: str
    created: str
    user: str
    host: str
    message: str
    source: Source
    manifest: Manifest
    digest: str
    size: int
    tensorflow: str
    signatures: tuple[Signature, ...]
    fingerprint: Fingerprint | None
    tensors: TensorCheck | None = None
    proofs: tuple[Proof, ...] = ()
    measured: tuple[Number, ...] = ()
    gates: tuple[GateVerdict, ...] = ()
    origin: Origin = Origin()
    guard: Guard | None = None
    demands: Demands | None = None
    doubts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """What of its event files and metrics could not be read; what could be was used."""


class RecordHead(msgspec.Struct, frozen=True, kw_only=True):
    """The start of a record: what a list shows. The manifest, which may be long, is skipped."""

    schema: int
    version: int
    created: str
    user: str
    host: str
    message: str
    source: Source
    digest: str
    size: int
    proofs: tuple[ProofHead, ...] = ()


class ProofHead(msgspec.Struct, frozen=True, kw_only=True):
    """Which engine proved a version."""

    engine: str
    server: str
    time: str

    def __str__(self) -> str:
        """Say what ran."""
        return f"{self.engine} ({self.server})"


def say_proofs(proofs: Iterable[Proof | ProofHead]) -> str:
    """Say which proofs were given; none is "not checked", never ok."""
    return "; ".join(map(str, proofs)) or "not checked"


class BadMark(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version must not be served again, who said so and when.

    `digest` names its content, so that the same bytes are refused under another number too. `size` is that of its
    files in bytes: what has another need not be hashed. None where an older servingrepo made the mark.
    """

    digest: str = ""
    size: int | None = None
    reason: str
    user: str
    host: str
    time: str


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why `promote` must not re-point the model."""

    reason: str
    user: str
    host: str
    time: str


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a model's versions: the highest number ever used, bad marks, a hold."""

    schema: int = SCHEMA
    name: str
    highest: int = 0
    bad: dict[int, BadMark] = {}
    hold: Hold | None = None


def without_secrets(value: T) -> T:
    """Return a value as it may be recorded: our files are readable by all users of the machine.

    Who makes a value masks what is known to be a secret by its name; here is seen to what any text has in it.
    """
    return masked(value, exact=EXACT)


def encode(value: msgspec.Struct) -> bytes:
    """Return the canonical JSON of a record, for people too: indented, keys in the order of the class."""
    return msgspec.json.format(msgspec.json.encode(without_secrets(value)), indent=1) + b"\n"


def decode(data: bytes, kind: type[T], path: Path) -> T:
    """Read a record.

    Raises:
        NewerFormat: A newer servingrepo wrote it.
        RepositoryDamaged: It is not such a record.
    """
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(data, type=kind)
        if getattr(value, "schema", SCHEMA) <= SCHEMA:
            return value
    # Only to say what is wrong with it: a newer servingrepo's file need not fit.
    try:
        raw: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerFormat(
            f"{path} has format {schema}; this servingrepo knows formats up to {SCHEMA}",
            hint="use the servingrepo that wrote it, or a newer one; nothing was changed",
        )
    try:
        return msgspec.convert(raw, type=kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> RepositoryDamaged:
    """Return the error for one of our files that is not what it should be."""
    return RepositoryDamaged(
        f"{path} is not a record of servingrepo: {why}",
        hint="restore that file from a backup; the models themselves are untouched",
    )


def load(path: Path, kind: type[T]) -> T | None:
    """Read a record from a file; None where there is no such file."""
    with storage_errors("read", path):
        try:
            data = read_whole(path)
        except FileNotFoundError:
            return None
    return decode(data, kind, path)
