"""What one live server is told and what it answers, step by step, each with a deadline.

A reload that answers OK has not loaded the new version of a known model (model_service_impl.cc), so every
step here waits for the states and for a reply that names the version.
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
"""What a load that has begun is waited for when it is no longer wanted."""

_OVER = frozenset({"AVAILABLE", "END"})
"""States of a version that is gone, if it does not answer."""

_OLD_NEWS_SECONDS = 3.0
"""Three of a server's looks at its disk (file_system_poll_wait_seconds is 1 by default)."""

Remembered = dict[int, VersionStatus]


def send(server: ServingClient, config: ModelConfig, *, deadline: Deadline) -> None:
    """Make a server take a config; it may load and unload only later.

    Raises:
        RequestRefused: It refused, as TensorFlow Serving's rules say.
        ServerTimeout: It did not answer; it may still carry the reload out later.
        EndpointUnreachable: Nothing answers there.
    """
    left = deadline.left  # first: a stop in between must not shorten a call that is sent
    go_on(server, deadline)
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
    """Return the base paths, by model, of which a server that is not busy knows no version.

    A reload with a new model whose base path is missing never returns (server_core.cc).
    """
    unseen: dict[str, str] = {}
    with suppress(ServingRepoError):
        for one in models(config):
            known = server.status(one.name, timeout=_REACH_SECONDS)
            if any(each.state in {"START", "LOADING"} for each in known):
                return {}
            if not known:
                unseen[one.name] = one.base_path
    return unseen


def go_on(server: ServingClient, deadline: Deadline) -> None:
    """Begin nothing new on this server once another one has failed.

    Raises:
        Abandoned: Another one has.
    """
    if deadline.stopped:
        raise Abandoned(str(server.endpoint))


def remembered(server: ServingClient, model: str, *, deadline: Deadline) -> Remembered:
    """Return what the server says of a model now: what `wait_available` must not take for news."""
    return {one.version: one for one in server.status(model, timeout=_call(deadline))}


def answering(
    server: ServingClient,
    model: str,
    states: Iterable[VersionStatus],
    *,
    among: Collection[int],
    deadline: Deadline,
) -> set[int]:
    """Return which of some versions are AVAILABLE and answer requests for exactly them."""
    return {
        one.version
        for one in states
        if one.version in among
        and one.state == "AVAILABLE"
        and server.answers(model, one.version, timeout=_call(deadline))
    }


@contextmanager
def polling(
    server: ServingClient, model: str, before: Remembered, *, deadline: Deadline
) -> Iterator[None]:
    """Wait in the block for a server that polls models.config; if nothing changes on it, say that it may not.

    Nobody can ask a server whether it polls. One that does not is as it was `before` the file changed.

    Raises:
        ServerTimeout: As in the block, with that as its hint.
    """
    try:
        yield
    except Abandoned:
        raise
    except ServerTimeout as late:
        with suppress(ServingRepoError):
            if remembered(server, model, deadline=deadline) == before:
                late.hint = (
                    f"nothing of {model} changed there: a server polls only if it was started with "
                    "--model_config_file_poll_wait_seconds, and --model_config_file naming this models.config; "
                    "without --reload poll it is told by RPC"
                )
        raise


def wait_available(
    server: ServingClient,
    model: str,
    versions: Collection[int],
    *,
    before: Remembered | None = None,
    base_path: str = "",
    deadline: Deadline,
) -> None:
    """Wait until the server serves all these versions: each is AVAILABLE, and answers.

    AVAILABLE alone may be old news of a version that is gone (ServingClient.answers). A server also remembers the
    failure of a version for ever (servable_state_monitor.cc). One that it told `before` the reload is old news, until
    the server has had time to look at its disk again.

    Raises:
        LoadFailed: One of them failed to load.
        ServerTimeout: They were not all available in time; the message has their states, and the likely cause where
            the server knows nothing of a version that it should have found at the `base_path`.
    """
    old, settled = before or {}, Deadline.after(_OLD_NEWS_SECONDS)
    while True:
        states = remembered(server, model, deadline=deadline)
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
        go_on(server, deadline)
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

    One that is called AVAILABLE and answers nothing is gone.

    Raises:
        ServerTimeout: Some were still there at the deadline.
    """
    while True:
        states = remembered(server, model, deadline=deadline)
        loaded = answering(server, model, states.values(), among=versions, deadline=deadline)
        left = [
            one.version
            for one in states.values()
            if one.version in versions and (one.version in loaded or one.state not in _OVER)
        ]
        if not left:
            return
        go_on(server, deadline)
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
    settle: Remembered | None = None,
    deadline: Deadline,
) -> tuple[str, ...]:
    """Wait until the server answers with none of these versions; say which of them it has not dropped yet.

    One that is still loading, or that a request in flight keeps, is dropped by the server in its own time: it
    is no longer asked for, and that is no reason to go back. But a reload takes effect only with the server's
    next look at its disk, and a load that has begun, or is about to, may end as AVAILABLE for a moment: with
    `settle`, what the server said before it was told to go back, it is given some time for that. An END that it
    told then is old news. So is an AVAILABLE whose version answers nothing: that one is gone.

    Raises:
        ServerTimeout: Some were still AVAILABLE at the deadline.
    """
    seen, loaded = (
        Deadline.after(deadline.at_most(seconds) if settle is not None else 0.0)
        for seconds in (_OLD_NEWS_SECONDS, _LOADING_SECONDS)
    )
    while True:
        states = remembered(server, model, deadline=deadline)
        known = [states[version] for version in sorted(versions) if version in states]
        answer = answering(server, model, known, among=versions, deadline=deadline)
        serving = [one for one in known if one.version in answer]
        loading = [one for one in known if one.state in {"START", "LOADING"}]
        news = [
            one
            for one in known
            if one in serving or one.state not in _OVER or one != (settle or {}).get(one.version)
        ]
        all_known = seen.passed or len(news) == len(versions)
        if not serving and all_known and (loaded.passed or not loading):
            return tuple(f"{one.version} is {one.state}" for one in known if one.state not in _OVER)
        go_on(server, deadline)
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
    """Wait until unlabelled (or labelled) requests are answered by this version: the proof of a switch.

    Raises:
        ServerTimeout: Another version still answered at the deadline, or none.
    """
    while True:
        try:
            answered = server.metadata(model, label=label, timeout=_call(deadline)).version
            said = f"version {answered} answers"
        except RequestRefused as refused:
            answered, said = None, f"it says {refused.text}"
        if answered == expected:
            return
        go_on(server, deadline)
        if deadline.passed:
            asked = f"label {label} of {model}" if label is not None else model
            raise ServerTimeout(
                f"{server.endpoint}: {asked} should be answered by version {expected}, but {said}",
                hint=f"servingrepo status {model} --endpoint {server.endpoint}",
            )
        deadline.pause(_POLL_SECONDS)


def wait_dropped(server: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until what the server is unloading of a model has gone: before the model is added again.

    A model that is removed and added at once is answered by the end of its old version (servable_state_monitor.cc):
    the reload fails although the model comes up.

    Raises:
        ServerTimeout: It was still unloading at the deadline.
    """
    states = remembered(server, model, deadline=deadline).values()
    going = [one.version for one in states if one.state == "UNLOADING"]
    if going:
        wait_gone(server, model, going, deadline=deadline)


