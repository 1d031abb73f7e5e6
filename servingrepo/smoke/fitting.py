"""Turn a case's JSON into a request for a signature, or list all that does not fit.

The rules are those of TensorFlow Serving's REST API (util/json_tensor.cc): lists nest without gaps, integer types
take integers only, strings are text or `{"b64": "..."}`. One rule is more tolerant: where the graph says that a
feature is a float, JSON may have an integer. Arrays and messages must have the very dtype of the signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import BadCase
from servingrepo.protos import example_pb2, tensor_pb2
from servingrepo.savedmodel.signatures import dtype_name
from servingrepo.savedmodel.values import Signature
from servingrepo.smoke.expectations import as_bytes, differences, flatten, short
from servingrepo.smoke.report import Api
from servingrepo.smoke.tensors import FLOATING, INTEGERS, Array, Tensor, array_tensor, make_tensor

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

_MOST_PROBLEMS = 1000
_KINDS = {"bytes_list": "string", "float_list": "float32", "int64_list": "int64"}


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
    problems: list[str] = []
    for case in cases:
        try:
            fit_case(case, inspection)
        except Misfit as misfit:
            problems += [f"{case.file}#{case.position}: {text}" for text in misfit.problems]
            if len(problems) >= _MOST_PROBLEMS:
                problems.append("what follows was not checked")
                break
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
    if case.problems:
        raise Misfit(list(case.problems))
    signature = inspection.signature(case.signature or _default_signature(case, inspection))
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


def _default_signature(case: SmokeCase, inspection: Inspection) -> str:
    """Return the signature that is meant where a file of data names none.

    Raises:
        Misfit: Several could be meant.
    """
    keys = [one.key for one in inspection.signatures]
    if case.form == "examples":
        keys = [key for key in keys if _takes_examples(key, inspection)]
        if len(keys) != 1 and "serving_default" not in keys:
            listed = ", ".join(keys) or "none"
            raise Misfit(
                [
                    (
                        f"it names no signature, and of those that take tf.Examples there is {listed}: "
                        "name one in a document, beside file"
                    )
                ]
            )
    return "serving_default" if "serving_default" in keys or len(keys) != 1 else keys[0]


def _takes_examples(key: str, inspection: Inspection) -> bool:
    signature = inspection.signature(key)
    declared = APIS.get(signature.method_name) if signature is not None else None
    return declared is not None or any(one.signature == key for one in inspection.examples)


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
        difference = differences(value, outputs[alias], rtol=case.rtol, atol=case.atol)
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
    if isinstance(value, Array):
        if value.dtype != spec.dtype:
            raise ValueError(
                f"it is {value.dtype}, and the signature wants {spec.dtype}: convert it first"
            )
        return array_tensor(value)
    if isinstance(value, tensor_pb2.TensorProto):
        if dtype_name(value.dtype) != spec.dtype:
            raise ValueError(
                f"it is {dtype_name(value.dtype)}, and the signature wants {spec.dtype}"
            )
        return value
    shape, flat = flatten(value)
    if spec.dtype not in FLOATING or set(map(type, flat)) != {float}:
        flat = [_scalar(one, spec.dtype) for one in flat]
    return make_tensor(spec.dtype, shape, flat)


def _scalar(value: Any, dtype: str) -> Any:
    if dtype == "string":
        return as_bytes(value)
    if dtype == "bool":
        if isinstance(value, bool):
            return value
    elif dtype in INTEGERS:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{short(value)} is no {dtype}")


def _fit_examples(case: SmokeCase, signature: Signature, inspection: Inspection) -> Fitted:
    declared = APIS.get(signature.method_name, "Predict")
    takers = [one for one in inspection.examples if one.signature == signature.key]
    features = {one.key: one for taker in takers for one in taker.features}
    problems: list[str] = []
    # The context gives its features to all examples, so these need not repeat them.
    context = None
    if case.context is not None:
        context = _example(case.context, features, "context", problems)
    given = set(context.features.feature) if context is not None else set()
    needed = {key for key, one in features.items() if not one.has_default} - given
    examples: list[Any] = []
    for place, value in enumerate(case.data):
        where = f"examples[{place}]"
        examples.append(_example(value, features, where, problems))
        if isinstance(value, dict | example_pb2.Example):
            missing = sorted(needed - examples[-1].features.feature.keys())
            problems += [f"{where}: feature {key} is missing" for key in missing]
    if not case.data:
        problems.append("there is no tf.Example")
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
    if isinstance(value, example_pb2.Example):
        problems += [
            f"{where}: feature {key} is {found}, and the graph wants {features[key].dtype}"
            for key, one in value.features.feature.items()
            if key in features
            and (found := _KINDS.get(one.WhichOneof("kind"), "")) not in {"", features[key].dtype}
        ]
        return value
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
