"""The lines about a proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.cli.proofs import proof_lines
from servingrepo.repository.records import Proof
from servingrepo.smoke.report import SmokeReport, Verdict

if TYPE_CHECKING:
    from servingrepo.smoke.report import Outcome


@pytest.mark.parametrize(("outcome", "says"), [("inconclusive", True), ("passed", False)])
def test_what_is_not_proven_names_the_command_that_proves_it(
    outcome: Outcome, *, says: bool
) -> None:
    verdict = Verdict(signature="serving_default", api="Predict", outcome=outcome)
    report = SmokeReport(
        model="m",
        version=2,
        endpoint="unix",
        signatures=("serving_default",),
        verdicts=(verdict,),
    )
    proof = Proof(engine="embedded", server="TensorFlow", time="", staged=False, report=report)
    lines = list(proof_lines(proof, "m@2"))
    remedy = "            real data would prove it: servingrepo smoke m@2 --case FILE"
    assert (remedy in lines) is says
