"""One live server: send it a config, wait for its states, prove what it answers. Every wait has a deadline.

A server that answers a reload with OK has not yet loaded the new version of a known model (model_service_impl.cc).
So every wait ends with a reply that names the version.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EndpointUnreachable,
    LoadFailed,
    RequestRefused,
    ServerTimeout,
    ServingRepoError,
    SwitchFailed,
)
from servingrepo.fleet.failures import Abandoned, FollowTimeout
from servingrepo.modelconfig import Entry, ModelConfig, models, pin, to_proto
from servingrepo.servers.states import VersionStatus, hint_for_failed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from servingrepo.servers.client import ServingClient

_POLL_SECONDS = 0.1
_CALL_SECONDS = 10.0
_REACH_SECONDS = 5.0
_LOADING_SECONDS = 10.0
"""How long a load that has begun is waited for when it is no longer wanted."""

_OVER = frozenset({"AVAILABLE", "END"})
"""States of a version that is gone, if it does not answer."""

_OLD_NEWS_SECONDS = 3.0
"""In this time a server reads its disk three times (file_system_poll_wait_seconds is 1 by default)."""

States = dict[int, VersionStatus]
"""The states of a model's versions on one server, by version."""


def send(server: ServingClient, config: ModelConfig, *, deadline: Deadline) -> None:
    """Send a config to a server. The server may load and unload versions only later.

    Raises:
        RequestRefused: The server refused it, as TensorFlow Serving's rules say.
        FollowTimeout: The server did not answer; it may still carry the reload out later.
        EndpointUnreachable: Nothing answers there.
    """
    left = deadline.left  # read first: a stop in between must not shorten a call that is sent
    raise_if_stopped(server, deadline)
    try:
        server.reload(to_proto(config), timeout=left)
    except ServerTimeout as timeout:
        raise FollowTimeout(
            f"{server.endpoint} did not answer the reload within {deadline.seconds:.3g} s; it may still carry "
            "it out later",
            hint="another model that is loading, or that fails to load, holds up a reload; servingrepo status "
            "--endpoint shows what it serves",
            endpoint=str(server.endpoint),
            uncertain=True,
            unseen=_unseen_by(server, config),
        ) from timeout


def _unseen_by(server: ServingClient, config: ModelConfig) -> dict[str, str]:
    """Return by model the base paths where the server knows no version; none if it is loading.

    A server never answers a reload with a new model whose base path is missing (server_core.cc).
    """
    unseen: dict[str, str] = {}
    with suppress(ServingRepoError):
        for entry in models(config):
            states = server.status(entry.name, timeout=_REACH_SECONDS)
            if any(one.state in {"START", "LOADING"} for one in states):
                return {}
            if not states:
                unseen[entry.name] = entry.base_path
    return unseen


def raise_if_stopped(server: ServingClient, deadline: Deadline) -> None:
    """Begin nothing new on this server once another server has failed.

    Raises:
        Abandoned: Another server has failed.
    """
    if deadline.stopped:
        raise Abandoned(str(server.endpoint))


def states_of(server: ServingClient, model: str, *, deadline: Deadline) -> States:
    """Return the states of a model's versions that the server names now."""
    return {one.version: one for one in server.status(model, timeout=_call(deadline))}


def answering(
    server: ServingClient,
    model: str,
    states: Iterable[VersionStatus],
    *,
    among: Collection[int],
    deadline: Deadline,
) -> set[int]:
    """Return the versions `among` some that are AVAILABLE and answer requests for exactly them."""
    return {
        one.version
        for one in states
        if one.version in among
        and one.state == "AVAILABLE"
        and server.answers(model, one.version, timeout=_call(deadline))
    }


