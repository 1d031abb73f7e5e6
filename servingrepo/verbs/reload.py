"""reload: sends models.config to live servers as it is, and proves that they serve it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import ConfigInvalid
from servingrepo.fleet import live
from servingrepo.fleet.failures import FollowTimeout, say_both_paths, together
from servingrepo.fleet.parallel import each
from servingrepo.fleet.steps import EndpointResult
from servingrepo.fleet.switch import connect
from servingrepo.modelconfig import models
from servingrepo.repository.adoption import forget_policies
from servingrepo.repository.config import check_config, read_own_config
from servingrepo.repository.lagging import LaggingServer, forget_lagging, note_lagging
from servingrepo.repository.transaction import writing

if TYPE_CHECKING:
    from servingrepo.fleet.options import ReloadOptions
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient


class Reloaded(msgspec.Struct, frozen=True):
    """The result of a reload: the pinned versions of each model, and the result of each endpoint."""

    models: dict[str, tuple[int, ...]]
    endpoints: tuple[EndpointResult, ...]
    dry_run: bool


def reload(repo: Repository, options: ReloadOptions) -> Reloaded:
    """Send models.config to the endpoints, and wait until each pinned version answers on each of them.

    Labels follow in a second reload, when their versions are loaded: TF Serving refuses a label of a version that is
    not. Servers that `poll` the file get no reload: this only waits for them. Without endpoints `poll` says that all
    servers poll the file or were started with it: then nothing is asked. Either way no server counts any more as one
    that follows a policy which an adoption replaced.

    Raises:
        ConfigInvalid: A server would refuse the config or hang on it; nothing was sent.
        EndpointUnreachable, ServerTimeout, LoadFailed, RequestRefused: An endpoint did not follow.
    """
    with writing(repo, dry_run=options.dry_run):
        config = read_own_config(repo, replaces=False)
        problems = [str(one) for one in check_config(repo, config) if one.severity == "error"]
        if problems:
            raise ConfigInvalid(
                f"{repo.config_name} was not sent: TensorFlow Serving would refuse it or hang on it",
                problems=problems,
                hint="servingrepo config check shows how to correct each mistake",
            )
        wanted = {one.name: one.versions for one in models(config)}
        results: tuple[EndpointResult, ...] = ()
        if not options.dry_run:
            results = _converge_all(repo, config, options)
            if results or options.poll:
                forget_policies(repo)
    return Reloaded(models=wanted, endpoints=results, dry_run=options.dry_run)


def _converge_all(
    repo: Repository, config: ModelConfig, options: ReloadOptions
) -> tuple[EndpointResult, ...]:
    """Bring all endpoints to the config at once. The failure of an endpoint stops no other endpoint."""
    deadline = Deadline.after(options.wait)
    with ExitStack() as stack:
        servers = [stack.enter_context(connect(endpoint)) for endpoint in options.fleet]

        def follow(server: ServingClient) -> EndpointResult:
            live.check_reachable(server, deadline=deadline)
            live.converge(server, config, deadline=deadline, poll=options.poll)
            return EndpointResult(str(server.endpoint), "serves models.config")

        answers = each(servers, follow)
    done = tuple(answer.value for answer in answers if answer.value is not None)
    forget_lagging(repo, (one.endpoint for one in done))
    lagging = [
        LaggingServer(
            endpoint=str(answer.of.endpoint),
            since=repo.now(),
            why=answer.error.message,
            uncertain=True,
        )
        for answer in answers
        if isinstance(answer.error, FollowTimeout) and answer.error.uncertain
    ]
    if lagging:
        note_lagging(repo, lagging)
    errors = [answer.error for answer in answers if answer.error is not None]
    if errors:
        error = together(errors)
        say_both_paths(repo, error)
        error.problems = (*error.problems, *(f"{one.endpoint}: {one.outcome}" for one in done))
        raise error
    return done
