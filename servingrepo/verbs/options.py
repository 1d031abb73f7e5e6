"""Options of the verbs. Those of verbs that only change what is served are in `servingrepo.fleet.options`.

This file does not import the verbs: a help or a settings file needs their options alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, cast

import msgspec

from servingrepo.errors import UsageError
from servingrepo.fleet.options import (
    DRY_RUN,
    MESSAGE,
    FleetOptions,
    StagedOptions,
    as_message,
)
from servingrepo.options import Option, Several
from servingrepo.runs.mounts import RUN_WAIT
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.storage.progress import Notice, Progress, Signal, no_signal, silent, unheard
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from datetime import timedelta

    from servingrepo.repository.retention import Keep
    from servingrepo.runs.gates import Gate
    from servingrepo.runs.tracing import Context
    from servingrepo.servers.engines.choice import Engine  # noqa: TC004 - it talks to servers, and a help need not
    from servingrepo.servers.engines.server_versions import ExpectedServer
    from servingrepo.smoke.cases import SmokeCase  # noqa: TC004 - it reads SavedModels, and a help need not
    from servingrepo.smoke.drift import DriftBudget
    from servingrepo.smoke.files import Cases

DEFAULT_TIMEOUT = 120.0
"""Seconds for a smoke test, including the server's start."""
_proof = partial(Option, section="proof")

_CASES = _proof(
    help="Requests to send instead of made-up ones: a file (JSON as for TF Serving's REST, JSON Lines, TOML, .npz, "
    "TFRecords), MODULE:FUNCTION of your own, or warmup, the model's warm-up file; repeatable.",
    flags="--case",
    metavar="CASES",
    kind="case",
)
_TIMEOUT = _proof(
    help="How long the smoke test may take, including the server's start; its end may take 30 seconds more.",
    metavar="SECONDS",
    least=0.1,
    env="SERVINGREPO_TIMEOUT",
    shows=("default",),
    tables=("top",),
)
_SAVED_MODEL = Option(help="The SavedModel to take, as a path in the run.", kind="run path")
_RUN_WAIT = Option(
    help="How long the run's network file system may take to answer. [default: 30]",
    metavar="SECONDS",
    least=0.1,
    env="SERVINGREPO_RUN_WAIT",
    shows=("env",),
)


_MAX_DIFF = _proof(
    help="The largest difference from the served version that an element of an output may have.",
    metavar="NUMBER",
    kind="seconds",
    least=0,
    tables=("models",),
)
_MAX_CHURN = _proof(
    help="The share of rows whose argmax or label may change against the served version, such as 1% or 0.01.",
    metavar="SHARE",
    kind="share",
    tables=("models",),
)


