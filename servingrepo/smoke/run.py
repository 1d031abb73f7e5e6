"""Smoke-test one version on a running server, and return a verdict for each signature.

A smoke test waits for exactly that version, compares its served signatures with the export, and sends requests. It
does not decide on a promotion: `judge` and the caller do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from servingrepo.errors import LoadFailed, ServerTimeout
from servingrepo.savedmodel.signatures import signatures_from
from servingrepo.smoke.fitting import APIS, check_cases, check_expected, fit_case
from servingrepo.smoke.inputs import CannotMakeUp, made_up_examples, made_up_tensors
from servingrepo.smoke.report import Api, SmokeReport, Verdict
from servingrepo.smoke.requests import Result, Target, send_examples, send_predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from servingrepo.deadline import Deadline
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import Signature, TensorSpec
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import VersionStatus
    from servingrepo.smoke.cases import SmokeCase

__all__ = ["await_version", "run_cases", "run_smoke"]

POLL_SECONDS = 0.05
STATUS_SECONDS = 10.0
LAST_CALL_SECONDS = 0.5


def run_smoke(
    client: ServingClient,
    *,
    model: str,
    version: int,
    inspection: Inspection,
    cases: Sequence[SmokeCase] = (),
    deadline: Deadline,
) -> SmokeReport:
    """Send at least one request to every servable signature of one version, and return the verdicts.

    A signature with cases gets these; any other one gets made-up data.

    Args:
        client: The client of the server.
        model: The name under which the server has the model.
        version: The version that must answer; every request names it.
        inspection: The export as it is on disk.
        cases: The user's own requests.
        deadline: The end of the wait for the version and for all answers. A signature for which no time is left is
            inconclusive.

    Raises:
        BadCase: A case does not fit the export; nothing was sent.
        LoadFailed: The server could not load the version; the message has the server's reason.
        ServerTimeout: The version was not available in time.
        EndpointUnreachable: The server is gone.
        RequestRefused: The server serves the version but does not return its signatures.
    """
    check_cases(cases, inspection)
    await_version(client, model=model, version=version, deadline=deadline)
    target = Target(client=client, model=model, version=version, deadline=deadline)
    verdicts = list(_compare(target, inspection))
    with_cases = {case.signature for case in cases}
    verdicts += [_run_case(target, case, inspection) for case in cases]
    verdicts += [
        _made_up(target, signature, inspection)
        for signature in inspection.signatures
        if signature.key not in with_cases
    ]
    return SmokeReport(
        model=model,
        version=version,
        endpoint=str(client.endpoint),
        signatures=tuple(one.key for one in inspection.signatures),
        verdicts=tuple(verdicts),
    )


def run_cases(
    client: ServingClient,
    *,
    model: str,
    version: int,
    inspection: Inspection,
    cases: Sequence[SmokeCase],
    deadline: Deadline,
) -> tuple[Verdict, ...]:
    """Send the user's own cases to one version, and return a verdict for each.

    This is for live servers, which never get made-up data: a model may have state, and only its owner knows which
    requests are harmless.

    Raises:
        BadCase: A case does not fit the export; nothing was sent.
    """
    check_cases(cases, inspection)
    target = Target(client=client, model=model, version=version, deadline=deadline)
    return tuple(_run_case(target, case, inspection) for case in cases)


def await_version(client: ServingClient, *, model: str, version: int, deadline: Deadline) -> None:
    """Return once exactly this version is AVAILABLE and answers. The state alone may be out of date; see `answers`.

    Raises:
        LoadFailed: The version could not be loaded.
        ServerTimeout: The version was not available in time.
        EndpointUnreachable: No server answers at the endpoint.
    """
    state = "not known to the server"
    while True:
        found: tuple[VersionStatus, ...] = ()
        try:
            # The last call gets a moment too: if it had no time, its error would hide the state known so far.
            timeout = max(deadline.at_most(STATUS_SECONDS), LAST_CALL_SECONDS)
            found = client.status(model, version, timeout=timeout)
        except ServerTimeout:
            state = "unknown: the server does not answer"
        for one in found:
            if one.version != version:
                continue
            if one.state == "AVAILABLE":
                if client.answers(model, version, timeout=timeout):
                    return
                state = "AVAILABLE, but it does not answer"
                continue
            state = one.state
            # END without an error is an earlier, normal unload, which a server never forgets.
            if one.state == "END" and (one.code != 0 or one.error):
                raise LoadFailed(
                    f"{client.endpoint} could not load {model} version {version}: {one.error}",
                    hint="a version that failed is never tried again: repair the export and "
                    "publish it under a new number",
                    details={"code": one.code, "text": one.error},
                )
        if deadline.passed:
            raise ServerTimeout(
                f"{client.endpoint} did not have {model} version {version} available within "
                f"{deadline.seconds:.3g} s: its state is {state}",
                hint="read the server's log, or wait longer",
            )
        deadline.pause(POLL_SECONDS)


def _compare(target: Target, inspection: Inspection) -> Iterator[Verdict]:
    """Yield a failed verdict for every difference between the signatures served and those on disk."""
    reply = target.client.metadata(target.model, target.version, timeout=target.timeout)
    if reply.version != target.version:
        yield _difference("*", f"version {reply.version} answered instead of {target.version}")
    served = {one.key: one for one in signatures_from(reply.signatures)}
    on_disk = {one.key: one for one in inspection.signatures}
    for key in sorted(served.keys() | on_disk.keys()):
        if key not in served:
            yield _difference(key, "it is on disk, but not served")
        elif key not in on_disk:
            yield _difference(key, "it is served, but not on disk")
        else:
            one, other = _comparable(served[key]), _comparable(on_disk[key])
            different = [name for name in one if one[name] != other[name]]
            if different:
                what = " and ".join(different)
                yield _difference(key, f"served and on disk it has different {what}")


def _difference(key: str, reason: str) -> Verdict:
    return Verdict(signature=key, api="GetModelMetadata", outcome="failed", reason=reason)


def _comparable(signature: Signature) -> dict[str, object]:
    """Return the parts that must be equal. `has_default` is left out, because some servers do not return it."""

    def plain(specs: tuple[TensorSpec, ...]) -> tuple[object, ...]:
        return tuple((one.alias, one.dtype, one.shape, one.tensor_name) for one in specs)

    return {
        "method names": signature.method_name,
        "inputs": plain(signature.inputs),
        "outputs": plain(signature.outputs),
    }


def _run_case(target: Target, case: SmokeCase, inspection: Inspection) -> Verdict:
    fitted = fit_case(case, inspection)
    signature = fitted.signature
    if target.deadline.passed:
        result = _no_time()
    elif fitted.api == "Predict":
        result = send_predict(target, signature, fitted.inputs, guessed=False, vouched=True)
    else:
        result = send_examples(
            target,
            signature,
            fitted.examples,
            regress=fitted.api == "Regress",
            vouched=True,
            context=fitted.context,
        )
    outcome, reason = result.outcome, result.reason
    if outcome == "passed" and case.expected_form is not None:
        if fitted.api == "Predict":
            problems = check_expected(case, result.outputs)
        else:
            problems = [f"the expected value cannot be compared with an answer of {fitted.api}"]
        outcome, reason = ("failed", "; ".join(problems)) if problems else (outcome, reason)
    return Verdict(
        signature=signature.key,
        api=fitted.api,
        outcome=outcome,
        reason=reason,
        source=case.source,
        milliseconds=result.milliseconds,
    )


def _made_up(target: Target, signature: Signature, inspection: Inspection) -> Verdict:
    """Try the API that the signature declares; if that does not work, try Predict."""
    api = APIS.get(signature.method_name)
    if api is None:
        return _best(signature, "Predict", _predicted(target, signature, inspection))[0]
    first, final = _best(signature, api, _with_examples(target, signature, inspection, api))
    if final:
        return first
    second, _ = _best(signature, "Predict", _predicted(target, signature, inspection))
    requests = first.requests + second.requests
    if second.outcome == "passed":
        return replace(second, requests=requests, reason=f"{api} does not work: {first.reason}")
    # Neither works: the verdict of the declared API counts, unless only that of Predict is `failed`.
    counts, other = first, second
    if first.outcome != "failed" and second.outcome == "failed":
        counts, other = second, first
    reason = f"{counts.reason}; nor does {other.api}: {other.reason}"
    return replace(counts, requests=requests, reason=reason)


def _predicted(target: Target, signature: Signature, inspection: Inspection) -> Iterator[Result]:
    for attempt in made_up_tensors(signature, inspection):
        if target.deadline.passed:
            yield _no_time()
            return
        yield send_predict(
            target, signature, attempt.inputs, guessed=attempt.guessed, vouched=False
        )


def _with_examples(
    target: Target, signature: Signature, inspection: Inspection, api: Api
) -> Iterator[Result]:
    parsed = [one for one in inspection.examples if one.signature == signature.key]
    for example in made_up_examples(parsed[0].features if parsed else ()):
        if target.deadline.passed:
            yield _no_time()
            return
        yield send_examples(target, signature, [example], regress=api == "Regress", vouched=False)


def _best(signature: Signature, api: Api, results: Iterable[Result]) -> tuple[Verdict, bool]:
    """Return one verdict for several results, and whether it is final.

    A passed result is final, and so is an answer that breaks the signature's promise. Otherwise the first refusal
    that no data could avoid counts; if there is none, the first result does.
    """
    seen: list[Result] = []
    why = ""
    try:
        for result in results:
            seen.append(result)
            if result.outcome == "passed" or result.final:
                break
    except CannotMakeUp as error:
        why = str(error)
    last = seen[-1] if seen else Result(outcome="inconclusive", reason=why, milliseconds=0.0)
    settled = last.outcome == "passed" or last.final
    failed = [one for one in seen if one.outcome == "failed"]
    best = last if settled else (*failed, *seen, last)[0]
    verdict = Verdict(
        signature=signature.key,
        api=api,
        outcome=best.outcome,
        reason=best.reason,
        requests=len(seen),
        milliseconds=best.milliseconds,
    )
    return verdict, settled


def _no_time() -> Result:
    return Result(outcome="inconclusive", reason="no time was left", milliseconds=0.0)
