"""Options of the verbs that do not only change what is served; the others' are in `servingrepo.fleet.options`.

They stand apart from the verbs because a help, and a settings file, need the options and nothing of the verbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, cast

import msgspec

from servingrepo.fleet.options import (
    DRY_RUN,
    MESSAGE,
    FleetOptions,
    StagedOptions,
)
from servingrepo.masking import as_message
from servingrepo.options import Option, Several
from servingrepo.runs.gates import Gate, parse_gate
from servingrepo.runs.mounts import RUN_WAIT
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.smoke import SmokeCase
from servingrepo.storage.progress import Notice, Progress, Told, silent, unheard, untold
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from servingrepo.repository.retention import Keep
    from servingrepo.runs.tracing import Context
    from servingrepo.servers.engines.choice import Engine  # noqa: TC004 - it talks to servers, and a help need not
    from servingrepo.servers.engines.server_versions import ExpectedServer

DEFAULT_TIMEOUT = 120.0
"""Seconds for a smoke test, the server's start included."""
_proof = partial(Option, section="proof")

_CASES = _proof(
    help="Requests to send instead of made-up ones: JSON as for TF Serving's REST; repeatable.",
    flags="--case",
    metavar="FILE",
    kind="file",
)
_TIMEOUT = _proof(
    help="How long the smoke test may take, server start included; taking the server down may take 30 seconds more.",
    metavar="SECONDS",
    least=0.1,
    env="SERVINGREPO_TIMEOUT",
    shows=("default",),
    tables=("top",),
)
_SAVED_MODEL = Option(
    help="Which SavedModel of the run is meant, as a path in it.", kind="run path"
)
_RUN_WAIT = Option(
    help="How long a network file system that the run lies on may take to answer. [default: 30]",
    metavar="SECONDS",
    least=0.1,
    env="SERVINGREPO_RUN_WAIT",
    shows=("env",),
)


