"""Options that several commands share, each with its environment twin."""

from __future__ import annotations

import os
import re
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.cli.connections import connection_options, secured, security
from servingrepo.cli.paths import LocalPath
from servingrepo.cli.settings import ENGINE_FIELDS, ENVIRONMENT, read_settings_of_root
from servingrepo.errors import EndpointUnreachable, SettingsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


F = TypeVar("F", bound="Callable[..., Any] | click.Command")


def _store(name: str, ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Put a value into the App, if it was given: the group and the command have the same options."""
    source = ctx.get_parameter_source(param.name) if param.name is not None else None
    if source is not None:
        ctx.ensure_object(App).take(name, value, source)


def _store_root(ctx: click.Context, param: click.Parameter, value: Path) -> None:
    _store("root", ctx, param, value)
    if ctx.parent is not None and ctx.get_parameter_source("root") is ParameterSource.COMMANDLINE:
        read_settings_of_root(ctx)


def env_twins(command: str, params: Iterable[click.Parameter]) -> None:
    """Give each option of a command its environment variable: SERVINGREPO_COMMAND_OPTION.

    click's own automatism would name them after our parameters, not after the options.
    """
    for param in params:
        if isinstance(param, click.Option):
            option = max(param.opts, key=len).lstrip("-")
            own = re.sub(r"\W", "_", f"SERVINGREPO {command} {option}").upper()
            shared = [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
            param.envvar = [own, *shared]


def shared_options(function: F) -> F:
    """Add --root, --json, -q, -v and --lock-wait, before the command's name or behind it."""
    options = [
        click.option(
            "--root",
            type=LocalPath(path_type=Path, file_okay=False, readable=False),
            default=Path(),
            envvar="SERVINGREPO_ROOT",
            show_envvar=True,
            is_eager=True,
            expose_value=False,
            callback=_store_root,
            help="The repository. [default: the current directory]",
        ),
        click.option(
            "--json",
            is_flag=True,
            envvar="SERVINGREPO_JSON",
            expose_value=False,
            callback=partial(_store, "json"),
            help="Print exactly one JSON object on stdout, for errors too.",
        ),
        click.option(
            "-q",
            "--quiet",
            "quiet",
            flag_value=-1,
            type=int,
            default=None,
            envvar="SERVINGREPO_QUIET",
            expose_value=False,
            callback=partial(_store, "verbosity"),
            help="Print the bare result alone (promote: the version number).",
        ),
        click.option(
            "-v",
            "--verbose",
            "verbose",
            flag_value=1,
            type=int,
            default=None,
            envvar="SERVINGREPO_VERBOSE",
            expose_value=False,
            callback=partial(_store, "verbosity"),
            help="Print more.",
        ),
        click.option(
            "--lock-wait",
            type=click.FloatRange(min=0),
            default=30.0,
            envvar="SERVINGREPO_LOCK_WAIT",
            expose_value=False,
            callback=partial(_store, "lock_wait"),
            metavar="SECONDS",
            help="How long to wait for the repository's lock. [default: 30]",
        ),
        click.option(
            "--failpoints",
            envvar="SERVINGREPO_FAILPOINTS",
            hidden=True,
            expose_value=False,
            callback=partial(_store, "faults"),
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_GIVEN_BY_HAND = (
    click.core.ParameterSource.COMMANDLINE,
    click.core.ParameterSource.ENVIRONMENT,
)


def endpoint_option(function: F) -> F:
    """Add --endpoint, repeatable, --env for those of an environment, and how servers are spoken to.

    The function gets `endpoints`, values of Endpoint with TLS and headers in them.
    """

    @wraps(function)
    def gathered(*args: Any, environment: str | None, **options: Any) -> Any:
        chosen = _of_environment(environment, options)
        endpoints = secured(chosen["endpoints"])
        try:
            return function(*args, **{**chosen, "endpoints": endpoints})
        except EndpointUnreachable as error:
            engine = options.get("engine")  # a remote one may be what does not answer
            if endpoints and (engine is None or not engine.name.startswith("remote")):
                _say_who_named(error)
            raise

    decorated: Any = gathered
    decorated = click.option(
        "--env",
        "environment",
        default=None,
        envvar="SERVINGREPO_ENV",
        show_envvar=True,
        metavar="NAME",
        help="Take the endpoints of [environments.NAME] in the settings file.",
    )(decorated)
    result: F = click.option(
        "--endpoint",
        "endpoints",
        multiple=True,
        envvar="SERVINGREPO_ENDPOINT",
        show_envvar=True,
        metavar="HOST:PORT",
        help="gRPC endpoint of a live TensorFlow Serving; may be repeated. A name with several addresses means "
        "each of them.",
    )(connection_options(decorated))
    return result


def _say_who_named(error: EndpointUnreachable) -> None:
    """Say in the hint how to leave out an endpoint that was not named on the command line."""
    ctx = click.get_current_context()
    source = ctx.get_parameter_source("endpoints")
    if source is ParameterSource.COMMANDLINE:
        return
    param = next(one for one in ctx.command.params if one.name == "endpoints")
    variable = variable_behind(param, ctx)
    named = (
        f"{variable} names the endpoints: name the others there, or none ({variable}= in front of the command)"
        if variable is not None
        else f"{ctx.ensure_object(App).settings} names the endpoints: name the others by --endpoint"
    )
    error.hint = f"{error.hint}; {named}" if error.hint else named


def _of_environment(environment: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as command line, environment, model and the rest of the settings say, in this order."""
    app = click.get_current_context().ensure_object(App)
    settings: dict[str, Any] = {}
    for_all = not (options.get("model") or options.get("reference"))
    if environment is not None:
        if environment not in app.environments:
            listed = ", ".join(sorted(app.environments)) or "none"
            raise SettingsError(
                f"there is no environment {environment}",
                hint=f"a table [environments.{environment}] in servingrepo.toml makes it; there are: {listed}",
            )
        settings = app.environments[environment]
    elif for_all:
        named = [one for table in app.models.values() for one in table.get("endpoints", ())]
        if named:
            settings = {"endpoints": tuple(dict.fromkeys((*options["endpoints"], *named)))}
    else:
        settings = settings_of_subject(options)
    chosen = {
        name: firmest(name, value, settings) if name in ENVIRONMENT else value
        for name, value in options.items()
    }
    if isinstance(chosen["endpoints"], str):
        chosen["endpoints"] = (chosen["endpoints"],)
    return chosen


def wait_option(function: F) -> F:
    """Add --wait: how long live servers may take."""
    return click.option(
        "--wait",
        type=click.FloatRange(min=0.1),
        default=60.0,
        envvar="SERVINGREPO_WAIT",
        show_default=True,
        metavar="SECONDS",
        help="How long endpoints may take; then everything is put back, which may take 30 seconds more (60 with "
        "--reload poll).",
    )(function)


def message_option(function: F) -> F:
    """Add -m: why."""
    return click.option(
        "-m",
        "--message",
        default="",
        metavar="TEXT",
        # It goes into JSON files: bytes that are not UTF-8 (PEP 383) become escapes.
        callback=lambda _ctx, _param, text: text.encode("utf-8", "backslashreplace").decode(),
        help="Why: kept in the history.",
    )(function)


class _GateType(click.ParamType[Any]):
    """A gate, as servingrepo.runs.gates reads it."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it; what cannot be read is a mistake of the command line or the settings file."""
        from servingrepo.errors import UsageError
        from servingrepo.runs.gates import parse_gate

        if not isinstance(value, str):
            return value
        try:
            return parse_gate(value)
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


def require_option(function: F) -> F:
    """Add --require, repeatable. A model's gates in the settings file hold whatever the command line adds."""

    @wraps(function)
    def gathered(*args: Any, require: tuple[Any, ...], **options: Any) -> Any:
        of_model = settings_of_subject(options).get("require", ())
        gates = (*map(_GateType(), of_model), *require)
        return function(*args, require=tuple(dict.fromkeys(gates)), **options)

    decorated: Any = click.option(
        "--require",
        multiple=True,
        type=_GateType(),
        metavar="GATE",
        help="What the run must have measured, such as 'validation/accuracy >= 0.92', 'best(loss) < 0.1' or "
        "'auc >= served - 0.005'; repeatable.",
    )(gathered)
    result: F = decorated
    return result


def dry_run_option(function: F) -> F:
    """Add --dry-run."""
    return click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")(
        function
    )


def engine_options(function: F) -> F:
    """Add --engine and what shapes it, --timeout and --case: how to smoke-test.

    The function gets `engine`, an EngineChoice, for all options of the engine together.
    """

    @wraps(function)
    def gathered(*args: Any, **options: Any) -> Any:
        from servingrepo.servers.engines.choice import EngineChoice

        of_model = settings_of_subject(options)
        chosen = {
            field: firmest(option, options.pop(option), of_model)
            for field, option in ENGINE_FIELDS.items()
        }
        _refuse_ignored(chosen["name"])
        if chosen["name"].startswith("remote"):
            server = chosen["name"].partition(":")[2]
            chosen["security"] = security(to=[server], named_by="engine")
        return function(*args, engine=EngineChoice(**chosen), **options)

    decorated: Any = connection_options(gathered)
    for option in reversed(_engine_options()):
        decorated = option(decorated)
    result: F = decorated
    return result


def _refuse_ignored(engine: str) -> None:
    """Refuse an option of the engine that the chosen one would ignore, if it was typed, or the engine was.

    What the settings file says of engines in general holds for the one that is chosen as far as it goes, and so
    does the environment.

    Raises:
        UsageError: There is one; all of them are named.
    """
    from servingrepo.servers.engines.choice import ignored_by

    ctx = click.get_current_context()
    typed = ParameterSource.COMMANDLINE
    weighty = _GIVEN_BY_HAND if ctx.get_parameter_source("engine") is typed else (typed,)
    params = {one.name: one for one in ctx.command.params}
    ignored = [
        variable_behind(params[option], ctx) or params[option].opts[0]
        for field, option in ENGINE_FIELDS.items()
        if field in ignored_by(engine) and ctx.get_parameter_source(option) in weighty
    ]
    if ignored:
        means = "means" if len(ignored) == 1 else "mean"
        came_from = ""
        if ctx.get_parameter_source("engine") is not typed:
            came_from = (
                f", which {variable_behind(params['engine'], ctx) or 'the settings file'} says"
            )
        raise UsageError(
            f"{', '.join(ignored)} {means} nothing to --engine {engine}{came_from}",
            hint="leave one of the two out; --engine docker runs a container",
        )


def variable_behind(param: click.Parameter, ctx: click.Context) -> str | None:
    """Return the environment variable that an option's value came from, None if it did not."""
    names = param.envvar
    if param.name is None or names is None:
        return None
    if ctx.get_parameter_source(param.name) is not ParameterSource.ENVIRONMENT:
        return None
    return next(
        (one for one in ([names] if isinstance(names, str) else names) if os.environ.get(one)), None
    )


def settings_of_subject(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the settings file says of the model that a command is about."""
    subject = options.get("model") or options.get("subject") or options.get("reference") or ""
    app = click.get_current_context().ensure_object(App)
    return settings_of_model(app, str(subject).partition("@")[0])


def settings_of_model(app: App, model: str) -> dict[str, Any]:
    """Return what the settings file says of a model, by the options' names."""
    return app.models.get(model, {})


def bystanders(options: dict[str, Any]) -> tuple[str, ...]:
    """Return servers that only other models' lists have, if this command took its model's list.

    Every server has the whole of models.config, whichever models' lists it is in.
    """
    app = click.get_current_context().ensure_object(App)
    own = settings_of_subject(options).get("endpoints", ())
    given = click.get_current_context().get_parameter_source("endpoints") in _GIVEN_BY_HAND
    if not own or given or click.get_current_context().params.get("environment") is not None:
        return ()
    from servingrepo.api.arguments import as_endpoints

    part = set(map(str, as_endpoints(options["endpoints"])))
    lists = [table.get("endpoints", ()) for table in app.models.values()]
    listed = [one for each in lists for one in ((each,) if isinstance(each, str) else each)]
    return tuple(str(one) for one in as_endpoints(listed) if str(one) not in part)


def firmest(option: str, value: Any, of_model: dict[str, Any]) -> Any:
    """Return a model's setting, unless the command line or the environment says otherwise."""
    source = click.get_current_context().get_parameter_source(option)
    if option not in of_model or source in _GIVEN_BY_HAND:
        return value
    return of_model[option]


def _engine_options() -> list[Callable[..., Any]]:
    text = partial(click.option, default=None)
    return [
        click.option(
            "--engine",
            default="auto",
            envvar="SERVINGREPO_ENGINE",
            show_default=True,
            metavar="ENGINE",
            help="What serves during the smoke test: docker, binary[:PATH], embedded, remote:HOST:PORT; auto "
            "is docker if the image is there, else a tensorflow_model_server on PATH, else embedded.",
        ),
        text(
            "--image",
            envvar="SERVINGREPO_ENGINE_IMAGE",
            metavar="IMAGE",
            help="The container's image, by tag or digest. [default: tensorflow/serving:2.19.1]",
        ),
        click.option("--pull", is_flag=True, help="Pull the image if it is not there."),
        text("--platform", metavar="OS/ARCH", help="The image's platform, such as linux/arm64."),
        text("--gpus", metavar="all|N", help="GPUs for the container."),
        text("--memory", metavar="SIZE", help="Memory for the container, such as 2g."),
        text(
            "--docker-network",
            envvar="SERVINGREPO_DOCKER_NETWORK",
            metavar="NAME",
            help="Docker network for the container to join; none needs no network at all.",
        ),
        text("--docker-user", metavar="UID[:GID]", help="Who the server runs as in the container."),
        click.option(
            "--server-arg",
            "server_args",
            multiple=True,
            metavar="FLAG",
            help="One more flag for the server, such as --tensorflow_inter_op_parallelism=2; repeatable.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=120.0,
            envvar="SERVINGREPO_TIMEOUT",
            show_default=True,
            metavar="SECONDS",
            help="How long the smoke test may take, server start included; taking the server down may take 30 "
            "seconds more.",
        ),
        click.option(
            "--case",
            "cases",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            metavar="FILE",
            help="Requests to send instead of made-up ones: JSON as for TF Serving's REST; repeatable.",
        ),
    ]