class PromoteOptions(StagedOptions, frozen=True, kw_only=True):
    """How to promote. `serve` None means: serve new content unless the model is held.

    Attributes:
        keep: The policy of a prune that follows the promotion.
        context: The facts about the call that the record keeps.
        sizes: Called with the bytes of the event files and of the export, before these are read and copied.
        progress: Called with bytes as event files are read and as the export is copied.
        notice: Called with messages that should not wait for the result.
        run_read: Called when nothing more is read from the run.

    Raises:
        ServingRepoError: A gate, a file of cases, a path or an option of `LiveOptions` cannot be used.
    """

    model: Annotated[str, Option(help="The model.", metavar="NAME", shows=("env",))]
    version: Annotated[
        int | None,
        Option(
            help="The version's number: it must be above every number ever used. [default: the next]",
            key="number",
            metavar="N",
            kind="version",
        ),
    ] = None
    saved_model: Annotated[str | Path | None, _SAVED_MODEL] = None
    serve: Annotated[
        bool | None,
        Option(
            help="Serve it when it is published. [default: serve new content unless the model is held]",
            flags="--serve/--no-serve",
        ),
    ] = None
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT
    smoke: Annotated[
        bool,
        _proof(
            help="Serve it for a test and send it requests before it is published. [default: smoke]",
            flags="--smoke/--no-smoke",
        ),
    ] = True
    require: Annotated[
        Iterable[str | Gate],
        _proof(
            help="A gate for the run's measurements, such as 'validation/accuracy >= 0.92', 'best(loss) < 0.1' or "
            "'auc >= served - 0.005'; repeatable.",
            metavar="GATE",
            kind="gate",
            tables=("models",),
        ),
    ] = ()
    cases: Annotated[Iterable[str | Path | SmokeCase], _CASES] = ()
    timeout: Annotated[float, _TIMEOUT] = DEFAULT_TIMEOUT
    strict: Annotated[
        bool,
        _proof(
            help="Refuse a signature that the smoke test leaves inconclusive, and a stale or mixed run."
        ),
    ] = False
    against: Annotated[
        Literal["served", "none"],
        _proof(
            help="Compare its answers to the cases with those of the served version, in one server. Without cases, "
            "or with nothing served, there is nothing to compare.",
            choices={"served": "served", "none": "none"},
            shows=("default",),
            tables=("models",),
        ),
    ] = "served"
    max_diff: Annotated[float | None, _MAX_DIFF] = None
    max_churn: Annotated[float | str | None, _MAX_CHURN] = None
    allow_breaking: Annotated[
        bool,
        _proof(help="Publish it although clients of the served version would break; recorded."),
    ] = False
    allow_ops: Annotated[
        Iterable[str],
        _proof(
            help="Allow this operation, which touches files, network or processes; repeatable, recorded.",
            flags="--allow-op",
            metavar="NAME",
            tables=("models",),
        ),
    ] = ()
    contract: Annotated[
        str | Path | None,
        _proof(
            help="The contract to compare with. [default: configs/NAME.contract.toml in the root, else the served "
            "version]",
            metavar="FILE",
            kind="file",
        ),
    ] = None
    engine: Annotated[Engine | EngineChoice | str | None, Several(EngineChoice)] = None
    keep: Keep | None = None
    context: Context | None = None
    sizes: Callable[[int, int], None] | None = None
    progress: Progress = silent
    notice: Notice = unheard
    run_read: Signal = no_signal

    def __post_init__(self) -> None:
        super().__post_init__()
        settled = {
            "saved_model": optional_path(self.saved_model),
            "contract": optional_path(self.contract),
            "require": as_gates(self.require),
            "cases": as_cases(self.cases),
            "allow_ops": tuple(self.allow_ops),
            "max_churn": as_share(self.max_churn),
            "engine": EngineChoice(name=self.engine or "auto")
            if isinstance(self.engine, str)
            else self.engine,
        }
        for name, value in settled.items():
            msgspec.structs.force_setattr(self, name, value)

    def rehearsal(self) -> Self:
        """Return the options of a dry run, for a hook before the promotion: it reports no progress."""
        return msgspec.structs.replace(self, dry_run=True, progress=silent, run_read=no_signal)

    @property
    def starts(self) -> Engine | None:
        """The engine that serves during the smoke test; None without a smoke test."""
        runs = self.smoke and not self.dry_run
        return cast("Engine", self.engine) if runs else None

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates that the run must pass."""
        return cast("tuple[Gate, ...]", self.require)

    @property
    def smoke_cases(self) -> Cases:
        """Requests to send instead of made-up ones."""
        return _cases(self.cases)

    @property
    def budget(self) -> DriftBudget:
        """By how much its answers may differ from those of the served version."""
        from servingrepo.smoke.drift import DriftBudget

        return DriftBudget(max_diff=self.max_diff, max_churn=cast("float | None", self.max_churn))

    @property
    def call(self) -> Context:
        """The facts about the call that the record keeps."""
        from servingrepo.runs.tracing import Context

        return self.context or Context()

    @property
    def target(self) -> ExpectedServer:
        """The server that will run the version, as far as the engine says it."""
        from servingrepo.servers.engines.choice import expected_server

        return expected_server(cast("Engine | EngineChoice | None", self.engine))


class StatusOptions(FleetOptions, frozen=True, kw_only=True):
    """The servers to ask, and how long to wait until disk, config and servers agree.

    The settings key is not `wait`: that is how long a change may take.
    """

    wait: Annotated[
        float | None,
        Option(
            help="Wait until disk, config and servers agree; exit code 68 if they do not in time.",
            section="live servers",
            key="patience",
            metavar="SECONDS",
            least=0,
        ),
    ] = 0.0


class TrialOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The cases that an export is sent, and the engine that serves it.

    Raises:
        BadCase: A file does not hold cases, or cannot be read.
    """

    cases: Annotated[Iterable[str | Path | SmokeCase], _CASES] = ()
    timeout: Annotated[float, _TIMEOUT] = DEFAULT_TIMEOUT
    engine: Annotated[Engine | EngineChoice | str | None, Several(EngineChoice)] = None
    notice: Notice = unheard

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "cases", as_cases(self.cases))

    @property
    def smoke_cases(self) -> Cases:
        """Requests to send instead of made-up ones."""
        return _cases(self.cases)