@contextmanager
def polling(
    server: ServingClient, model: str, before: States, *, deadline: Deadline
) -> Iterator[None]:
    """Wait in the block for a server that polls models.config; if nothing changes there, hint that it may not poll.

    A server cannot be asked whether it polls. If it does not, its states are as `before` the file changed.

    Raises:
        ServerTimeout: As in the block.
    """
    try:
        yield
    except Abandoned:
        raise
    except ServerTimeout as late:
        with suppress(ServingRepoError):
            if states_of(server, model, deadline=deadline) == before:
                late.hint = (
                    f"nothing of {model} changed there: a server polls only if it was started with "
                    "--model_config_file_poll_wait_seconds, and --model_config_file naming this models.config; "
                    "without --reload poll it is reloaded by RPC"
                )
        raise


def wait_available(
    server: ServingClient,
    model: str,
    versions: Collection[int],
    *,
    before: States | None = None,
    base_path: str = "",
    deadline: Deadline,
) -> None:
    """Wait until the server serves all these versions: each is AVAILABLE, and answers.

    AVAILABLE alone may be old news of a version that is gone (ServingClient.answers). A server also remembers the
    failure of a version for ever (servable_state_monitor.cc). A failure that it named `before` the reload is old news
    until the server has had time to read its disk again.

    Raises:
        LoadFailed: A version failed to load.
        FollowTimeout: Versions were not available in time; the message has their states, and the likely cause where
            the server knows nothing of a version that it should have found at the `base_path`.
    """
    old, settled = before or {}, Deadline.after(_OLD_NEWS_SECONDS)
    while True:
        states = states_of(server, model, deadline=deadline)
        loaded = answering(server, model, states.values(), among=versions, deadline=deadline)
        waiting = sorted(set(versions) - loaded)
        if not waiting:
            return
        for version in waiting:
            status = states.get(version)
            if (
                status is not None
                and status.failed
                and (status != old.get(version) or settled.passed)
            ):
                raise LoadFailed(
                    f"{server.endpoint} could not load {model}@{version}: {status.error}",
                    hint=hint_for_failed(model, status),
                )
        raise_if_stopped(server, deadline)
        if deadline.passed:
            looked = deadline.seconds > _OLD_NEWS_SECONDS
            unseen = base_path and looked and not any(version in states for version in waiting)
            raise FollowTimeout(
                f"{server.endpoint} has not loaded {model} after {deadline.seconds:.3g} s: "
                + ", ".join(f"{version} is {_not_yet(states.get(version))}" for version in waiting),
                hint="a long request in flight, or another model that fails to load, delays a server's loads",
                endpoint=str(server.endpoint),
                unseen={model: base_path} if unseen else {},
            )
        deadline.pause(_POLL_SECONDS)


def wait_gone(
    server: ServingClient, model: str, versions: Collection[int], *, deadline: Deadline
) -> None:
    """Wait until the server serves none of these versions.

    A version that is called AVAILABLE and answers nothing is gone.

    Raises:
        ServerTimeout: A version was still there at the deadline.
    """
    while True:
        states = states_of(server, model, deadline=deadline)
        loaded = answering(server, model, states.values(), among=versions, deadline=deadline)
        left = [
            one.version
            for one in states.values()
            if one.version in versions and (one.version in loaded or one.state not in _OVER)
        ]
        if not left:
            return
        raise_if_stopped(server, deadline)
        if deadline.passed:
            raise ServerTimeout(
                f"{server.endpoint} has not unloaded {model} after {deadline.seconds:.3g} s: "
                + ", ".join(f"{version} is {states[version].state}" for version in sorted(left)),
                hint="a request in flight keeps a version; it goes when that request ends",
            )
        deadline.pause(_POLL_SECONDS)


