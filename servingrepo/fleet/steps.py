"""The steps of a switch on one live server: load, prove, move labels, drop. switch.py takes them on all servers.

Each step ends on all servers before the next step begins on any: so no server moves a label or drops a version while
another server may still refuse the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import SmokeFailed
from servingrepo.fleet import live
from servingrepo.fleet.plans import without_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.deadline import Deadline
    from servingrepo.fleet.plans import Plan
    from servingrepo.fleet.rules import Rules
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.servers.client import ServingClient
    from servingrepo.smoke.cases import SmokeCase


class Before(msgspec.Struct, frozen=True):
    """The states that a server named before it was asked to load the new version, and labels that were dead there.

    A label is dead when its version is not loaded: the server would refuse a config that has it.
    """

    states: live.States
    dead_labels: frozenset[str] = frozenset()


class EndpointResult(msgspec.Struct, frozen=True):
    """The proven result of a switch on one endpoint; or that it was left out, and does not follow yet."""

    endpoint: str
    outcome: str
    follows: bool = True


def note_before(server: ServingClient, plan: Plan, *, deadline: Deadline) -> Before:
    """Note the states of the model's versions, after what the server is unloading has gone."""
    states = live.states_of(server, plan.model, deadline=deadline)
    if not plan.old_pins:
        live.wait_dropped(server, plan.model, deadline=deadline)
    loaded = {one.version for one in states.values() if one.state == "AVAILABLE"}
    # A label whose version is gone makes the server refuse the whole config (UpdateModelVersionLabelMap).
    dead = frozenset(label for label, at in plan.old_labels.items() if at not in loaded)
    return Before(states, dead)


def begin_load(server: ServingClient, plan: Plan, *, deadline: Deadline) -> Before:
    """Have a server begin to load the new version beside the old one; return what it said before."""
    before = note_before(server, plan, deadline=deadline)
    between = without_labels(plan.between, plan.model, before.dead_labels)
    live.send(server, between, deadline=deadline)
    return before


def wait_loaded(
    server: ServingClient,
    plan: Plan,
    rules: Rules,
    export: Inspection | None,
    *,
    before: Before,
    deadline: Deadline,
) -> None:
    """Wait until the new versions are loaded, and prove that they answer, the user's own cases too."""
    live.wait_available(
        server,
        plan.model,
        plan.new_pins,
        before=before.states,
        base_path=plan.base_path,
        deadline=deadline,
    )
    live.prove_pinned(server, plan.model, plan.new_pins, deadline=deadline)
    if export is not None and plan.version is not None:
        probe(
            server,
            plan.model,
            plan.version,
            cases=rules.probes,
            inspection=export,
            deadline=deadline,
        )


def probe(
    server: ServingClient,
    model: str,
    version: int,
    *,
    cases: Sequence[SmokeCase],
    inspection: Inspection,
    deadline: Deadline,
) -> None:
    """Send the user's own cases to one version on a live server. Requests are never made up.

    `inspection` is of that version on disk.

    Raises:
        SmokeFailed: An answer is not what was expected, or is an error; every case that failed is listed.
        BadCase: A case does not fit what is served.
        RequestRefused, ServerTimeout, EndpointUnreachable: The server gave no answer.
    """
    from servingrepo.smoke.run import run_cases

    verdicts = run_cases(
        server, model=model, version=version, inspection=inspection, cases=cases, deadline=deadline
    )
    bad = [one for one in verdicts if one.outcome != "passed"]
    if bad:
        raise SmokeFailed(
            f"{server.endpoint} does not answer {len(bad)} of {len(verdicts)} probe cases with "
            f"{model}@{version} as expected",
            problems=[f"{one.source or one.signature}: {one.reason or one.outcome}" for one in bad],
            hint=f"servingrepo smoke {model}@{version} --case FILE tries the same elsewhere",
        )


def wait_labelled(server: ServingClient, plan: Plan, *, deadline: Deadline) -> None:
    """Wait until each label is answered by its version."""
    for label, version in sorted(plan.new_labels.items()):
        live.wait_answering(server, plan.model, version, label=label, deadline=deadline)


def wait_final(
    server: ServingClient, plan: Plan, *, probes: int = 0, deadline: Deadline
) -> EndpointResult:
    """Wait until unwanted versions are unloaded; prove who answers unlabelled, pinned and labelled requests.

    `probes` is the number of the user's own cases that the server has answered.
    """
    gone = set(plan.old_pins) - set(plan.new_pins)
    left = live.wait_unserved(server, plan.model, gone, deadline=deadline)
    if plan.version is not None:
        live.wait_answering(server, plan.model, max(plan.new_pins), deadline=deadline)
        live.prove_pinned(server, plan.model, plan.new_pins, deadline=deadline)
    wait_labelled(server, plan, deadline=deadline)
    tried = f"{probes} probe case{'s' if probes > 1 else ''}" if probes else "GetModelMetadata"
    said = f"{plan.model}@{max(plan.new_pins)} answers {tried}" if plan.new_pins else "unloaded"
    if plan.new_labels:
        listed = sorted(plan.new_labels.items())
        said += "; " + ", ".join(f"{label} is {version}" for label, version in listed)
    later = f"; {', '.join(left)}, and dropped by the server in its own time" if left else ""
    return EndpointResult(str(server.endpoint), said + later)