class PromoteOptions(StagedOptions, frozen=True, kw_only=True):
    """How to promote. `serve` None means: serve new content unless the model is held.

    Attributes:
        keep: The policy by which the model is pruned when the promotion is done.
        context: What is recorded of the call.
        sizes: Is called with the bytes of event files and of the export before these are read and copied.
        progress: Is told bytes as event files are read and as the export is copied.
        notice: Is told what should not wait for the result.
        run_read: Is told that nothing more is read from the run.

    Raises:
        ServingRepoError: A gate, a file of cases, a path or what `LiveOptions` names is none.
    """

    model: Annotated[str, Option(help="The model.", metavar="NAME", shows=("env",))]
    version: Annotated[
        int | None,
        Option(
            help="The version's number: above all that were ever used. [default: the next]",
            key="number",
            metavar="N",
            kind="version",
        ),
    ] = None
    saved_model: Annotated[str | Path | None, _SAVED_MODEL] = None
    serve: Annotated[
        bool | None,
        Option(
            help="Serve it when it is published. [default: serve new content; not if the model is held]",
            flags="--serve/--no-serve",
        ),
    ] = None
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT
    smoke: Annotated[
        bool,
        _proof(
            help="Send it requests before it is published. [default: smoke]",
            flags="--smoke/--no-smoke",
        ),
    ] = True
    require: Annotated[
        Iterable[str | Gate],
        _proof(
            help="What the run must have measured, such as 'validation/accuracy >= 0.92', 'best(loss) < 0.1' or "
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
            help="Every signature must be proven, none left inconclusive; a stale or mixed run is refused."
        ),
    ] = False
    allow_breaking: Annotated[
        bool, _proof(help="Publish it although clients of what is served would break; recorded.")
    ] = False
    allow_ops: Annotated[
        Iterable[str],
        _proof(
            help="An operation of the graph that may touch files, network or processes; repeatable, recorded.",
            flags="--allow-op",
            metavar="NAME",
            tables=("models",),
        ),
    ] = ()
    contract: Annotated[
        str | Path | None,
        _proof(
            help="What clients rely on. [default: configs/NAME.contract.toml in the root, else what is served]",
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
    run_read: Told = untold

    def __post_init__(self) -> None:
        super().__post_init__()
        settled = {
            "saved_model": optional_path(self.saved_model),
            "contract": optional_path(self.contract),
            "require": tuple(
                parse_gate(one) if isinstance(one, str) else one for one in self.require
            ),
            "cases": as_cases(self.cases),
            "allow_ops": tuple(self.allow_ops),
            "engine": EngineChoice(name=self.engine or "auto")
            if isinstance(self.engine, str)
            else self.engine,
        }
        for name, value in settled.items():
            msgspec.structs.force_setattr(self, name, value)

    def rehearsal(self) -> Self:
        """Return the options of a dry run, for a command before the promotion: nobody is told of it."""
        return msgspec.structs.replace(self, dry_run=True, progress=silent, run_read=untold)

    @property
    def starts(self) -> Engine | None:
        """The engine that serves during the smoke test; None where nothing is to run."""
        runs = self.smoke and not self.dry_run
        return cast("Engine", self.engine) if runs else None

    @property
    def chosen_export(self) -> Path | None:
        """Which SavedModel of the run is meant."""
        return cast("Path | None", self.saved_model)

    @property
    def contract_file(self) -> Path | None:
        """A file to use instead of the model's own contract."""
        return cast("Path | None", self.contract)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """What the run must have measured."""
        return cast("tuple[Gate, ...]", self.require)

    @property
    def smoke_cases(self) -> tuple[SmokeCase, ...]:
        """Requests to send instead of made-up ones."""
        return cast("tuple[SmokeCase, ...]", self.cases)

    @property
    def allowed_ops(self) -> tuple[str, ...]:
        """Operations that the graph may have although they reach out."""
        return cast("tuple[str, ...]", self.allow_ops)

    @property
    def call(self) -> Context:
        """What is recorded of the call."""
        from servingrepo.runs.tracing import Context

        return self.context or Context()

    @property
    def target(self) -> ExpectedServer:
        """The server that the version is meant for."""
        from servingrepo.servers.engines.choice import expected_server

        return expected_server(cast("Engine | EngineChoice | None", self.engine))


class StatusOptions(FleetOptions, frozen=True, kw_only=True):
    """Whom to ask, and how long to wait for disk, config and servers to agree.

    The key is not the `wait` of the settings file, which is how long a change may take.
    """

    wait: Annotated[
        float | None,
        Option(
            help="Wait for disk, config and servers to agree; exit code 68 if they do not in time.",
            section="live servers",
            key="patience",
            metavar="SECONDS",
            least=0,
        ),
    ] = 0.0


class SmokeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a version is smoke-tested without being promoted.

    Raises:
        BadCase: A file of cases has others in it, or cannot be read.
    """

    cases: Annotated[Iterable[str | Path | SmokeCase], _CASES] = ()
    timeout: Annotated[float, _TIMEOUT] = DEFAULT_TIMEOUT
    engine: Annotated[Engine | EngineChoice | str | None, Several(EngineChoice)] = None
    notice: Notice = unheard

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "cases", as_cases(self.cases))

    @property
    def smoke_cases(self) -> tuple[SmokeCase, ...]:
        """Requests to send instead of made-up ones."""
        return cast("tuple[SmokeCase, ...]", self.cases)


class ScanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which SavedModel of a run is meant, and how long its file system may take to answer."""

    saved_model: Annotated[str | Path | None, _SAVED_MODEL] = None
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class MeasureOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told bytes as they are read, and how long the run's file system may take to answer."""

    progress: Progress = silent
    run_wait: Annotated[float, _RUN_WAIT] = RUN_WAIT


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a SavedModel is made of a Keras model."""

    output: Annotated[
        str | Path | None,
        Option(
            help="Where to. [default: saved_model in the run, or beside the file]",
            metavar="DIR",
            kind="run path",
        ),
    ] = None
    allow_lambda: Annotated[
        bool,
        Option(
            help="Run the Python code of Lambda layers that is stored in the file: only if you trust it."
        ),
    ] = False
    code: Annotated[
        Iterable[str | Path],
        Option(
            help="Python that defines and registers the classes that the model needs; it is run; repeatable.",
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
    """How versions are verified."""

    quick: Annotated[
        bool,
        Option(
            help="Read small files only, and of large ones compare the size; says what it did not check."
        ),
    ] = False
    progress: Progress | None = None


class ChangeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Why a change of the repository is made, and whether it is one at all.

    Raises:
        UsageError: The message cannot be recorded.
    """

    message: Annotated[str, MESSAGE] = ""
    dry_run: Annotated[bool, DRY_RUN] = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", as_message(self.message))


class MarkOptions(ChangeOptions, frozen=True, kw_only=True):
    """How a version is marked bad, or no longer."""

    clear: Annotated[bool, Option(help="Take the mark away.")] = False


class RestoreOptions(ChangeOptions, frozen=True, kw_only=True):
    """How a version comes back from the trash."""

    progress: Progress | None = None


class ContractOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a contract is written."""

    overwrite: Annotated[
        bool, Option(help="With --write: replace a file that says something else.")
    ] = False
    dry_run: Annotated[bool, DRY_RUN] = False


class PruneOptions(FleetOptions, frozen=True, kw_only=True):
    """What goes, and how.

    Attributes:
        keep: A policy, or one for each model; without it only the trash is emptied.

    Raises:
        UsageError: An endpoint is none, or the message cannot be recorded.
    """

    keep: Keep | Mapping[str, Keep] | None = None
    empty_trash: Annotated[
        bool,
        Option(
            help="Delete for good what is in the trash; with a --keep option, after pruning by it."
        ),
    ] = False
    older_than: Annotated[
        timedelta | None,
        Option(
            help="With --empty-trash: only what went to the trash longer ago.",
            metavar="7d",
            kind="duration",
        ),
    ] = None
    message: Annotated[str, MESSAGE] = ""
    dry_run: Annotated[bool, DRY_RUN] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "message", as_message(self.message))


def as_cases(cases: Iterable[str | Path | SmokeCase]) -> tuple[SmokeCase, ...]:
    """Return requests; those of files are read.

    Raises:
        BadCase: A file has others in it, or cannot be read.
    """
    from servingrepo.smoke import load_cases

    return tuple(
        case
        for one in cases
        for case in (
            (one,) if isinstance(one, SmokeCase) else load_cases(as_path(one, "case file"))
        )
    )


def optional_path(path: str | Path | None) -> Path | None:
    """Return a path that may be left out.

    Raises:
        UsageError: No file can have this name.
    """
    return as_path(path, "path") if path else None
