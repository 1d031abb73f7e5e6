"""Every error that servingrepo raises on purpose.

Job of this room: say what went wrong so that a person can act and a script can branch. An error carries a
`slug` (stable, for scripts), an exit code (in bands of ten by cause), whether a retry can help, a message
(what happened, to which path, version or endpoint), a hint (what to do next) and, where one look found
several things, all of them as `problems`. The README's table of exit codes is generated from these classes.
It imports nothing and prints nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self


class ServingRepoError(Exception):
    """The root of all errors of servingrepo; only subclasses are raised."""

    slug: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    summary: ClassVar[str] = "servingrepo's own mistake: please report it"
    alongside: tuple[ServingRepoError, ...] = ()
    """Errors of other servers in the same step; `problems` has their messages."""
    says_what_happened: bool = False
    """Whether the message itself says that the change has happened all the same."""
    proof: Any = None
    """The proof that was not enough, where a smoke test ended the command."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        problems: Iterable[str] = (),
        log: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what happened.

        Args:
            message: What happened and to what, in one line.
            hint: What to do next, in one line.
            problems: Everything that was found, when there is more than one thing to say.
            log: The last lines of a server's log that explain the failure.
            details: Values for `--json`, JSON-encodable. They are written for scripts: no code of ours reads them.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)
        self.log = log
        self.details = dict(details or {})

    def renamed(self, path: str, name: str) -> Self:
        """Return this error with another name for a path, such as an archive's for where it was unpacked."""

        def said(text: str) -> str:
            return text.replace(path, name)

        error = self.with_message(said(self.message))
        error.hint = said(self.hint) if self.hint else None
        error.problems = tuple(map(said, self.problems))
        return error

    def with_message(self, message: str) -> Self:
        """Return the same error with another message: for a caller that knows more of where the command stands."""
        error = type(self).__new__(type(self), message)
        vars(error).update(vars(self), message=message)
        return error

    def add_details(self, **details: Any) -> None:
        """Add values for `--json`."""
        self.details.update(details)


class UsageError(ServingRepoError):
    """The command line cannot be understood."""

    slug = "usage"
    exit_code = 2
    summary = "the command line cannot be understood"


class Stopped(ServingRepoError):
    """A signal ended the command; its exit code is 128 plus the signal's number."""

    slug = "stopped"
    exit_code = 130
    retryable = True
    summary = "128 + N: signal N ended the command"


# 10s: settings ------------------------------------------------------------------------------------


class SettingsError(ServingRepoError):
    """A setting, from the environment or servingrepo.toml, is not usable."""

    slug = "bad-setting"
    exit_code = 10
    summary = "a setting or the settings file is not usable"


class BadName(ServingRepoError):
    """A model name or label that TensorFlow Serving, a URL or the file system would trip over."""

    slug = "bad-name"
    exit_code = 11
    summary = "a model name or label is not allowed"


class BadVersionNumber(ServingRepoError):
    """A version number that is not a positive int64 in its plain decimal form."""

    slug = "bad-version-number"
    exit_code = 12
    summary = "a version number is not a positive int64 in plain decimal form"


class BadReference(ServingRepoError):
    """A reference such as NAME@7 that cannot be read."""

    slug = "bad-reference"
    exit_code = 13
    summary = "a reference like NAME@7 cannot be read"


class BadContract(ServingRepoError):
    """A contract file that cannot be read as one, or belongs to another model."""

    slug = "bad-contract"
    exit_code = 14
    summary = "a contract file cannot be used"


# 20s: the export is bad ---------------------------------------------------------------------------


class NoSavedModel(ServingRepoError):
    """There is no SavedModel in the run; the message says what there is instead."""

    slug = "no-saved-model"
    exit_code = 20
    summary = "the run has no SavedModel (the message says what it has)"


class AmbiguousExport(ServingRepoError):
    """The run holds several SavedModels and nothing says which one is meant."""

    slug = "ambiguous-export"
    exit_code = 21
    summary = "the run has several SavedModels; choose with --saved-model"


class DamagedExport(ServingRepoError):
    """Files of the SavedModel are missing, truncated or unreadable as what they should be."""

    slug = "damaged-export"
    exit_code = 22
    summary = "the SavedModel is damaged or incomplete"


