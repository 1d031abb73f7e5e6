"""Turn a case's JSON into a request for a signature, or list all that does not fit.

The rules are those of TensorFlow Serving's REST API (util/json_tensor.cc): lists nest without gaps, integer types
take integers only, strings are text or `{"b64": "..."}`. One rule is more tolerant: where the graph says that a
feature is a float, JSON may have an integer.
"""

from __future__ import annotations

import base64
import binascii
import cmath
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import BadCase
from servingrepo.protos import example_pb2
from servingrepo.savedmodel.values import Signature
from servingrepo.smoke.report import Api
from servingrepo.smoke.tensors import FLOATING, INTEGERS, Tensor, make_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import Feature, TensorSpec
    from servingrepo.smoke.cases import SmokeCase

__all__ = ["APIS", "Fitted", "Misfit", "check_cases", "check_expected", "fit_case"]

APIS: dict[str, Api] = {
    "tensorflow/serving/classify": "Classify",
    "tensorflow/serving/regress": "Regress",
}


class Misfit(Exception):
    """A case does not fit its signature; `problems` has all reasons."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A case as a request: inputs by alias for Predict, or tf.Examples for Classify and Regress."""

    signature: Signature
    api: Api
    inputs: dict[str, Any] = {}
    examples: tuple[Any, ...] = ()
    context: Any = None


def check_cases(cases: Iterable[SmokeCase], inspection: Inspection) -> None:
    """Check that every case fits the export.

    Raises:
        BadCase: Some do not; the error lists the file, position and problem of each.
    """
    problems = []
    for case in cases:
        try:
            fit_case(case, inspection)
        except Misfit as misfit:
            problems += [f"{case.file}#{case.position}: {text}" for text in misfit.problems]
    if problems:
        raise BadCase(
            f"smoke cases do not fit the signatures of {inspection.path}",
            hint="compare the cases with the signatures of the export",
            problems=problems,
        )


def fit_case(case: SmokeCase, inspection: Inspection) -> Fitted:
    """Turn a case into a request.

    Raises:
        Misfit: The case does not fit the export's signatures.
    """
    signature = inspection.signature(case.signature)
    if signature is None:
        known = ", ".join(one.key for one in inspection.signatures) or "none"
        raise Misfit([f"there is no signature {case.signature!r}; there is {known}"])
    if case.form == "examples":
        return _fit_examples(case, signature, inspection)
    problems: list[str] = []
    columns = (
        _columns_of_rows(case.data, signature, problems)
        if case.form == "instances"
        else _columns(case.data, signature, problems)
    )
    inputs = {}
    for spec in signature.inputs:
        if spec.alias in columns:
            try:
                inputs[spec.alias] = _tensor(columns[spec.alias], spec)
            except ValueError as error:
                problems.append(f"input {spec.alias}: {error}")
    if problems:
        raise Misfit(problems)
    return Fitted(signature=signature, api="Predict", inputs=inputs)


def check_expected(case: SmokeCase, outputs: Mapping[str, Tensor]) -> list[str]:
    """Return a problem for each output that differs from the expected one; none if the case expects nothing."""
    if case.expected_form is None:
        return []
    wanted = case.expected
    if case.expected_form == "predictions":
        rows = wanted if isinstance(wanted, list) else []
        if rows and all(isinstance(row, dict) and "b64" not in row for row in rows):
            aliases = sorted({alias for row in rows for alias in row})
            wanted = {alias: [row.get(alias) for row in rows] for alias in aliases}
    if not isinstance(wanted, dict) or "b64" in wanted:
        if len(outputs) != 1:
            return ["the expected value does not name its output, and there are several outputs"]
        wanted = dict.fromkeys(outputs, wanted)
    problems = []
    for alias, value in wanted.items():
        if alias not in outputs:
            problems.append(f"output {alias} is expected, but not there")
            continue
        difference = _difference(value, outputs[alias], case)
        if difference:
            problems.append(f"output {alias}: {difference}")
    return problems


def _columns_of_rows(
    rows: list[Any], signature: Signature, problems: list[str]
) -> dict[str, list[Any]]:
    aliases = {spec.alias for spec in signature.inputs}
    columns: dict[str, list[Any]] = {alias: [] for alias in aliases}
    only = next(iter(aliases)) if len(aliases) == 1 else None
    for place, row in enumerate(rows):
        named = isinstance(row, dict) and "b64" not in row
        if only is not None and not named:
            columns[only].append(row)
        elif not named:
            problems.append(f"instances[{place}] must be an object with all inputs by name")
        elif row.keys() != aliases:
            problems += _name_problems(f"instances[{place}]", row, aliases)
        else:
            for alias in aliases:
                columns[alias].append(row[alias])
    return {} if problems else columns


def _columns(data: Any, signature: Signature, problems: list[str]) -> dict[str, Any]:
    aliases = {spec.alias for spec in signature.inputs}
    if isinstance(data, dict) and "b64" not in data:
        needed = {spec.alias for spec in signature.inputs if not spec.has_default}
        if not needed <= data.keys() <= aliases:
            problems += _name_problems("inputs", data, aliases, needed)
            return {}
        return data
    if len(aliases) == 1:
        return {next(iter(aliases)): data}
    problems.append("inputs must be an object with all inputs by name")
    return {}


def _name_problems(
    where: str, found: Mapping[str, Any], known: set[str], needed: set[str] | None = None
) -> list[str]:
    missing = sorted((known if needed is None else needed) - found.keys())
    extra = sorted(found.keys() - known)
    return [f"{where}: input {name} is missing" for name in missing] + [
        f"{where}: the signature has no input {name}" for name in extra
    ]


