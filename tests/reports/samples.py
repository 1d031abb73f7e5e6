"""Results of verbs for reports: whole ones, large ones, and ones whose every text is hostile."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import SmokeFailed
from servingrepo.fleet.steps import EndpointResult
from servingrepo.reports.differences import diff_report
from servingrepo.reports.life import life_report
from servingrepo.reports.promotions import failure_report, promotion_report, smoke_report
from servingrepo.repository.history import Event
from servingrepo.repository.listing import ModelDetails, TrashRow, VersionRow
from servingrepo.repository.lives import Life
from servingrepo.repository.records import (
    BadMark,
    Guard,
    Hold,
    Proof,
    Source,
    VersionRecord,
)
from servingrepo.runs.measurements import GateVerdict, Number
from servingrepo.runs.origin import Code, Origin
from servingrepo.savedmodel.compatibility import Change
from servingrepo.savedmodel.values import Signature, TensorSpec
from servingrepo.smoke.drift import Accuracy, Drift, DriftVerdict, OutputDrift
from servingrepo.smoke.report import Latency, SmokeReport, Verdict, quantile
from servingrepo.storage.manifest import Manifest, Recipe
from servingrepo.verbs.diff import Diff
from servingrepo.verbs.values import Promotion

if TYPE_CHECKING:
    from servingrepo.reports.values import Report

TIME = "2026-11-30T10:00:00+00:00"

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "'\"`&lt;|`](https://evil.example) @everyone #1 {{ 7*7 }} \u2028\u2029\u202e\0\x1b[31m\n| x | ]]> \ud800"
)
"""A text that tries to be HTML, script, JSON's end, XML, a template, Markdown and a terminal's command."""


def verdicts(count: int, *, seed: int = 1) -> tuple[Verdict, ...]:
    """Return verdicts of a smoke test with many cases; a few failed."""
    chance = random.Random(seed)  # noqa: S311
    return tuple(
        Verdict(
            signature="serving_default" if number % 3 else "classify",
            api="Predict" if number % 3 else "Classify",
            outcome="failed" if number % 97 == 5 else "passed",
            reason=f"scores: 0.{number} is not within 0.001 of 0.5" if number % 97 == 5 else "",
            source=f"case requests.json#{number}",
            milliseconds=round(chance.lognormvariate(1.2, 0.4), 3),
        )
        for number in range(count)
    )


def proof(found: tuple[Verdict, ...], **more: object) -> Proof:
    """Return the proof with these verdicts."""
    times = sorted(one.milliseconds for one in found)
    report = SmokeReport(
        model="ranker",
        version=7,
        endpoint="127.0.0.1:8500",
        signatures=("classify", "serving_default"),
        verdicts=found,
        latency=Latency(
            requests=len(times), p50_ms=quantile(times, 0.5), p99_ms=quantile(times, 0.99)
        ),
        **more,  # type: ignore[arg-type]
    )
    return Proof(
        engine="docker",
        server="TensorFlow Serving 2.19.1",
        image="tensorflow/serving@sha256:5c3a",
        time=TIME,
        staged=True,
        report=report,
        notes=("it was written by TensorFlow 2.20, newer than the server's 2.19",),
        drift=drift(),
    )


def drift() -> Drift:
    """Return a comparison with numbers, labels, budgets, and what was not compared."""
    names = ("scores", "logits", "embedding")
    drifts = [
        OutputDrift(
            signature="serving_default",
            output=name,
            rows=400,
            elements=4000,
            largest=(0.0123, 0.84, math.inf)[at],
            total=(4.2, 310.0, 17.0)[at],
            noise_largest=(0.00002, 0.0004, 0.0)[at],
            noise_total=0.01,
            labelled=400 if at < 2 else 0,
            changed=(9, 31, 0)[at],
            noise_changed=(0, 1, 0)[at],
            only_changed=(9, 30, 0)[at],
            worst=("requests.json#17", 3),
            first_changed=("requests.json#4", 0) if at < 2 else None,
        )
        for at, name in enumerate(names)
    ]
    return Drift(
        live=6,
        cases=40,
        left=("requests.json#9: candidate: it does not fit: there is no input age",),
        left_count=3,
        outputs=tuple(drifts),
        accuracy=(
            Accuracy(
                signature="serving_default",
                output="scores",
                rows=400,
                live=361,
                candidate=377,
                only_live=6,
                only_candidate=22,
            ),
        ),
        verdicts=(
            DriftVerdict(
                signature="serving_default",
                output="scores",
                budget="max-diff",
                outcome="passed",
                reason="the largest difference is 0.0123, allowed are 0.05",
            ),
            DriftVerdict(
                signature="serving_default",
                output="scores",
                budget="max-churn",
                outcome="inconclusive",
                reason="9 of 400 rows change, 2.25% (95 %: 1.03% to 4.23%), allowed are 3.00%; too few rows",
            ),
        ),
        one_sided=("serving_default: output uncertainty: only the candidate has it",),
        live_latency=Latency(requests=80, p50_ms=3.1, p99_ms=7.9),
        latency=Latency(requests=40, p50_ms=3.4, p99_ms=8.8),
        notes=("live keeps state: a request changes it",),
    )


def signature(key: str = "serving_default", *, width: int | None = 16) -> Signature:
    """Return a signature."""
    return Signature(
        key=key,
        method_name="tensorflow/serving/predict",
        inputs=(
            TensorSpec(alias="x", dtype="float32", shape=(None, width), tensor_name="serving_x:0"),
        ),
        outputs=(
            TensorSpec(alias="scores", dtype="float32", shape=(None, 10), tensor_name="scores:0"),
        ),
    )


def guard(text: str = "serving_default: output uncertainty was added") -> Guard:
    """Return what was checked before the copy."""
    return Guard(
        against="ranker@6",
        verdict="compatible",
        changes=(
            Change(kind="output-added", breaking=False, signature="serving_default", message=text),
        ),
    )


def gates(text: str = "validation/accuracy >= served - 0.005") -> tuple[GateVerdict, ...]:
    """Return gates."""
    return (
        GateVerdict(
            gate=text,
            verdict="passed",
            name="validation/accuracy",
            why="0.9421 at step 4000 is at least 0.9303",
            file="logs/validation/events.out",
        ),
        GateVerdict(
            gate="loss < 0.2", verdict="not compared", name="loss", why="nothing is served"
        ),
    )


def record(version: int = 7, *, text: str = "new features", **more: object) -> VersionRecord:
    """Return the record of a version."""
    fields: dict[str, object] = {
        "model": "ranker",
        "version": version,
        "txid": f"20261130T1000{version:02}Z-00000000",
        "created": f"2026-11-{10 + version:02}T10:00:00+00:00",
        "user": "anna",
        "host": "train1",
        "message": text,
        "source": Source(run=f"/data/runs/2026_11_{version}", export="/data/runs/e", kind="child"),
        "manifest": Manifest(recipe=Recipe(), files=(), directories=()),
        "digest": "blake3:0587601a887e29b52b3bf4168728b60a8925eb8e1a0c0f4a11fdc8206f6295fe",
        "size": 40_000_000 + version * 1_500_000,
        "tensorflow": "2.20.0",
        "signatures": (signature("classify"), signature()),
        "fingerprint": None,
        "proofs": (proof(verdicts(12)),),
        "measured": (
            Number(
                name="validation/accuracy",
                last=0.9 + version * 0.006,
                step=4000,
                lowest=0.31,
                highest=0.95,
            ),
            Number(name="loss", last=0.3 / version, step=4000, lowest=0.1, highest=None),
        ),
        "gates": gates(),
        "origin": Origin(
            config={"optimizer/learning_rate": "0.001", "batch_size": "256"},
            config_files={"config.yaml": "5c3a" * 16},
            code=Code(commit="4e1f" * 10, of="run", branch="main", dirty=False),
            command="servingrepo promote runs/latest --model ranker",
        ),
    }
    return VersionRecord(**{**fields, **more})  # type: ignore[arg-type]


def promotion(found: Proof | None, **more: object) -> Promotion:
    """Return the result of a promotion."""
    fields: dict[str, object] = {
        "model": "ranker",
        "version": 7,
        "run": "/data/runs/2026_11_7",
        "export": "/data/runs/2026_11_7/saved_model",
        "path": "/srv/serving/models/ranker/7",
        "same_as": None,
        "published": True,
        "served": True,
        "before": (6,),
        "after": (7,),
        "held": None,
        "proof": found,
        "files": 5,
        "size": 50_500_000,
        "dry_run": False,
        "gates": gates(),
        "guard": guard(),
        "endpoints": (EndpointResult("10.0.0.1:8500", "serves 7"),),
    }
    return Promotion(**{**fields, **more})  # type: ignore[arg-type]


def life(text: str = "new features", *, model: str = "ranker") -> Life:
    """Return the life of a model with nine promotions and two rollbacks; every text of others is `text`."""
    events: list[Event] = []
    served: tuple[int, ...] = ()
    for number in range(1, 10):
        events.append(event(number, "promote", served, (number,), text, model=model))
        served = (number,)
        if number in {4, 7}:
            back = event(number, "rollback", served, (number - 1,), f"worse: {text}", model=model)
            events.append(msgspec.structs.replace(back, marked_bad=number, time=later(back.time)))
            served = (number - 1,)
    bad = BadMark(reason=text, user="anna", host="ops1", time=TIME)
    rows = tuple(
        VersionRow(
            version=number,
            created=f"2026-11-{10 + number:02}T10:00:00+00:00",
            by="anna@train1",
            run=text,
            size=40_000_000 + number * 1_500_000,
            message=text,
            proof="docker (TensorFlow Serving 2.19.1)",
            served=number == 9,
            pinned=number == 9,
            labels=("stable",) if number == 9 else (),
            bad=bad if number in {4, 7} else None,
        )
        for number in range(9, 1, -1)
    )
    trash = TrashRow(version=1, since=TIME, size=41_500_000, message=text, bad=None)
    details = ModelDetails(
        model=model,
        served=9,
        highest=9,
        hold=Hold(reason=text, user="anna", host="ops1", time=TIME),
        labels={"stable": 9},
        versions=rows,
        foreign=(),
        trash=(trash,),
    )
    records = tuple(record(number, text=text) for number in range(9, 0, -1))
    return Life(model=details, records=records, events=tuple(events))


def later(time: str) -> str:
    """Return a time six hours later on the same day."""
    return time.replace("T10:", "T16:")


def event(
    day: int,
    action: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    why: str,
    *,
    model: str = "ranker",
) -> Event:
    """Return an event of a day in November."""
    return Event(
        schema=1,
        id=f"202611{10 + day}T100000Z-{day:08x}",
        time=f"2026-11-{10 + day:02}T10:00:00.000+00:00",
        action=action,
        model=model,
        version=day,
        before=before,
        after=after,
        user="anna",
        host="ops1",
        why=why,
        run="/data/runs/x",
        proof="docker: 12 passed",
    )


def difference(text: str = "serving_default: output uncertainty was added") -> Diff:
    """Return the differences of two versions."""
    return Diff(
        old="ranker@6",
        new="ranker@7",
        verdict="breaking",
        changes=(
            Change(
                kind="signature-gone", breaking=True, signature="classify", message=f"gone: {text}"
            ),
            Change(kind="output-added", breaking=False, signature="serving_default", message=text),
        ),
        tensorflow=("2.19.1", "2.20.0"),
        new_ops=("RaggedGather",),
        new_effects=(),
        drift=drift(),
        signatures=((signature("classify"), signature()), (signature(width=None),)),
    )


KINDS = ("promotion", "smoke", "failure", "diff", "life", "whole")
"""The kinds of reports."""


def every_report(text: str) -> dict[str, Report]:
    """Return a report of each kind, in which every text of others is `text`."""
    judged = tuple(msgspec.structs.replace(one, reason=text) for one in verdicts(40))
    proven = proof(judged)
    recorded = record(text=text)
    done = promotion(proven, gates=gates(text), guard=guard(text), run=text)
    error = SmokeFailed(text, hint=text, problems=[text] * 12, log=text)
    lives = [life(text)]
    return {
        "promotion": promotion_report(done, record=recorded, created=TIME),
        "smoke": smoke_report(proven, subject=text, record=recorded, created=TIME),
        "failure": failure_report(
            error, kind="Promotion", subject=text, proof=proven, created=TIME
        ),
        "diff": diff_report(difference(text), created=TIME),
        "life": life_report(lives, subject=text, whole=False, created=TIME),
        "whole": life_report(lives, subject=text, whole=True, created=TIME),
    }
