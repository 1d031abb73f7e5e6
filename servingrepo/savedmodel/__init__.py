"""One export: layout, signatures, features, fingerprint; read only, and nothing is run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servingrepo.savedmodel.inspection import Inspection, inspect_export
    from servingrepo.savedmodel.values import (
        Defect,
        ExampleInput,
        Feature,
        Fingerprint,
        FingerprintField,
        Signature,
        TensorSpec,
    )

__all__ = [
    "Defect",
    "ExampleInput",
    "Feature",
    "Fingerprint",
    "FingerprintField",
    "Inspection",
    "Signature",
    "TensorSpec",
    "inspect_export",
]

_HOMES = {
    "Defect": "values",
    "ExampleInput": "values",
    "Feature": "values",
    "Fingerprint": "values",
    "FingerprintField": "values",
    "Inspection": "inspection",
    "Signature": "values",
    "TensorSpec": "values",
    "inspect_export": "inspection",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for and no more: records need the values, and must not pay for the rest."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
