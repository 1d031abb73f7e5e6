"""Smoke-test one version on a running server, and return a verdict for each signature.

A smoke test waits for exactly that version, compares its served signatures with the export, and sends requests, one
after the other. It does not decide on a promotion: `judge` and the caller do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from servingrepo.errors import EndpointUnreachable, LoadFailed, ServerTimeout, ServingRepoError
from servingrepo.savedmodel.signatures import signatures_from
from servingrepo.smoke.budgets import Budgets
from servingrepo.smoke.code import Predicates
from servingrepo.smoke.expectations import check_conditions
from servingrepo.smoke.fitting import (
    APIS,
    Fitted,
    Misfit,
    check_cases,
    check_expected,
    fit_case,
)
from servingrepo.smoke.inputs import (
    CannotMakeUp,
    made_up_examples,
    made_up_tensors,
    varied_examples,
    varied_tensors,
)
from servingrepo.smoke.report import Api, SmokeReport, Tally, Verdict
from servingrepo.smoke.requests import Result, Target, send_case, send_examples, send_predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from servingrepo.deadline import Deadline
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import Feature, Signature, TensorSpec
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import VersionStatus
    from servingrepo.smoke.cases import SmokeCase
    from servingrepo.smoke.writing import Sink

__all__ = ["await_version", "run_cases", "run_smoke"]

POLL_SECONDS = 0.05
STATUS_SECONDS = 10.0
LAST_CALL_SECONDS = 0.5
SLOW_MILLISECONDS = 1000.0
"""A signature that takes longer for its answer gets no varied data."""


def run_smoke(
    client: ServingClient,
    *,
    model: str,
    version: int,
    inspection: Inspection,
    cases: Iterable[SmokeCase] = (),
    words: Mapping[str, tuple[bytes, ...]] | None = None,
    sink: Sink | None = None,
    deadline: Deadline,
) -> SmokeReport:
    """Send at least one request to every servable signature of one version, and return the verdicts.

    A signature with cases gets these. Any other one, and one with cases that expect errors alone, gets made-up data.
    A case that does not fit the export, or is not answered, fails; the others are sent all the same.

    Args:
        client: The client of the server.
        model: The name under which the server has the model.
        version: The version that must answer; every request names it.
        inspection: The export as it is on disk.
        cases: The user's own requests, read one at a time.
        words: The words of the export's vocabularies, for made-up data; see `read_words`.
        sink: What takes all requests that are answered.
        deadline: The end of the wait for the version and for all answers. A signature for which no time is left is
            inconclusive.

    Raises:
        BadCase: A file or function of cases cannot be used.
        LoadFailed: The server could not load the version; the message has the server's reason.
        ServerTimeout: The version was not available in time.
        EndpointUnreachable: The server is gone. The problems name the case at which it went, and those that failed
            before.
        RequestRefused: The server serves the version but does not return its signatures.
    """
    await_version(client, model=model, version=version, deadline=deadline)
    target = Target(client=client, model=model, version=version, deadline=deadline)
    tally = Tally()
    for verdict in _compare(target, inspection):
        tally.add(verdict)
    with Predicates() as predicates:
        sender = _Sender(target, inspection, predicates, sink)
        with_cases = _run_all(sender, cases, tally)
    left = [one for one in inspection.signatures if one.key not in with_cases]
    made_up = [_made_up(target, one, inspection, sink) for one in left]
    # All signatures come first: of one that is slow, varied data could take the time of the others.
    for signature, verdict in zip(left, made_up, strict=True):
        tally.add(_vary(sender, signature, verdict, words or {}))
    return tally.report(
        model=model,
        version=version,
        endpoint=str(client.endpoint),
        signatures=tuple(one.key for one in inspection.signatures),
    )


def run_cases(
    client: ServingClient,
    *,
    model: str,
    version: int,
    inspection: Inspection,
    cases: Iterable[SmokeCase],
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
    with Predicates() as predicates:
        sender = _Sender(target, inspection, predicates, None)
        return tuple(_run_case(sender, one).verdict for one in cases)


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


class _Sender(NamedTuple):
    """What a case is sent with."""

    target: Target
    inspection: Inspection
    predicates: Predicates
    sink: Sink | None


class _Ran(NamedTuple):
    """One case that was sent, or that does not fit."""

    verdict: Verdict
    answered: bool = False
    taken: bool = False
    fitted: Fitted | None = None


def _run_all(sender: _Sender, cases: Iterable[SmokeCase], tally: Tally) -> set[str]:
    """Send all cases. Return the signatures for which no data needs to be made up.

    Raises:
        EndpointUnreachable: The server is gone.
    """
    with_cases = set()
    budgets = Budgets()
    target = sender.target
    for case in cases:
        if target.deadline.passed:
            tally.add(_unsent(case))
            with_cases.add(case.signature)
            if sender.sink is not None:
                sender.sink.lack(f"{case.source}, and those after it")
            break
        try:
            ran = _run_case(sender, case)
        except EndpointUnreachable as gone:
            ran = _Ran(_lost(target, case, gone, tally))
        if sender.sink is not None and not ran.taken:
            sender.sink.lack(f"{case.source}: {ran.verdict.reason}")
        tally.add(ran.verdict)
        if case.expect is None or case.expect.error is None:
            with_cases.add(ran.verdict.signature)
        if ran.answered and ran.fitted is not None:
            milliseconds = ran.verdict.milliseconds
            if tally.time(ran.verdict.signature, milliseconds):
                budgets.add(case, milliseconds)
            budgets.keep(case, ran.fitted)
    for verdict in budgets.verdicts(target):
        tally.add(verdict)
    return with_cases


def _run_case(sender: _Sender, case: SmokeCase) -> _Ran:
    """Send one case, and judge its answer.

    Raises:
        EndpointUnreachable: The server went away.
    """
    try:
        fitted = fit_case(case, sender.inspection)
    except Misfit as misfit:
        return _Ran(
            Verdict(
                signature=case.signature or "*",
                api="Predict",
                outcome="failed",
                reason="; ".join(misfit.problems),
                source=case.source,
                requests=0,
            )
        )
    given = case
    if sender.sink is not None:
        case = sender.sink.to_judge(case)
    result = send_case(sender.target, case, fitted)
    outcome, reason = result.outcome, result.reason
    error = case.expect.error if case.expect is not None else None
    if error is not None and outcome != "inconclusive":
        found = f"{result.code}: {result.text}" if result.code else "an answer"
        right = error.code == result.code and error.text in result.text
        outcome = "passed" if right else "failed"
        reason = "" if right else f"expected {error.code}: {error.text}, got {found}"
    elif outcome == "passed":
        problems = _unexpected(case, fitted, result, sender.predicates)
        outcome, reason = ("failed", "; ".join(problems)) if problems else (outcome, reason)
    verdict = Verdict(
        signature=fitted.signature.key,
        api=fitted.api,
        outcome=outcome,
        reason=reason,
        source=case.source,
        milliseconds=result.milliseconds,
    )
    taken = sender.sink is not None and (result.outcome == "passed" or outcome == "passed")
    if taken and sender.sink is not None:
        sender.sink.take(given, fitted, result)
    return _Ran(verdict, answered=bool(result.outputs), taken=taken, fitted=fitted)


def _unexpected(
    case: SmokeCase, fitted: Fitted, result: Result, predicates: Predicates
) -> list[str]:
    """Return how an answer differs from what its case expects."""
    problems = []
    if case.expected_form is not None:
        if fitted.api == "Predict":
            problems += check_expected(case, result.outputs)
        else:
            problems.append(
                f"the expected value cannot be compared with an answer of {fitted.api}: give it in expect"
            )
    if case.expect is not None:
        problems += check_conditions(case.expect, result.outputs)
        if case.expect.predicate and not problems:
            said = predicates.problem(case.expect.predicate, case, result.outputs)
            problems += [said] if said else []
    return problems


def _unsent(case: SmokeCase) -> Verdict:
    """Return the verdict on a case that came too late, and on all that follow it."""
    return Verdict(
        signature=case.signature or "*",
        api="Predict",
        outcome="inconclusive",
        reason="no time was left for this case and those after it",
        source=case.source,
        requests=0,
    )


def _lost(target: Target, case: SmokeCase, gone: EndpointUnreachable, tally: Tally) -> Verdict:
    """Return the verdict on a case whose request broke the connection, if the server still answers.

    Raises:
        EndpointUnreachable: It does not answer any more.
    """
    try:
        target.client.answers(
            target.model, target.version, timeout=target.deadline.at_most(STATUS_SECONDS)
        )
    except ServingRepoError:
        raise EndpointUnreachable(
            gone.message,
            hint=gone.hint,
            problems=[f"{case.source}: the server went away", *map(str, tally.failed)],
        ) from gone
    return Verdict(
        signature=case.signature or "*",
        api="Predict",
        outcome="failed",
        reason=gone.message,
        source=case.source,
    )


def _made_up(
    target: Target, signature: Signature, inspection: Inspection, sink: Sink | None
) -> Verdict:
    """Try the API that the signature declares; if that does not work, try Predict."""
    api = APIS.get(signature.method_name)
    if api is None:
        return _best(signature, "Predict", _predicted(target, signature, inspection), sink)[0]
    first, final = _best(signature, api, _with_examples(target, signature, inspection, api), sink)
    if final:
        return first
    second, _ = _best(signature, "Predict", _predicted(target, signature, inspection), sink)
    requests = first.requests + second.requests
    if second.outcome == "passed":
        return replace(second, requests=requests, reason=f"{api} does not work: {first.reason}")
    # Neither works: the verdict of the declared API counts, unless only that of Predict is `failed`.
    counts, other = first, second
    if first.outcome != "failed" and second.outcome == "failed":
        counts, other = second, first
    reason = f"{counts.reason}; nor does {other.api}: {other.reason}"
    return replace(counts, requests=requests, reason=reason)


def _vary(
    sender: _Sender,
    signature: Signature,
    verdict: Verdict,
    words: Mapping[str, tuple[bytes, ...]],
) -> Verdict:
    """Send varied data in several sizes of a batch to a signature that has answered.

    What speaks against an answer is only noted: a model may have a reason to refuse data that were made up.
    """
    if verdict.outcome != "passed" or verdict.milliseconds > SLOW_MILLISECONDS:
        return verdict
    requests, noted = verdict.requests, ""
    for rows, result in _varied(sender, signature, verdict.api, words):
        requests += 1
        if result.outcome == "passed" and sender.sink is not None and result.sent is not None:
            sender.sink.take(None, result.sent, result)
        elif result.outcome != "passed" and not noted:
            noted = f"{rows} varied rows got no right answer: {result.reason}"
    reason = "; ".join(one for one in (verdict.reason, noted) if one)
    return replace(verdict, requests=requests, reason=reason)


def _varied(
    sender: _Sender, signature: Signature, api: Api, words: Mapping[str, tuple[bytes, ...]]
) -> Iterator[tuple[int, Result]]:
    """Yield the number of rows and the result of each varied request, as long as there is time."""
    target, inspection = sender.target, sender.inspection
    if api == "Predict":
        for rows, inputs in varied_tensors(signature, inspection, words):
            if target.deadline.passed:
                return
            result = send_predict(target, signature, inputs, guessed=False, vouched=False)
            sent = Fitted(signature=signature, api=api, inputs=inputs)
            yield rows, replace(result, sent=sent)
        return
    for examples in varied_examples(signature.key, _features(signature, inspection), words):
        if target.deadline.passed:
            return
        result = send_examples(target, signature, examples, regress=api == "Regress", vouched=False)
        sent = Fitted(signature=signature, api=api, examples=examples)
        yield len(examples), replace(result, sent=sent)


def _features(signature: Signature, inspection: Inspection) -> tuple[Feature, ...]:
    parsed = [one for one in inspection.examples if one.signature == signature.key]
    return parsed[0].features if parsed else ()


def _predicted(target: Target, signature: Signature, inspection: Inspection) -> Iterator[Result]:
    for attempt in made_up_tensors(signature, inspection):
        if target.deadline.passed:
            yield _no_time()
            return
        result = send_predict(
            target, signature, attempt.inputs, guessed=attempt.guessed, vouched=False
        )
        yield replace(
            result, sent=Fitted(signature=signature, api="Predict", inputs=attempt.inputs)
        )


def _with_examples(
    target: Target, signature: Signature, inspection: Inspection, api: Api
) -> Iterator[Result]:
    for example in made_up_examples(_features(signature, inspection)):
        if target.deadline.passed:
            yield _no_time()
            return
        result = send_examples(
            target, signature, [example], regress=api == "Regress", vouched=False
        )
        yield replace(result, sent=Fitted(signature=signature, api=api, examples=(example,)))


def _best(
    signature: Signature, api: Api, results: Iterable[Result], sink: Sink | None
) -> tuple[Verdict, bool]:
    """Return one verdict for several results, and whether it is final.

    A passed result is final, and so is an answer that breaks the signature's promise. Otherwise the first refusal
    that no data could avoid counts; if there is none, the first result does.
    """
    seen: list[Result] = []
    why = ""
    try:
        for result in results:
            seen.append(result)
            if sink is not None and result.outcome == "passed" and result.sent is not None:
                sink.take(None, result.sent, result)
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