def _tensor(value: Any, spec: TensorSpec) -> Any:
    shape, flat = _flatten(value)
    return make_tensor(spec.dtype, shape, [_scalar(one, spec.dtype) for one in flat])


def _flatten(value: Any) -> tuple[list[int], list[Any]]:
    """Return the shape and the elements of nested lists. It goes level by level, so that depth costs no stack."""
    shape: list[int] = []
    level = [value]
    while level and all(isinstance(one, list) for one in level):
        sizes = {len(one) for one in level}
        if len(sizes) != 1:
            raise ValueError(f"lists of different lengths: {', '.join(map(str, sorted(sizes)))}")
        shape.append(sizes.pop())
        level = [inner for one in level for inner in one]
    if any(isinstance(one, list) for one in level):
        raise ValueError("lists and plain values are mixed")
    return shape, level


def _scalar(value: Any, dtype: str) -> Any:
    if dtype == "string":
        return _bytes(value)
    if dtype == "bool":
        if isinstance(value, bool):
            return value
    elif dtype in INTEGERS:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{_short(value)} is no {dtype}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the text of b64 is no base64: {error}") from error
    raise ValueError(f"{_short(value)} is no string")


def _fit_examples(case: SmokeCase, signature: Signature, inspection: Inspection) -> Fitted:
    declared = APIS.get(signature.method_name, "Predict")
    takers = [one for one in inspection.examples if one.signature == signature.key]
    features = {one.key: one for taker in takers for one in taker.features}
    problems: list[str] = []
    # The context gives its features to all examples, so these need not repeat them.
    needed = {key for key, one in features.items() if not one.has_default} - set(case.context or ())
    examples = []
    for place, value in enumerate(case.data):
        where = f"examples[{place}]"
        examples.append(_example(value, features, where, problems))
        if isinstance(value, dict):
            missing = sorted(needed - value.keys())
            problems += [f"{where}: feature {key} is missing" for key in missing]
    context = None
    if case.context is not None:
        context = _example(case.context, features, "context", problems)
    if declared == "Predict" and (len(takers) != 1 or len(signature.inputs) != 1):
        problems.append(f"signature {signature.key} takes no tf.Examples")
    if problems:
        raise Misfit(problems)
    if declared != "Predict":
        return Fitted(signature=signature, api=declared, examples=tuple(examples), context=context)
    head = b"" if context is None else context.SerializeToString(deterministic=True)
    # To append one serialized message to another merges them. A server adds the context in the same way.
    values = [head + one.SerializeToString(deterministic=True) for one in examples]
    if takers[0].single and len(values) != 1:
        raise Misfit([f"signature {signature.key} takes one tf.Example at a time"])
    shape = [] if takers[0].single else [len(values)]
    tensor = make_tensor("string", shape, values)
    return Fitted(signature=signature, api="Predict", inputs={takers[0].alias: tensor})


def _example(value: Any, features: Mapping[str, Feature], where: str, problems: list[str]) -> Any:
    example = example_pb2.Example()
    if not isinstance(value, dict):
        problems.append(f"{where} must be an object of features")
        return example
    for key, content in value.items():
        try:
            _add_feature(example.features.feature[key], content, features.get(key))
        except ValueError as error:
            problems.append(f"{where}: feature {key}: {error}")
    return example


def _add_feature(target: Any, content: Any, feature: Feature | None) -> None:
    values = content if isinstance(content, list) else [content]
    dtype = feature.dtype if feature is not None else _guess_dtype(values)
    scalars = [_scalar(one, dtype) for one in values]
    if dtype == "string":
        target.bytes_list.value.extend(scalars)
    elif dtype in FLOATING:
        target.float_list.value.extend(scalars)
    elif dtype == "int64":
        try:
            target.int64_list.value.extend(scalars)
        except (ValueError, OverflowError) as error:
            raise ValueError("a value is no int64") from error
    else:
        raise ValueError(f"a tf.Example cannot hold values of type {dtype}")


def _guess_dtype(values: list[Any]) -> str:
    """Guess the dtype of a feature that the graph does not define, as the REST API guesses it."""
    if any(isinstance(one, str | dict) for one in values):
        return "string"
    return "float32" if any(isinstance(one, float) for one in values) else "int64"


def _difference(wanted: Any, tensor: Tensor, case: SmokeCase) -> str:
    try:
        shape, flat = _flatten(wanted)
        values = [_bytes(one) if tensor.dtype == "string" else one for one in flat]
    except ValueError as error:
        return f"the expected value cannot be read: {error}"
    if tuple(shape) != tensor.shape:
        return f"expected the shape {shape}, got {list(tensor.shape)}"
    for place, (want, got) in enumerate(zip(values, tensor.values, strict=True)):
        if not _close(want, got, case):
            return f"element {place} is {_short(got)}, expected {_short(want)}"
    return ""


def _close(want: Any, got: Any, case: SmokeCase) -> bool:
    numbers = (int, float, complex)
    if isinstance(want, bool) or not isinstance(want, numbers) or not isinstance(got, numbers):
        return bool(type(want) is type(got) and want == got)
    # The rule of numpy.isclose: atol + rtol * |expected|.
    return want == got or (
        cmath.isfinite(want)
        and cmath.isfinite(got)
        and abs(got - want) <= case.atol + case.rtol * abs(want)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - room in one line
