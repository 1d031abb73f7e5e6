"""One export: layout, signatures, features, fingerprint; read only, and nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from

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

# Values cost nothing to import; what parses, checks or talks is imported when it is asked for.
__getattr__ = names_from(__name__, _HOMES)
