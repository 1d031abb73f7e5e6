"""servingrepo promote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, Bar, pinned, sized
from servingrepo.cli.command import command as make
from servingrepo.cli.options import (
    dry_run_option,
    endpoint_option,
    engine_options,
    hook_options,
    message_option,
    rules_options,
    stage_options,
    wait_option,
)
from servingrepo.cli.proofs import proof_lines
from servingrepo.cli.switches import tell_hooks
from servingrepo.modelconfig.names import parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.rollout.hooks import Hooks
    from servingrepo.rollout.promotion import Promotion
    from servingrepo.rollout.rules import Rules
    from servingrepo.serving.engines import EngineChoice


@make(
    "promote",
    examples="""
    servingrepo promote runs/2026_05_10_baseline --model ranker -m "new features"
    servingrepo promote runs/latest --model ranker --no-serve
    servingrepo promote runs/latest --model ranker --endpoint localhost:8500
    version=$(servingrepo promote -q runs/latest --model ranker)""",
)
@click.argument("run", type=click.Path(path_type=Path, readable=False))
@click.option("--model", required=True, show_envvar=True, metavar="NAME", help="The model.")
@click.option(
    "--version",
    "number",
    metavar="N",
    help="The version's number: above all that were ever used. [default: the next]",
)
@click.option(
    "--saved-model",
    type=click.Path(path_type=Path),
    help="Which SavedModel of the run is meant, as a path in it.",
)
@click.option(
    "--serve/--no-serve",
    "serve",
    default=None,
    help="Serve it when it is published. [default: serve new content; not if the model is held]",
)
@click.option(
    "--smoke/--no-smoke",
    default=True,
    help="Send it requests before it is published. [default: smoke]",
)
@click.option(
    "--strict", is_flag=True, help="Every signature must be proven, none left inconclusive."
)
@engine_options
@endpoint_option
@wait_option
@rules_options
@stage_options
@hook_options
@message_option
@dry_run_option
@click.pass_obj
def command(
    app: App,
    run: Path,
    model: str,
    number: str | None,
    saved_model: Path | None,
    serve: bool | None,
    smoke: bool,
    strict: bool,
    engine: EngineChoice,
    timeout: float,
    cases: tuple[Path, ...],
    endpoints: tuple[str, ...],
    wait: float,
    rules: Rules | None,
    hooks: Hooks | None,
    message: str,
    dry_run: bool,
) -> None:
    """Publish the SavedModel of a RUN directory as the next version of a model, and serve it.

    The export is copied beside the target under a name that servers ignore, hashed, served from there by the
    engine and sent requests. Only then it appears under its number, whole, and models.config points at it.
    Content that was published before is not published again: its version is returned.
    """
    version = parse_version(number) if number is not None else None
    repo = app.open()
    with Bar(app, f"copying {run}", _size(run, saved_model) if not dry_run else 0) as bar:
        done = repo.promote(
            run,
            model=model,
            engine=engine,
            version=version,
            saved_model=saved_model,
            serve=serve,
            smoke=smoke,
            strict=strict,
            cases=cases,
            timeout=timeout,
            endpoints=endpoints,
            wait=wait,
            rules=rules,
            hooks=hooks,
            message=message,
            dry_run=dry_run,
            progress=bar.advance,
        )
    tell_hooks(app, done.hooks)
    app.result(done, _lines(done, asked_to_serve=serve, number=version), bare=done.version)


def _size(run: Path, saved_model: Path | None) -> int:
    """Return how much there is to copy, for the progress bar; errors are promote's to raise."""
    from servingrepo.errors import ServingRepoError
    from servingrepo.rundir import scan_run
    from servingrepo.storage.tree import read_tree

    try:
        found = scan_run(run, saved_model=saved_model)
        return read_tree(Path(found.export), boundary=Path(found.run)).size
    except ServingRepoError:
        return 0


def _lines(done: Promotion, *, asked_to_serve: bool | None, number: int | None) -> Iterator[str]:
    name = f"{done.model}@{done.version}"
    yield from _headline(done, name, number=number)
    yield f"  from      {done.export}"
    yield f"  size      {sized(done.size)} in {done.files} files"
    if done.same_as is None:
        if done.proof is not None:
            yield from proof_lines(done.proof)
        else:
            yield "  proof     not checked" + (" (a dry run runs nothing)" if done.dry_run else "")
    if done.before != done.after:
        yield f"  {'would serve' if done.dry_run else 'served'}    {pinned(done.before)} > {pinned(done.after)}"
    else:
        yield f"  served    {pinned(done.after)}, as before"
    for one in done.endpoints:
        yield f"  {one.endpoint}  {one.outcome}"
    if done.held is not None:
        yield f"  held      {done.held or 'no reason given'}; so it was not served"
        yield f"  next      servingrepo serve {name}, or servingrepo release-hold {done.model}"
    elif done.overtaken and asked_to_serve is not False:
        yield f"  overtaken {done.overtaken}; so it was not served"
        yield f"  next      servingrepo status {done.model}; servingrepo serve {name} if that is still meant"
    elif not done.served:
        yield f"  next      servingrepo serve {name}"
    elif asked_to_serve is not False:
        back = f"; servingrepo rollback {done.model} goes back" if done.can_go_back else ""
        at = "".join(f" --endpoint {one.endpoint}" for one in done.endpoints)
        yield f"  next      servingrepo status {done.model}{at}{back}"


def _headline(done: Promotion, name: str, *, number: int | None) -> Iterator[str]:
    """Yield what happened, first of all."""
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    if done.same_as is not None:
        yield f"{dry}{name} has this content already: nothing {'would be' if dry else 'was'} published"
        if number is not None and number != done.version:
            yield f"  version   --version {number} was not used"
    elif done.dry_run:
        yield f"{dry}would publish {name}"
    else:
        yield f"{name} published"
