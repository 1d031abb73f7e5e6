"""Smoke tests: cases, made-up inputs, verdicts, against an endpoint that is given."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servingrepo.smoke.cases import SmokeCase, load_cases
    from servingrepo.smoke.fitting import check_cases
    from servingrepo.smoke.report import SmokeReport, Verdict, judge
    from servingrepo.smoke.run import await_version, run_smoke

__all__ = [
    "SmokeCase",
    "SmokeReport",
    "Verdict",
    "await_version",
    "check_cases",
    "judge",
    "load_cases",
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
    "run_smoke": "run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for and no more: records need the values, and must not pay for the rest."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