def prove_pinned(
    server: ServingClient, model: str, versions: Collection[int], *, deadline: Deadline
) -> None:
    """See that a request for each of these very versions is answered by it.

    Raises:
        SwitchFailed: Another version answered.
        RequestRefused, ServerTimeout: As they say.
    """
    for version in sorted(versions):
        answered = server.metadata(model, version, timeout=_call(deadline)).version
        if answered != version:
            raise SwitchFailed(
                f"{server.endpoint} answered for {model}@{version} with version {answered}"
            )


def check_reachable(server: ServingClient, *, deadline: Deadline) -> None:
    """See that a TensorFlow Serving answers before anything is changed.

    Raises:
        EndpointUnreachable: None does.
    """
    go_on(server, deadline)
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


def _call(deadline: Deadline) -> float:
    # At least a moment, so that a loop at its deadline asks once more before it gives up.
    return max(deadline.at_most(_CALL_SECONDS), 0.5)


def _not_yet(status: VersionStatus | None) -> str:
    if status is None:
        return "not known to it"
    return "called AVAILABLE and does not answer" if status.state == "AVAILABLE" else status.state


def converge(
    server: ServingClient, config: ModelConfig, *, deadline: Deadline, poll: bool = False
) -> None:
    """Bring a server from whatever it serves to what a config says, and wait until it does.

    In two steps, like every switch: first what is loaded now and what is wanted, together, with the labels that
    can be set already; then the config itself. TF Serving checks a label against what is loaded when the
    reload comes. A server that polls the config's file is not told anything, only waited for.

    Raises:
        LoadFailed, ServerTimeout, RequestRefused: As they say.
    """
    bridge = config
    before = {one.name: remembered(server, one.name, deadline=deadline) for one in models(config)}
    if poll:
        for one in models(config):
            with polling(server, one.name, before[one.name], deadline=deadline):
                _wait_for_entry(server, one, before=before[one.name], deadline=deadline)
        return
    for one in models(config):
        wait_dropped(server, one.name, deadline=deadline)
        if one.policy == "specific":
            bridge = _bridged(server, bridge, one, deadline=deadline)
    if to_proto(bridge) != to_proto(config):
        send(server, bridge, deadline=deadline)
        for one in models(config):
            wait_available(
                server,
                one.name,
                one.versions,
                before=before[one.name],
                base_path=one.base_path,
                deadline=deadline,
            )
    send(server, config, deadline=deadline)
    for one in models(config):
        _wait_for_entry(server, one, before=before[one.name], deadline=deadline)


def _bridged(
    server: ServingClient, config: ModelConfig, one: Entry, *, deadline: Deadline
) -> ModelConfig:
    """Return the config in which a model also keeps what it has loaded, with labels that hold now."""
    statuses = server.status(one.name, timeout=_call(deadline))
    known = {status.version for status in statuses}
    loaded = answering(server, one.name, statuses, among=known, deadline=deadline)
    labels: dict[str, int] = {}
    for label, version in one.labels.items():
        if version in loaded:
            labels[label] = version
            continue
        # Not yet possible; where the label exists, it stays where it is until its version is loaded.
        with suppress(RequestRefused):
            labels[label] = server.metadata(one.name, label=label, timeout=_call(deadline)).version
    return pin(
        config,
        name=one.name,
        base_path=one.base_path,
        versions={*one.versions, *loaded},
        labels={label: version for label, version in labels.items() if version in loaded},
    )


def _wait_for_entry(
    server: ServingClient, one: Entry, *, before: Remembered, deadline: Deadline
) -> None:
    """Wait until a server serves what one entry says, nothing more, and answers so."""
    wait_available(
        server,
        one.name,
        one.versions,
        before=before,
        base_path=one.base_path,
        deadline=deadline,
    )
    if one.policy == "specific":
        known = server.status(one.name, timeout=_call(deadline))
        others = {status.version for status in known} - set(one.versions)
        wait_unserved(server, one.name, others, deadline=deadline)
    for label, version in sorted(one.labels.items()):
        wait_answering(server, one.name, version, label=label, deadline=deadline)
    if one.versions:
        wait_answering(server, one.name, max(one.versions), deadline=deadline)