def wait_unserved(
    server: ServingClient,
    model: str,
    versions: Collection[int],
    *,
    before: States | None = None,
    deadline: Deadline,
) -> tuple[str, ...]:
    """Wait until the server answers with none of these versions; return those that it has not dropped yet.

    A version may still be loading, or a request in flight may keep it. The server drops it in its own time, and that
    is no reason to go back. But a reload takes effect only when the server reads its disk again, and a load that has
    begun may end as AVAILABLE for a moment. So a server that is put back gets some time: `before` has the states that
    it named before it was put back. An END among them is old news. So is an AVAILABLE whose version answers nothing:
    that version is gone.

    Raises:
        ServerTimeout: A version was still AVAILABLE at the deadline.
    """
    seen, loaded = (
        Deadline.after(deadline.at_most(seconds) if before is not None else 0.0)
        for seconds in (_OLD_NEWS_SECONDS, _LOADING_SECONDS)
    )
    while True:
        states = states_of(server, model, deadline=deadline)
        known = [states[version] for version in sorted(versions) if version in states]
        answer = answering(server, model, known, among=versions, deadline=deadline)
        serving = [one for one in known if one.version in answer]
        loading = [one for one in known if one.state in {"START", "LOADING"}]
        news = [
            one
            for one in known
            if one in serving or one.state not in _OVER or one != (before or {}).get(one.version)
        ]
        all_known = seen.passed or len(news) == len(versions)
        if not serving and all_known and (loaded.passed or not loading):
            return tuple(f"{one.version} is {one.state}" for one in known if one.state not in _OVER)
        raise_if_stopped(server, deadline)
        if deadline.passed and serving:
            raise ServerTimeout(
                f"{server.endpoint} still serves {model} after {deadline.seconds:.3g} s: "
                + ", ".join(f"{one.version} is {one.state}" for one in serving),
                hint="another model that is loading holds up a server's unloads",
            )
        deadline.pause(_POLL_SECONDS)


def wait_answering(
    server: ServingClient,
    model: str,
    expected: int,
    *,
    label: str | None = None,
    deadline: Deadline,
) -> None:
    """Wait until this version answers unlabelled (or labelled) requests: the proof of a switch.

    Raises:
        ServerTimeout: Another version still answered at the deadline, or no version.
    """
    while True:
        try:
            answered = server.metadata(model, label=label, timeout=_call(deadline)).version
            said = f"version {answered} answers"
        except RequestRefused as refused:
            answered, said = None, f"it says {refused.text}"
        if answered == expected:
            return
        raise_if_stopped(server, deadline)
        if deadline.passed:
            asked = f"label {label} of {model}" if label is not None else model
            raise ServerTimeout(
                f"{server.endpoint}: {asked} should be answered by version {expected}, but {said}",
                hint=f"servingrepo status {model} --endpoint {server.endpoint}",
            )
        deadline.pause(_POLL_SECONDS)


