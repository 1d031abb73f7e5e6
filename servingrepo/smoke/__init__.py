"""Smoke tests: send the user's cases or made-up inputs to an endpoint, and return verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from

if TYPE_CHECKING:
    from servingrepo.smoke.cases import SmokeCase, load_cases
    from servingrepo.smoke.fitting import check_cases
    from servingrepo.smoke.report import SmokeReport, Verdict, judge
    from servingrepo.smoke.run import await_version, run_cases, run_smoke

__all__ = [
    "SmokeCase",
    "SmokeReport",
    "Verdict",
    "await_version",
    "check_cases",
    "judge",
    "load_cases",
    "run_cases",
    "run_smoke",
]

_HOMES = {
    "SmokeCase": "cases",
    "SmokeReport": "report",
    "Verdict": "report",
    "await_version": "run",
    "check_cases": "fitting",
    "judge": "report",
    "load_cases": "cases",
    "run_cases": "run",
    "run_smoke": "run",
}

# Importing values costs nothing. Modules that parse, check or call servers are imported at their first use.
__getattr__ = names_from(__name__, _HOMES)