class UnsupportedExport(ServingRepoError):
    """A whole SavedModel that a TensorFlow Serving on CPUs cannot serve."""

    slug = "unsupported-export"
    exit_code = 23
    summary = "TensorFlow Serving cannot serve this SavedModel"


class UnsafeExport(ServingRepoError):
    """The export holds something that must not be published: links that leave it, devices, sockets."""

    slug = "unsafe-export"
    exit_code = 24
    summary = "the export has links that leave it, or files that are no files"


class SourceChanged(ServingRepoError):
    """The run directory changed while it was read."""

    slug = "source-changed"
    exit_code = 25
    retryable = True
    summary = "the run changed while it was copied: is training still writing?"


class BreakingChange(ServingRepoError):
    """The export's signatures would break clients of what is served, or of the contract."""

    slug = "breaking-change"
    exit_code = 26
    summary = "the signatures would break clients (the message lists how)"


class UnsafeOperation(ServingRepoError):
    """The graph has operations that touch files, the network or processes of the server."""

    slug = "unsafe-operation"
    exit_code = 27
    summary = "the graph touches files, network or processes of the server"


class GateFailed(ServingRepoError):
    """The run measured something worse than a gate asks for, or does not say."""

    slug = "gate-failed"
    exit_code = 28
    summary = "the run did not measure what a gate asks for"


class StaleRun(ServingRepoError):
    """The SavedModel may not be what the run's training ended with."""

    slug = "stale-run"
    exit_code = 29
    summary = "the run is stale or mixed (with --strict: without, a note)"


# 30s: the state of the repository -----------------------------------------------------------------


class NoRepository(ServingRepoError):
    """The root is not a model repository of servingrepo."""

    slug = "no-repository"
    exit_code = 30
    summary = "the root is not a servingrepo repository"


class NewerFormat(ServingRepoError):
    """The repository was written by a newer servingrepo."""

    slug = "newer-format"
    exit_code = 31
    summary = "the repository was written by a newer servingrepo"


class NoSuchVersion(ServingRepoError):
    """A model or version that is not there."""

    slug = "no-such-version"
    exit_code = 32
    summary = "the model or version does not exist"


class NumberUsed(ServingRepoError):
    """A version number that is taken, or was: numbers are never used twice."""

    slug = "number-used"
    exit_code = 33
    summary = "the version number was used before; numbers are never used twice"


class VersionBad(ServingRepoError):
    """The version, or its content, is marked bad."""

    slug = "version-bad"
    exit_code = 34
    summary = "the version or its content is marked bad"


class VersionDamaged(ServingRepoError):
    """A published version is not what its record says."""

    slug = "version-damaged"
    exit_code = 35
    summary = "a published version is not what its record says"


class ConfigInvalid(ServingRepoError):
    """models.config, or a change to it, is one that TensorFlow Serving would refuse or hang on.

    Or the change must not be made: the model's live versions are at another base path than ours.
    """

    slug = "config-invalid"
    exit_code = 36
    summary = "models.config is one that TensorFlow Serving would refuse or hang on, or has the model elsewhere"


class ConfigEdited(ServingRepoError):
    """models.config was changed by somebody else; it is never overwritten silently."""

    slug = "config-edited"
    exit_code = 37
    summary = "models.config was edited by hand"


class NothingToRollBack(ServingRepoError):
    """There is no earlier version that exists and is not marked bad."""

    slug = "nothing-to-roll-back"
    exit_code = 38
    summary = "there is no earlier good version to roll back to"


class RepositoryDamaged(ServingRepoError):
    """The repository holds what it should not: an unreadable record, a SavedModel without a number."""

    slug = "repository-damaged"
    exit_code = 39
    summary = "the repository holds what it should not: an unreadable record, a flat SavedModel"


# 40s: others are working --------------------------------------------------------------------------


class Locked(ServingRepoError):
    """Another process holds the repository's lock."""

    slug = "locked"
    exit_code = 40
    retryable = True
    summary = "another process holds the lock (the message says which)"


class RepositoryChanged(ServingRepoError):
    """Another command changed where models lie, or where servers see them, since this one opened the repository."""

    slug = "repository-changed"
    exit_code = 41
    retryable = True
    summary = "another command changed where models lie meanwhile: run this one again"


# 50s: storage -------------------------------------------------------------------------------------


