"""One export: layout, signatures, features, fingerprint; read only, and nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from

if TYPE_CHECKING:
    from servingrepo.savedmodel.files import layout_defect
    from servingrepo.savedmodel.inspection import Inspection, inspect_export, refuse_defects
    from servingrepo.savedmodel.tensors import Tensors
    from servingrepo.savedmodel.values import (
        Defect,
        Demands,
        Effect,
        ExampleInput,
        Feature,
        Fingerprint,
        FingerprintField,
        Signature,
        TensorCheck,
        TensorDamage,
        TensorSpec,
        Warmup,
    )
    from servingrepo.savedmodel.variables import Variables, read_variables

__all__ = [
    "Defect",
    "Demands",
    "Effect",
    "ExampleInput",
    "Feature",
    "Fingerprint",
    "FingerprintField",
    "Inspection",
    "Signature",
    "TensorCheck",
    "TensorDamage",
    "TensorSpec",
    "Tensors",
    "Variables",
    "Warmup",
    "inspect_export",
    "layout_defect",
    "read_variables",
    "refuse_defects",
]

_HOMES = {
    "Defect": "values",
    "Demands": "values",
    "Effect": "values",
    "ExampleInput": "values",
    "Feature": "values",
    "Fingerprint": "values",
    "FingerprintField": "values",
    "Inspection": "inspection",
    "Signature": "values",
    "TensorCheck": "values",
    "TensorDamage": "values",
    "TensorSpec": "values",
    "Tensors": "tensors",
    "Variables": "variables",
    "Warmup": "values",
    "inspect_export": "inspection",
    "layout_defect": "files",
    "read_variables": "variables",
    "refuse_defects": "inspection",
}

# Values cost nothing to import; what parses, checks or talks is imported when it is asked for.
__getattr__ = names_from(__name__, _HOMES)