def wait_dropped(server: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until the versions of a model that the server is unloading have gone, before the model is added again.

    If a model is removed and added at once, the server takes the end of its old version for an answer to the reload
    (servable_state_monitor.cc): the reload fails although the model comes up.

    Raises:
        ServerTimeout: The server was still unloading at the deadline.
    """
    states = states_of(server, model, deadline=deadline).values()
    going = [one.version for one in states if one.state == "UNLOADING"]
    if going:
        wait_gone(server, model, going, deadline=deadline)


def prove_pinned(
    server: ServingClient, model: str, versions: Collection[int], *, deadline: Deadline
) -> None:
    """Prove that each of these versions answers a request for exactly it.

    Raises:
        SwitchFailed: Another version answered.
        RequestRefused, ServerTimeout: The server gave no answer.
    """
    for version in sorted(versions):
        answered = server.metadata(model, version, timeout=_call(deadline)).version
        if answered != version:
            raise SwitchFailed(
                f"{server.endpoint} answered for {model}@{version} with version {answered}"
            )


def check_reachable(server: ServingClient, *, deadline: Deadline) -> None:
    """See that a TensorFlow Serving answers there, before anything is changed.

    Raises:
        EndpointUnreachable: No TensorFlow Serving answers.
    """
    raise_if_stopped(server, deadline)
    try:
        server.status(
            "servingrepo-asks-who-is-there", timeout=max(deadline.at_most(_REACH_SECONDS), 0.5)
        )
    except ServerTimeout as timeout:
        raise EndpointUnreachable(
            f"{server.endpoint} accepts no request within {min(_REACH_SECONDS, deadline.seconds):.3g} s",
            hint="is it a TensorFlow Serving, and is that its gRPC port? nothing was changed",
        ) from timeout
    except RequestRefused as refused:
        raise EndpointUnreachable(
            f"{server.endpoint} is no TensorFlow Serving: it answers {refused.code}",
            hint="give the server's gRPC port (8500 by default); nothing was changed",
        ) from refused


def converge(
    server: ServingClient, config: ModelConfig, *, deadline: Deadline, poll: bool = False
) -> None:
    """Bring a server to a config, whatever it serves now, and wait until it serves that.

    In two steps, like every switch: first the versions that are loaded now together with those that are wanted,
    under the labels that can be set already; then the config itself. TF Serving checks a label against what is
    loaded when the reload comes. Nothing is sent to a server that polls the config's file: it is only waited for.

    Raises:
        LoadFailed, ServerTimeout, RequestRefused: The server did not follow.
    """
    bridge = config
    before = {
        entry.name: states_of(server, entry.name, deadline=deadline) for entry in models(config)
    }
    if poll:
        for entry in models(config):
            with polling(server, entry.name, before[entry.name], deadline=deadline):
                _wait_for_entry(server, entry, before=before[entry.name], deadline=deadline)
        return
    for entry in models(config):
        wait_dropped(server, entry.name, deadline=deadline)
        if entry.policy == "specific":
            bridge = _bridged(server, bridge, entry, deadline=deadline)
    if to_proto(bridge) != to_proto(config):
        send(server, bridge, deadline=deadline)
        for entry in models(config):
            wait_available(
                server,
                entry.name,
                entry.versions,
                before=before[entry.name],
                base_path=entry.base_path,
                deadline=deadline,
            )
    send(server, config, deadline=deadline)
    for entry in models(config):
        _wait_for_entry(server, entry, before=before[entry.name], deadline=deadline)


def _bridged(
    server: ServingClient, config: ModelConfig, entry: Entry, *, deadline: Deadline
) -> ModelConfig:
    """Return the config with one more change: a model keeps what it has loaded, under labels that hold now."""
    statuses = server.status(entry.name, timeout=_call(deadline))
    known = {status.version for status in statuses}
    loaded = answering(server, entry.name, statuses, among=known, deadline=deadline)
    labels: dict[str, int] = {}
    for label, version in entry.labels.items():
        if version in loaded:
            labels[label] = version
            continue
        # Not yet possible; where the label exists, it stays where it is until its version is loaded.
        with suppress(RequestRefused):
            labels[label] = server.metadata(
                entry.name, label=label, timeout=_call(deadline)
            ).version
    return pin(
        config,
        name=entry.name,
        base_path=entry.base_path,
        versions={*entry.versions, *loaded},
        labels={label: version for label, version in labels.items() if version in loaded},
    )


def _wait_for_entry(
    server: ServingClient, entry: Entry, *, before: States, deadline: Deadline
) -> None:
    """Wait until a server serves exactly the versions of an entry, and answers with them."""
    wait_available(
        server,
        entry.name,
        entry.versions,
        before=before,
        base_path=entry.base_path,
        deadline=deadline,
    )
    if entry.policy == "specific":
        known = server.status(entry.name, timeout=_call(deadline))
        others = {status.version for status in known} - set(entry.versions)
        wait_unserved(server, entry.name, others, deadline=deadline)
    for label, version in sorted(entry.labels.items()):
        wait_answering(server, entry.name, version, label=label, deadline=deadline)
    if entry.versions:
        wait_answering(server, entry.name, max(entry.versions), deadline=deadline)


def _call(deadline: Deadline) -> float:
    # At least a moment, so that a loop at its deadline asks once more before it gives up.
    return max(deadline.at_most(_CALL_SECONDS), 0.5)


def _not_yet(status: VersionStatus | None) -> str:
    if status is None:
        return "not known to it"
    return "called AVAILABLE and does not answer" if status.state == "AVAILABLE" else status.state
