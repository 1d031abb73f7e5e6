"""Values that several options make together: the rules of a change, its hooks, an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.cli.chosen import BY_HAND, of_model, subject, variable_behind
from servingrepo.cli.connections import keep_together, security
from servingrepo.errors import UsageError
from servingrepo.options import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.errors import EndpointUnreachable
    from servingrepo.fleet.hooks import Hooks
    from servingrepo.fleet.rules import Rules
    from servingrepo.servers.engines.choice import EngineChoice


def rules_of(values: dict[str, Any], about: dict[str, Any]) -> Rules:
    """Return the rules of a change; `about` has its endpoints.

    Raises:
        UsageError: The change goes in stages and has no endpoints, or the rules contradict each other.
        SettingsError: Headers would go to a metrics page from another source than the headers.
    """
    from servingrepo.fleet.rules import Rules

    rules = Rules(**values, other_servers=_other_servers(about["endpoints"]))
    if not rules.staged:
        return rules
    from servingrepo.fleet.stages import check_rules

    if not about["endpoints"]:
        raise UsageError(
            "a roll-out in stages needs endpoints, and none were given",
            hint="give --endpoint HOST:PORT or --env NAME, or leave --first, --batch, --watch-for and the "
            "other options of stages out",
        )
    check_rules(rules)
    if rules.metrics_url:
        keep_together([rules.metrics_url], "metrics_url")
    return rules


def _other_servers(endpoints: Any) -> tuple[str, ...]:
    """Return the servers that only the lists of other models have, if the command uses the list of its model.

    Every server has the whole models.config. So these servers lag behind after the change.
    """
    ctx = click.get_current_context()
    given = ctx.get_parameter_source("endpoints") in BY_HAND
    named = ctx.params.get("environment") is not None
    if given or named or not of_model(subject()).get("endpoints"):
        return ()
    from servingrepo.fleet.options import as_endpoints

    part = set(map(str, as_endpoints(endpoints)))
    lists = (table.get("endpoints", ()) for table in ctx.ensure_object(App).models.values())
    listed = as_endpoints(one for each in lists for one in each)
    return tuple(str(one) for one in listed if str(one) not in part)


def hooks_of(values: dict[str, Any], _about: dict[str, Any]) -> Hooks | None:
    """Return the hooks of a change; None if there are none."""
    from servingrepo.fleet.hooks import Hooks

    return Hooks(**values) if any(values.values()) else None


def engine_of(values: dict[str, Any], _about: dict[str, Any]) -> EngineChoice:
    """Return the choice of an engine.

    Raises:
        UsageError: The engine would ignore an option.
    """
    from servingrepo.servers.engines.options import EngineChoice

    name = values["name"]
    _refuse_ignored(name)
    if name.startswith("remote"):
        values["security"] = security(to=[name.partition(":")[2]], named_by="engine")
        source = click.get_current_context().get_parameter_source
        if source("engine") in BY_HAND and source("image") not in BY_HAND:
            values["image"] = (
                None  # a settings file's image is not that of the server which the caller names
            )
    return EngineChoice(**values)


def _refuse_ignored(engine: str) -> None:
    """Refuse options that the chosen engine would ignore, if the caller typed them or the engine.

    The settings file and the environment may have options for several engines: the chosen engine takes what it knows.

    Raises:
        UsageError: There are such options; the error names all.
    """
    from servingrepo.servers.engines.choice import EngineChoice, ignored_by

    ctx = click.get_current_context()
    typed = ParameterSource.COMMANDLINE
    weighty = BY_HAND if ctx.get_parameter_source("engine") is typed else (typed,)
    params = {one.name: one for one in ctx.command.params}
    ignored = [
        variable_behind(params[field.key], ctx) or params[field.key].opts[0]
        for field in fields_of(EngineChoice)
        if field.name in ignored_by(engine) and ctx.get_parameter_source(field.key) in weighty
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
            hint="leave the option or the engine out; --engine docker runs a container",
        )


def hint_at_source(error: EndpointUnreachable) -> None:
    """Add to the hint how to leave out an endpoint that the command line does not name."""
    ctx = click.get_current_context()
    if ctx.get_parameter_source("endpoints") is ParameterSource.COMMANDLINE:
        return
    param = next(one for one in ctx.command.params if one.name == "endpoints")
    variable = variable_behind(param, ctx)
    named = (
        f"{variable} names the endpoints: name the others there, or none ({variable}= in front of the command)"
        if variable is not None
        else f"{ctx.ensure_object(App).settings} names the endpoints: name the others by --endpoint"
    )
    error.hint = f"{error.hint}; {named}" if error.hint else named


BUILDERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "Rules": rules_of,
    "Hooks": hooks_of,
    "EngineChoice": engine_of,
}
"""The function that makes a Struct which several options make together, by the Struct's name."""
