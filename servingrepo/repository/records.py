"""Records: what we know of models and versions, as values and as JSON files.

Every file has a `schema` number. A file of a newer schema is refused. A file that cannot be read is damaged: that is
an error, and nothing is guessed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from servingrepo.errors import NewerFormat, RepositoryDamaged
from servingrepo.masking import masked
from servingrepo.runs.measurements import GateVerdict, Number
from servingrepo.runs.origin import Origin
from servingrepo.savedmodel.compatibility import Change, Compatibility
from servingrepo.savedmodel.values import Demands, Fingerprint, Signature, TensorCheck
from servingrepo.smoke.drift import Drift
from servingrepo.smoke.report import SmokeReport
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.manifest import Manifest
from servingrepo.storage.reading import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = 1

PLACES_SCHEMA = 2
"""The format of a marker that says where models lie. An older servingrepo refuses it: it would look elsewhere."""

EXACT = frozenset(
    {
        # The content of a version, and what its bytes and numbers are compared with.
        *("VersionRecord.manifest", "VersionRecord.digest", "VersionRecord.signatures"),
        *("VersionRecord.fingerprint", "VersionRecord.tensors", "VersionRecord.demands"),
        *("VersionRecord.measured", "Origin.config_files", "BadMark.digest"),
        *("RoundState.done", "RoundState.damaged", "SmokeReport.signatures", "Verdict.signature"),
        # Names that other files and servers use.
        *("VersionRecord.model", "VersionRecord.txid", "SmokeReport.model", "SmokeReport.endpoint"),
        *(
            "ModelState.name",
            "Format.server_root",
            "Format.models",
            "Intent.txid",
            "Intent.model",
            "Event.id",
        ),
        *("Event.model", "Event.labels_before", "Event.labels_after", "Event.endpoints"),
        "Format.paths",
        "StageVerdict.endpoints",
        "LaggingServer.endpoint",
        # What an undone adoption restores.
        *("Adoption.txid", "Adoption.config_before", "Adoption.config_after", "Adoption.paths"),
    }
)
"""Fields that are recorded unmasked, because their values are compared. All other texts may have secrets in them."""

T = TypeVar("T", bound=msgspec.Struct)


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """The marker file of a repository: its format, where models lie, and where servers see the models directory.

    `server_roots_before` has entries during a change of the server root: base paths below them are still to be moved.
    `models` is the models directory, empty for `<root>/models`. `paths` has the folders, relative to the models
    directory, of those models whose folder is not their name. The file has these two only in format 2.
    """

    schema: int = SCHEMA
    server_root: str
    created: str
    created_by: str
    server_roots_before: tuple[str, ...] = ()
    models: str = ""
    paths: dict[str, str] = {}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version came from."""

    run: str
    export: str
    kind: str
    provenance: dict[str, str] = {}


ADOPTED = "adopted"
"""The kind of a source that lies where it lay before servingrepo knew it."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one smoke test of a version, and the server that it ran on.

    `image` is the container image, if there was one. `declared` is the image that the caller said a running server
    has, which nobody could see. `notes` say why the proof is worth less than it seems. `drift` is that with the
    version that was served then; None if nothing was compared.
    """

    engine: str
    server: str
    image: str = ""
    declared: str = ""
    time: str
    staged: bool
    report: SmokeReport
    notes: tuple[str, ...] = ()
    drift: Drift | None = None

    def __str__(self) -> str:
        """Return the server and the counts of verdicts, in a few words."""
        report = self.report
        parts = [f"{report.count('passed')} passed"]
        if report.inconclusive:
            parts.append(f"{report.count('inconclusive')} inconclusive")
        if report.failed:
            parts.append(f"{report.count('failed')} failed")
        return f"{self.engine} ({self.server}): {', '.join(parts)}"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of a version before its staging copy was made, and the problems that were allowed by name.

    Attributes:
        against: The version or contract file that its signatures were compared with; empty if there was none.
        verdict: What its signatures mean to clients of that version or contract.
        why: Why they were not compared.
        changes: How the signatures differ.
        allowed_breaking: The changes are breaking, and were allowed.
        allowed_ops: The operations that touch files, network or processes, and were allowed.
        server: The release of TensorFlow Serving that must have the graph's operations; empty if none was known.
        server_problems: The operations that this release lacks.
        notes: Odd facts that stop nothing.
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
        """The problems that were allowed, in words, for the history."""
        breaking = (f"breaking changes against {self.against}",) if self.allowed_breaking else ()
        return (*breaking, *(f"operation {op}" for op in self.allowed_ops))


class StageVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict on one watched stage of a roll-out.

    Attributes:
        verdict: `inconclusive` means that errors were to be judged and there were too few requests.
        why: The reason, or what was not checked.
        endpoints: The watched servers.
        control: The servers that they were compared with; empty if no errors were counted.
        requests: Requests that the watched servers answered. Those refused by a full server count as `exhausted`.
        errors: The number of these requests that failed.
        lower_bound: The least excess of the error rate over the control's: a part of 1, at 95 % confidence.
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
        """Return the verdict, and its figures."""
        verdict = f"{self.verdict}: {self.why}" if self.why else self.verdict
        if not self.control:
            return verdict
        figures = (
            f"{self.errors} of {self.requests} requests failed, {self.control_errors} of "
            f"{self.control_requests} on {self.control}"
        )
        if self.lower_bound is not None:
            figures += f"; at least {self.lower_bound * 100:+.2f} percentage points at 95 %"
        turned_away = self.exhausted + self.control_exhausted
        if turned_away:
            figures += f"; {turned_away} more met a full server"
        return f"{verdict}; {figures}"


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one published version. It is written before the version appears.

    `digest` and `size` repeat what the manifest says, so that a list need not read the manifest. `tensors` is None if
    they were not checked, as by an older servingrepo, or if the model has no variables.
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
    """The parts of event files and metrics that could not be read. The other parts were used."""


class RecordHead(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a record that a list shows. The manifest may be long, and is skipped."""

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
    """The engine and server of a proof, as a list shows them."""

    engine: str
    server: str
    time: str

    def __str__(self) -> str:
        """Return the engine and the server, in words."""
        return f"{self.engine} ({self.server})"


def say_proofs(proofs: Iterable[Proof | ProofHead]) -> str:
    """Return the proofs in words. No proof is "not checked", never "ok"."""
    return "; ".join(map(str, proofs)) or "not checked"


class BadMark(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version must not be served again, with the author and the time of the mark.

    `digest` names its content, so that the same bytes are refused under another number too. `size` is the bytes of
    its files: an export of another size need not be hashed. It is None if an older servingrepo made the mark.
    """

    digest: str = ""
    size: int | None = None
    reason: str
    user: str
    host: str
    time: str


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why `promote` must not change what the model serves."""

    reason: str
    user: str
    host: str
    time: str


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a model, which outlives its versions: the highest number ever used, bad marks, a hold.

    `policy_before` is the policy that its adoption replaced by pins, such as `latest`. Servers that were sent no
    config since still follow it, and load a version as soon as it appears.
    """

    schema: int = SCHEMA
    name: str
    highest: int = 0
    bad: dict[int, BadMark] = {}
    hold: Hold | None = None
    policy_before: str = ""


def without_secrets(value: T) -> T:
    """Mask secrets in the texts of a value: all users of the machine can read our files.

    The code that makes a value has masked the secrets that it knows by name. This function masks those that a text
    itself shows, in every field that is not in `EXACT`.
    """
    return masked(value, exact=EXACT)


def encode(value: msgspec.Struct) -> bytes:
    """Return the canonical JSON of a record: indented for people, keys in the order of the class."""
    return msgspec.json.format(msgspec.json.encode(without_secrets(value)), indent=1) + b"\n"


def encode_marker(marker: Format) -> bytes:
    """Return the bytes of the marker file. They are those of format 1 unless some models lie elsewhere."""
    if marker.models or marker.paths:
        return encode(msgspec.structs.replace(marker, schema=PLACES_SCHEMA))
    fields = msgspec.to_builtins(without_secrets(msgspec.structs.replace(marker, schema=SCHEMA)))
    kept = {name: value for name, value in fields.items() if name not in {"models", "paths"}}
    return msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n"


def decode(data: bytes, kind: type[T], path: Path) -> T:
    """Read a record.

    Raises:
        NewerFormat: A newer servingrepo wrote it.
        RepositoryDamaged: It is not such a record.
    """
    newest = PLACES_SCHEMA if kind is Format else SCHEMA
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(data, type=kind)
        if getattr(value, "schema", SCHEMA) <= newest:
            return value
    # Find the reason: a file of a newer servingrepo may have other fields.
    try:
        raw: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > newest:
        raise NewerFormat(
            f"{path} has format {schema}; this servingrepo knows formats up to {newest}",
            hint="use the servingrepo that wrote it, or a newer one; nothing was changed",
        )
    try:
        return msgspec.convert(raw, type=kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> RepositoryDamaged:
    """Return the error for a damaged file of ours."""
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
