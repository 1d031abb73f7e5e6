"""Requests of one's own that a live server must answer with exactly the new version. None are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import SmokeFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.deadline import Deadline
    from servingrepo.savedmodel import Inspection
    from servingrepo.servers.client import ServingClient
    from servingrepo.smoke import SmokeCase


def probe(
    client: ServingClient,
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
        client, model=model, version=version, inspection=inspection, cases=cases, deadline=deadline
    )
    bad = [one for one in verdicts if one.outcome != "passed"]
    if bad:
        raise SmokeFailed(
            f"{client.endpoint} does not answer {len(bad)} of {len(verdicts)} probe cases with "
            f"{model}@{version} as expected",
            problems=[f"{one.source or one.signature}: {one.reason or one.outcome}" for one in bad],
            hint=f"servingrepo smoke {model}@{version} --case FILE tries the same elsewhere",
        )
