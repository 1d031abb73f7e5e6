"""Name, type, default, help and section of an option stand once: in a field of the Struct of its verb."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, get_args

import click
import pytest

from servingrepo.api import OpenRepository
from servingrepo.cli.flag import Flag
from servingrepo.cli.main import main
from servingrepo.fleet.options import LiveOptions, ServeOptions
from servingrepo.options import Section
from servingrepo.verbs.options import PromoteOptions, PruneOptions, StatusOptions, VerifyOptions
from tests.cli import inside
from tests.support import new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from msgspec import Struct


SHARED = {"root", "lock_wait", "quiet", "verbose", "json", "failpoints"}
"""What every command has; it is of the call and not of a verb."""
WITHOUT = {"run-server"}
"""Has tensorflow_model_server's flags instead of ours."""


def every_command(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        one = group.get_command(ctx, name)
        assert one is not None
        if isinstance(one, click.Group):
            found |= every_command(one, f"{name} ")
        elif name not in WITHOUT:
            found[f"{prefix}{name}"] = one
    return found


EVERY = every_command(main)


@pytest.mark.parametrize("name", EVERY)
def test_every_option_comes_from_a_field(name: str) -> None:
    for param in EVERY[name].params:
        if isinstance(param, click.Argument):
            continue
        assert isinstance(param, Flag), param.opts
        assert param.field or param.name in SHARED, param.opts
        assert param.option.help, param.opts
        assert param.option.section in get_args(Section), param.opts
        twin = f"SERVINGREPO_{name}_{max(param.opts, key=len).lstrip('-')}".upper()
        twins = [param.envvar] if isinstance(param.envvar, str) else param.envvar or []
        assert param.name in SHARED or twin.replace(" ", "_").replace("-", "_") in twins, param.opts


def test_help_shows_options_in_sections() -> None:
    shown = inside.command("promote", "--help").out
    heads = [f"\n{one.capitalize()}:\n" for one in get_args(Section)]
    assert sorted(heads, key=shown.index) == heads
    live = shown.partition(heads[2])[2].partition(heads[3])[0]
    assert live.lstrip().startswith("--endpoint")
    assert "--first" not in live
    assert "Stages:" not in inside.command("unserve", "--help").out


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("label_remove", LiveOptions),
        ("prune", PruneOptions),
        ("status", StatusOptions),
        ("verify", VerifyOptions),
    ],
)
def test_spelled_out_keywords_are_the_options(method: str, options: type[Struct]) -> None:
    """These take any number of models, labels or versions, which no type says together with other keywords."""
    keywords = {
        one.name: one.default
        for one in inspect.signature(getattr(OpenRepository, method)).parameters.values()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    fields = dict(zip(options.__struct_fields__, options.__struct_defaults__, strict=True))
    assert keywords == fields


def test_an_option_that_no_verb_has_is_refused_by_python(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    with pytest.raises(TypeError, match="nosuch"):
        repo.serve("ranker@1", nosuch=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="reference"):
        repo.serve()  # type: ignore[call-arg]


def test_a_verb_s_subject_may_be_named(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "run", offset=1.0)
    done = repo.promote(run=run, model="ranker", smoke=False)  # type: ignore[call-arg]
    assert done.version == 1
    assert repo.serve(reference="ranker@1").served_after == 1  # type: ignore[call-arg]


def test_bad_values_are_refused_before_anything_else() -> None:
    with pytest.raises(Exception, match="not an endpoint"):
        ServeOptions(endpoints=["nowhere"])
    with pytest.raises(Exception, match="cannot be used"):
        ServeOptions(message="\0")
    with pytest.raises(Exception, match="cannot be used"):
        PromoteOptions(model="m", saved_model="\0")