class StorageFailed(ServingRepoError):
    """The file system refused to read or write."""

    slug = "storage-failed"
    exit_code = 50
    summary = "the file system refused to read or write"


class NoSpace(StorageFailed):
    """There is not enough room for the version."""

    slug = "no-space"
    exit_code = 51
    summary = "there is not enough space"


class NoPermission(StorageFailed):
    """The file system says no to this user."""

    slug = "no-permission"
    exit_code = 52
    summary = "this user may not read or write there"


class StorageHung(StorageFailed):
    """A network file system does not answer."""

    slug = "storage-hung"
    exit_code = 53
    retryable = True
    summary = "a network file system does not answer"


# 60s: engines and servers -------------------------------------------------------------------------


class EngineUnavailable(ServingRepoError):
    """The engine cannot be used on this machine."""

    slug = "engine-unavailable"
    exit_code = 60
    summary = "the engine cannot be used on this machine"


class PortInUse(ServingRepoError):
    """Something else listens on the port."""

    slug = "port-in-use"
    exit_code = 61
    summary = "something else listens on the port"


class ServerDied(ServingRepoError):
    """The server process ended when it should have been serving."""

    slug = "server-died"
    exit_code = 62
    summary = "the server ended when it should have been serving"


class ServerTimeout(ServingRepoError):
    """The server did not get there within the time given."""

    slug = "server-timeout"
    exit_code = 63
    retryable = True
    summary = "the server did not get there in time"


class LoadFailed(ServingRepoError):
    """The server refused to load the version."""

    slug = "load-failed"
    exit_code = 64
    summary = "the server refused to load the version"


class EndpointUnreachable(ServingRepoError):
    """Nothing that speaks TensorFlow Serving's gRPC answers at the endpoint."""

    slug = "endpoint-unreachable"
    exit_code = 65
    retryable = True
    summary = "no TensorFlow Serving answers at the endpoint"


class RequestRefused(ServingRepoError):
    """A server answered a request with an error: `code` is gRPC's name for it, `text` its message."""

    slug = "request-refused"
    exit_code = 66
    summary = "the server answered with an error"

    def __init__(self, message: str, *, code: str, text: str, hint: str | None = None) -> None:
        """Remember the server's own code and words beside our message."""
        super().__init__(message, hint=hint, details={"code": code, "text": text})
        self.code = code
        self.text = text


class SwitchFailed(ServingRepoError):
    """Live servers could not be moved to the new version; the message says where they are now."""

    slug = "switch-failed"
    exit_code = 67
    summary = "live servers could not be switched (the message says where they are)"
    stages: tuple[Any, ...] = ()
    """The verdicts of a roll-out in stages, as far as it came."""


class NotConverged(ServingRepoError):
    """`status --wait` gave up: disk, config and servers do not agree."""

    slug = "not-converged"
    exit_code = 68
    retryable = True
    summary = "disk, config and servers do not agree"


class HookFailed(ServingRepoError):
    """A command that the user put before a change failed; nothing was changed."""

    slug = "hook-failed"
    exit_code = 69
    summary = "a command of yours before the change failed; nothing was changed"


# 70s: smoke ---------------------------------------------------------------------------------------


class SmokeFailed(ServingRepoError):
    """A smoke request failed, or nothing was proven."""

    slug = "smoke-failed"
    exit_code = 70
    summary = "the smoke test failed, or nothing was proven"


class DriftInconclusive(ServingRepoError):
    """A budget for the drift of a candidate was given, and the cases do not decide whether it keeps to it."""

    slug = "drift-inconclusive"
    exit_code = 72
    summary = "the cases do not decide whether a candidate keeps to its budget for drift"


class BadCase(ServingRepoError):
    """A smoke case file that cannot be read or does not fit the model."""

    slug = "bad-case"
    exit_code = 71
    summary = "a smoke case file cannot be used"


def every_error() -> Iterator[type[ServingRepoError]]:
    """Yield every error class that can be raised, by exit code: the README's table is made from it."""

    def walk(kind: type[ServingRepoError]) -> Iterator[type[ServingRepoError]]:
        for child in kind.__subclasses__():
            yield child
            yield from walk(child)

    found: set[type[ServingRepoError]] = {ServingRepoError, *walk(ServingRepoError)}
    kinds = {kind for kind in found if kind.__module__ == __name__}
    yield from sorted(kinds, key=lambda kind: kind.exit_code)
