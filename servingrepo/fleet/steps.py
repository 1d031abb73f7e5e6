"""The steps of a switch on one live server: be told, load, prove, move labels, drop. switch.py takes them in turn.

Each step ends before any server begins the next, so that no server moves a label or drops a version while another
may still refuse the new one.
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
    from servingrepo.savedmodel import Inspection
    from servingrepo.servers.client import ServingClient
    from servingrepo.smoke import SmokeCase


class Told(msgspec.Struct, frozen=True):
    """What a server said before it was told of the new version, and labels that could not hold on it then."""

    before: live.Remembered
    dead: frozenset[str] = frozenset()


class EndpointResult(msgspec.Struct, frozen=True):
    """What one endpoint was proven to do after a switch; or that it was left out, and does not follow yet."""

    endpoint: str
    outcome: str
    follows: bool = True


def look(server: ServingClient, plan: Plan, *, deadline: Deadline) -> Told:
    """Note what a server says of the model, once nothing of it is being unloaded to be added again."""
    before = live.remembered(server, plan.model, deadline=deadline)
    if not plan.old_pins:
        live.wait_dropped(server, plan.model, deadline=deadline)
    loaded = {one.version for one in before.values() if one.state == "AVAILABLE"}
    # A label whose version is gone makes the server refuse the whole config (UpdateModelVersionLabelMap).
    dead = frozenset(label for label, at in plan.old_labels.items() if at not in loaded)
    return Told(before, dead)


def tell(server: ServingClient, plan: Plan, *, deadline: Deadline) -> Told:
    """Have a server begin to load the new version beside the old one."""
    told = look(server, plan, deadline=deadline)
    between = without_labels(plan.between, plan.model, told.dead)
    live.send(server, between, deadline=deadline)
    return told


def wait_loaded(
    server: ServingClient,
    plan: Plan,
    rules: Rules,
    export: Inspection | None,
    *,
    told: Told,
    deadline: Deadline,
) -> None:
    """Wait until the new versions are loaded, and see that they answer, and answer the user's own cases."""
    live.wait_available(
        server,
        plan.model,
        plan.new_pins,
        before=told.before,
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
    """Send cases to one version on a live server; `inspection` is what that version is on disk.

    Raises:
        SmokeFailed: An answer is not what was expected, or is an error; every case that failed is listed.
        BadCase: A case does not fit what is served.
        RequestRefused, ServerTimeout, EndpointUnreachable: As they say.
    """
    from servingrepo.smoke import run_cases

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
    """Wait until what is no longer wanted is unloaded, and see who answers then: unlabelled, pinned, labelled.

    `probes` is how many requests of the user's own the server has answered.
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
