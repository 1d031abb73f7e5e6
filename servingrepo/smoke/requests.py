"""Send one smoke request to exactly one version, and judge the answer.

An answer from another version, or with other names, dtypes or shapes than declared, is a fault of the model or the
server, whatever the data were. NaN, infinity and errors that data may cause are a fault only if the user vouches for
the data.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import EndpointUnreachable, RequestRefused, ServerTimeout
from servingrepo.protos import classification_pb2, predict_pb2, regression_pb2
from servingrepo.smoke.answers import (
    check_classification,
    check_outputs,
    check_regression,
    check_version,
    classification_outputs,
    not_finite,
    read_outputs,
    regression_outputs,
    shape_problems,
)
from servingrepo.smoke.fitting import Fitted
from servingrepo.smoke.report import Outcome
from servingrepo.smoke.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from servingrepo.deadline import Deadline
    from servingrepo.savedmodel.values import Signature
    from servingrepo.servers.client import ServingClient
    from servingrepo.smoke.cases import SmokeCase

__all__ = ["Result", "Target", "fill_input", "send_case", "send_examples", "send_predict"]

_REQUEST_SECONDS = 60.0
"""The longest wait for one answer. The first request to a model may take long, because it compiles and allocates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of requests: a client, exactly one version of one model, and a deadline.

    `patience` is the longest wait for one answer, in seconds.
    """

    client: ServingClient
    model: str
    version: int
    deadline: Deadline
    patience: float = _REQUEST_SECONDS

    @property
    def timeout(self) -> float:
        """Seconds for the next request."""
        return self.deadline.at_most(self.patience)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one request.

    `final` says that an answer breaks the signature's promise: then other data are of no use. `outputs` are those of
    the answer: of Classify `classes` and `scores`, of Regress `outputs`. `code` and `text` are those of a refusal.
    `sent` is the request, if its data were made up.
    """

    outcome: Outcome
    reason: str
    milliseconds: float
    final: bool = False
    outputs: dict[str, Tensor] = {}
    code: str = ""
    text: str = ""
    sent: Fitted | None = None


def send_case(target: Target, case: SmokeCase, fitted: Fitted) -> Result:
    """Send a user's case and check the answer. A case that is not answered in the time of one request fails."""
    if fitted.api == "Predict":
        expected = case.expect.outputs if case.expect is not None else {}
        result = send_predict(
            target,
            fitted.signature,
            fitted.inputs,
            guessed=False,
            vouched=True,
            not_numbers=[alias for alias, one in expected.items() if not one.finite],
        )
    else:
        result = send_examples(
            target,
            fitted.signature,
            fitted.examples,
            regress=fitted.api == "Regress",
            vouched=True,
            context=fitted.context,
        )
    if result.outcome == "inconclusive" and not target.deadline.passed:
        return msgspec.structs.replace(result, outcome="failed")
    return result


def send_predict(
    target: Target,
    signature: Signature,
    inputs: Mapping[str, Any],
    *,
    guessed: bool,
    vouched: bool,
    not_numbers: Collection[str] = (),
) -> Result:
    """Send a PredictRequest and check the answer.

    Args:
        target: The client and the version.
        signature: The signature that the answer must fit.
        inputs: TensorProtos by alias.
        guessed: The rank of an input was guessed, so a shape that does not fit proves nothing.
        vouched: The data are a user's, who vouches for them.
        not_numbers: Outputs that may have NaN and infinity.
    """
    request = predict_pb2.PredictRequest()
    _address(request, target, signature)
    for alias, tensor in inputs.items():
        request.inputs[alias].CopyFrom(tensor)

    def check(reply: Any) -> tuple[list[str], list[str], dict[str, Tensor]]:
        outputs, wrong = read_outputs(reply)
        wrong += check_outputs(outputs, signature)
        numbers = {alias: one for alias, one in outputs.items() if alias not in not_numbers}
        doubtful = not_finite(numbers)
        (doubtful if guessed and not vouched else wrong).extend(shape_problems(outputs, signature))
        return wrong, doubtful, outputs

    return _send(
        target, request, target.client.predict, check, vouched=vouched, has_data=bool(inputs)
    )