class WarmupOptions(TrialOptions, frozen=True, kw_only=True):
    """How a warm-up file is written into a run: with which cases, and on which engine it is tried."""

    saved_model: Annotated[str | Path | None, _SAVED_MODEL] = None
    replace: Annotated[
        bool, Option(help="Write it although the export has a warm-up file already.")
    ] = False
    dry_run: Annotated[bool, DRY_RUN] = False
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class SmokeOptions(TrialOptions, frozen=True, kw_only=True):
    """How a version or an export is smoke-tested without a promotion.

    Raises:
        BadCase: A file does not hold cases, or cannot be read.
        UsageError: A file to write has another ending than .json and .jsonl, or there are two.
    """

    also: Annotated[
        Iterable[str],
        _proof(
            help="Test it on this server as well: a container's image, binary[:PATH] or embedded; repeatable. Each "
            "server gets a row.",
            metavar="IMAGE|ENGINE",
        ),
    ] = ()
    write_cases: Annotated[
        str | Path | None,
        _proof(
            help="If the test is passed, write the requests that were answered, made-up ones too, as cases (.json "
            "or .jsonl).",
            metavar="FILE",
            kind="run path",
        ),
    ] = None
    write_answers: Annotated[
        str | Path | None,
        _proof(
            help="The same, with the answers of this version as what is expected: it is trusted.",
            metavar="FILE",
            kind="run path",
        ),
    ] = None

    def __post_init__(self) -> None:
        from servingrepo.smoke.writing import refuse_other_names

        super().__post_init__()
        for name in ("write_cases", "write_answers"):
            path = optional_path(getattr(self, name))
            msgspec.structs.force_setattr(self, name, path)
            if path is not None:
                refuse_other_names(path)
        msgspec.structs.force_setattr(self, "also", tuple(self.also))
        if self.also and self.written:
            raise UsageError(
                "cases are written from one server: --also cannot go with --write-cases and --write-answers",
                hint="leave --also out",
            )
        if self.write_cases and self.write_answers:
            raise UsageError(
                "--write-cases and --write-answers exclude each other",
                hint="--write-answers writes the cases too",
            )

    @property
    def written(self) -> Path | None:
        """The file to write."""
        return optional_path(self.write_answers or self.write_cases)


class ScanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The SavedModel to take from a run, and how long the run's file system may take to answer."""

    saved_model: Annotated[str | Path | None, _SAVED_MODEL] = None
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class MeasureOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to report progress, and how long the run's file system may take to answer."""

    progress: Progress = silent
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a SavedModel is made of a Keras model."""

    output: Annotated[
        str | Path | None,
        Option(
            help="Where to write it. [default: saved_model in the run, or beside the file]",
            metavar="DIR",
            kind="run path",
        ),
    ] = None
    allow_lambda: Annotated[
        bool,
        Option(
            help="Run the Python code of Lambda layers, which the file contains: only if you trust the file."
        ),
    ] = False
    code: Annotated[
        Iterable[str | Path],
        Option(
            help="A Python file that registers the model's own classes; it is run; repeatable.",
            metavar="FILE",
            kind="file",
        ),
    ] = ()
    timeout: Annotated[
        float,
        Option(help="How long it may take.", metavar="SECONDS", least=0.1, shows=("default",)),
    ] = 600.0
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How versions are verified.

    Raises:
        UsageError: It is both quick and deep.
    """

    quick: Annotated[
        bool,
        Option(
            help="Read small files only, and compare large ones by size; the output says what was not checked."
        ),
    ] = False
    deep: Annotated[
        bool,
        Option(
            help="Compare every tensor with its checksum again, where the record vouches for them, too."
        ),
    ] = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.quick and self.deep:
            raise UsageError(
                "quick and deep exclude each other",
                hint="--deep reads every byte, and --quick only small files: leave one out",
            )


class DoctorOptions(FleetOptions, frozen=True, kw_only=True):
    """What `doctor` reads beside a tree of models, and how deep it looks.

    Attributes:
        variables: Variables for the compose file; they come before those of the `.env` beside it.
        sizes: Called with the bytes that `deep` will read.
        progress: Called with the bytes of each file that `deep` has read to its end.
    """

    config: Annotated[
        str | Path | None,
        Option(
            help="The config that servers read. [default: as the compose file says, else models.config in the models "
            "directory]",
            metavar="FILE",
            kind="file",
        ),
    ] = None
    compose: Annotated[
        str | Path | None,
        Option(
            help="The compose file that starts the servers: for their flags, mounts, user and health check.",
            metavar="FILE",
            kind="file",
        ),
    ] = None
    deep: Annotated[
        bool,
        Option(
            help="Read every byte of every version, and compare it with the checksums in the exports."
        ),
    ] = False
    run_wait: Annotated[
        float,
        Option(
            help="How long a network file system may take to answer. [default: 30]",
            metavar="SECONDS",
            least=0.1,
            env="SERVINGREPO_RUN_WAIT",
            shows=("env",),
        ),
    ] = RUN_WAIT
    variables: Mapping[str, str] = {}
    sizes: Progress | None = None
    progress: Progress | None = None

    @property
    def config_file(self) -> Path | None:
        """The config that was named."""
        return optional_path(self.config)

    @property
    def compose_file(self) -> Path | None:
        """The compose file that was named."""
        return optional_path(self.compose)


class ChangeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Why the repository is changed, and whether this is a dry run.

    Raises:
        UsageError: The message cannot be recorded.
    """

    message: Annotated[str, MESSAGE] = ""
    dry_run: Annotated[bool, DRY_RUN] = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", as_message(self.message))


class AdoptOptions(ChangeOptions, frozen=True, kw_only=True):
    """Which models are adopted, and whether their served versions are proven first.

    Attributes:
        sizes: Called with the bytes of all versions, before they are read.
        progress: Called with the bytes of each file that is done.
        notice: Called with messages that should not wait for the result.

    Raises:
        BadCase, UsageError: A file of cases or a path cannot be used, or the message cannot be recorded.
    """

    all: Annotated[
        bool, Option(help="Adopt every model that can be adopted, and list the others.")
    ] = False
    config: Annotated[
        str | Path | None,
        Option(
            help="The models.config that servers read until now, if it is not in the repository's models directory.",
            metavar="FILE",
            kind="file",
        ),
    ] = None
    smoke: Annotated[
        bool,
        _proof(help="Serve each served version for a test first, and send it requests."),
    ] = False
    cases: Annotated[Iterable[str | Path | SmokeCase], _CASES] = ()
    timeout: Annotated[float, _TIMEOUT] = DEFAULT_TIMEOUT
    strict: Annotated[
        bool, _proof(help="With --smoke: refuse a signature that stays inconclusive.")
    ] = False
    engine: Annotated[Engine | EngineChoice | str | None, Several(EngineChoice)] = None
    sizes: Callable[[int], None] | None = None
    progress: Progress = silent
    notice: Notice = unheard

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "config", optional_path(self.config))
        msgspec.structs.force_setattr(self, "cases", as_cases(self.cases))

    @property
    def smoke_cases(self) -> Cases:
        """Requests to send instead of made-up ones."""
        return _cases(self.cases)


class MarkOptions(ChangeOptions, frozen=True, kw_only=True):
    """How a version is marked bad, or no longer."""

    clear: Annotated[bool, Option(help="Remove the mark.")] = False


class RestoreOptions(ChangeOptions, frozen=True, kw_only=True):
    """How a version comes back from the trash."""

    progress: Progress | None = None


class ContractOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a contract is written."""

    overwrite: Annotated[bool, Option(help="With --write: replace a file that differs.")] = False
    dry_run: Annotated[bool, DRY_RUN] = False


class PruneOptions(FleetOptions, frozen=True, kw_only=True):
    """The policy by which versions go to the trash, and whether the trash is emptied.

    Attributes:
        keep: A policy for all models, or a policy by model; None only empties the trash.

    Raises:
        UsageError: An endpoint cannot be read, or the message cannot be recorded.
    """

    keep: Keep | Mapping[str, Keep] | None = None
    empty_trash: Annotated[
        bool,
        Option(
            help="Delete for good what is in the trash; with a --keep option, prune by it first."
        ),
    ] = False
    older_than: Annotated[
        timedelta | None,
        Option(
            help="With --empty-trash: delete only versions that went to the trash longer ago.",
            metavar="7d",
            kind="duration",
        ),
    ] = None
    adopted: Annotated[
        bool, Option(help="Let adopted versions go too: without this they always stay.")
    ] = False
    message: Annotated[str, MESSAGE] = ""
    dry_run: Annotated[bool, DRY_RUN] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "message", as_message(self.message))


def as_gates(gates: Iterable[str | Gate]) -> tuple[Gate, ...]:
    """Read gates given as text.

    Raises:
        UsageError: One is no gate.
    """
    from servingrepo.runs.gates import parse_gate

    return tuple(parse_gate(one) if isinstance(one, str) else one for one in gates)


def as_cases(cases: Iterable[str | Path | SmokeCase]) -> Cases | tuple[()]:
    """Return cases that can be read: files, functions, or cases themselves.

    Without any it returns nothing: what reads them takes 25 ms to import.

    Raises:
        BadCase: A file does not hold cases, or cannot be read.
    """
    if not cases:
        return ()
    from servingrepo.smoke.files import Cases, as_source

    if isinstance(cases, Cases):
        return cases
    sources = (as_source(one) if isinstance(one, str | Path) else one for one in cases)
    return Cases(sources=tuple(sources))


def _cases(settled: object) -> Cases:
    """Return what `as_cases` made of an option."""
    from servingrepo.smoke.files import Cases

    return cast("Cases", settled) if settled else Cases()


def as_share(share: float | str | None) -> float | None:
    """Return a share from 0 to 1 that is given as a number, or as a text such as 1% or 0.01.

    Raises:
        UsageError: It is none.
    """
    if share is None:
        return None
    text = str(share).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise UsageError(
            f"{text!r} is no share of rows", hint="give a share from 0 to 1, or a percentage: 1%"
        )
    return number


def optional_path(path: str | Path | None) -> Path | None:
    """Return a path, or None if it is left out.

    Raises:
        UsageError: No file can have this name.
    """
    return as_path(path, "path") if path else None
