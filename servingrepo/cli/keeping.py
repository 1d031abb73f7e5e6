"""The policy of a prune: from the caller, else from the model's table in servingrepo.toml, else from `[prune]`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec

from servingrepo.cli.chosen import BY_HAND, chosen, of_model
from servingrepo.cli.kinds import duration
from servingrepo.options import Option, fields_of
from servingrepo.repository.retention import Keep

if TYPE_CHECKING:
    from servingrepo.cli.app import App


def _rule(meaning: str, metavar: str, kind: str) -> Option:
    return Option(help=meaning, metavar=metavar, kind=kind, least=0, tables=("models",))


class KeepRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a policy, as the call gives them for all models."""

    keep_last: Annotated[
        int | None, _rule("Keep the last N good versions of each model.", "N", "count")
    ] = None
    keep_within: Annotated[
        timedelta | None,
        _rule(
            "Keep versions made within this time before the newest version: 12h, 30d, 2w, 1y, 1w3d.",
            "30d",
            "duration",
        ),
    ] = None
    keep_daily: Annotated[
        int | None,
        _rule("Keep the last good version of each of N days (UTC) that have one.", "N", "count"),
    ] = None
    keep_weekly: Annotated[
        int | None,
        _rule("Keep the last good version of each of N ISO weeks that have one.", "N", "count"),
    ] = None
    keep_labelled: Annotated[
        tuple[str, ...],
        _rule("Keep versions that have or had this label; '*' for any; repeatable.", "LABEL", ""),
    ] = ()


def given_by_hand() -> bool:
    """Tell whether a rule was given on the command line or in the environment."""
    ctx = click.get_current_context()
    return any(ctx.get_parameter_source(one.key) in BY_HAND for one in fields_of(KeepRules))


def policy_of(model: str) -> Keep:
    """Return a model's policy by the call and the settings."""
    return _keep(
        {one.key: chosen(one.key, ("models",), about=model) for one in fields_of(KeepRules)}
    )


def policy_of_settings(app: App, model: str) -> Keep:
    """Return a model's policy by the settings file alone: for the prune after a promotion."""
    return _keep({**app.prune, **of_model(model)})


def _keep(rules: dict[str, Any]) -> Keep:
    within, labelled = rules.get("keep_within"), rules.get("keep_labelled")
    return Keep(
        last=rules.get("keep_last") or 0,
        within=duration(within) if within else None,
        daily=rules.get("keep_daily") or 0,
        weekly=rules.get("keep_weekly") or 0,
        labelled=(labelled,) if isinstance(labelled, str) else tuple(labelled or ()),
    )