def send_examples(
    target: Target,
    signature: Signature,
    examples: Sequence[Any],
    *,
    regress: bool,
    vouched: bool,
    context: Any = None,
) -> Result:
    """Send tf.Examples through Classify, or through Regress, and check the answer."""
    request = (
        regression_pb2.RegressionRequest if regress else classification_pb2.ClassificationRequest
    )()
    _address(request, target, signature)
    fill_input(request, examples, context)
    count = len(examples)

    def check(reply: Any) -> tuple[list[str], list[str], dict[str, Tensor]]:
        found = check_regression(reply, count) if regress else check_classification(reply, count)
        read = regression_outputs if regress else classification_outputs
        return *found, read(reply)

    send = target.client.regress if regress else target.client.classify
    return _send(target, request, send, check, vouched=vouched, has_data=True)


def fill_input(request: Any, examples: Sequence[Any], context: Any) -> None:
    """Put tf.Examples into a request for Classify or Regress."""
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.examples.extend(examples)
        request.input.example_list_with_context.context.CopyFrom(context)


def _address(request: Any, target: Target, signature: Signature) -> None:
    request.model_spec.name = target.model
    request.model_spec.version.value = target.version
    request.model_spec.signature_name = signature.key


def _send(
    target: Target,
    request: Any,
    send: Callable[..., Any],
    check: Callable[[Any], tuple[list[str], list[str], dict[str, Tensor]]],
    *,
    vouched: bool,
    has_data: bool,
) -> Result:
    started = time.monotonic()

    def result(
        outcome: Outcome,
        reason: str,
        outputs: dict[str, Tensor] | None = None,
        *,
        final: bool = False,
    ) -> Result:
        return Result(
            outcome=outcome,
            reason=reason,
            milliseconds=round((time.monotonic() - started) * 1000, 3),
            final=final,
            outputs=outputs or {},
        )

    certain = vouched or not has_data  # without data, an error cannot be the data's fault
    try:
        reply = send(request, timeout=target.timeout)
    except RequestRefused as refused:
        outcome = "failed" if certain else _classify_refusal(refused)
        found = result(outcome, f"{refused.code}: {refused.text}")
        return msgspec.structs.replace(found, code=refused.code, text=refused.text)
    except ServerTimeout as late:
        return result("inconclusive", late.message)
    except EndpointUnreachable as gone:
        raise EndpointUnreachable(
            f"{gone.message}; the server went away during a request to signature "
            f"{request.model_spec.signature_name}",
            hint="the model may crash the server: see the last lines of its log",
        ) from gone
    wrong, doubtful, outputs = check(reply)
    wrong = check_version(reply, target.version) + wrong
    if wrong or (doubtful and certain):
        return result("failed", "; ".join(wrong + doubtful), outputs, final=bool(wrong))
    if doubtful:
        return result("inconclusive", "; ".join(doubtful), outputs)
    return result("passed", "", outputs)


# Errors from a server: is the model at fault, or could it be the data?
#
# An error is `failed` only if no data could avoid it. Every other error is inconclusive, because made-up data may be
# nonsense to a good model. Codes and texts are those of TensorFlow Serving 2.19 and its TensorFlow.

_NO_DATA_HELPS = re.compile(
    r"Expects arg\[\d+\] to be \w+ but \w+ is provided"
    r"|No OpKernel was registered"
    r"|Op type not registered"
    r"|Cannot assign a device for operation"
    r"|You must feed a value for placeholder"
    r"|was not found in the [Gg]raph"
    r"|FetchOutputs node"
    r"|uninitialized value"
    r"|Could not find variable"
    r"|[Rr]esource .* does not exist"
    r"|[Tt]able not initialized"
    r"|only supports? (?:the )?NHWC"
    r"|Expected prediction signature method_name"
)
_FAILED_CODES = frozenset({"FAILED_PRECONDITION", "NOT_FOUND", "UNIMPLEMENTED", "INTERNAL"})
_FROM_A_NAME = re.compile(r"No such file or directory")


def _classify_refusal(refused: RequestRefused) -> Outcome:
    """Judge the refusal of a request with made-up data: is the model at fault?"""
    if _NO_DATA_HELPS.search(refused.text):
        return "failed"
    if refused.code == "NOT_FOUND" and _FROM_A_NAME.search(refused.text):
        return "inconclusive"  # a made-up string was taken for the name of a file
    return "failed" if refused.code in _FAILED_CODES else "inconclusive"
