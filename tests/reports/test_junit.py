"""Reports as JUnit's XML: well-formed whatever the names are, and nothing unproven counts as passed."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import msgspec
import pytest

from servingrepo.errors import SmokeFailed
from servingrepo.reports.junit import as_junit
from servingrepo.reports.promotions import failure_report, promotion_report, smoke_report
from tests.reports import samples


def read(data: bytes) -> ET.Element:
    return ET.fromstring(data)  # noqa: S314


def promoted(text: str = "ok", **more: object) -> ET.Element:
    found = samples.verdicts(12)
    proof = samples.proof(tuple(msgspec.structs.replace(one, reason=text) for one in found), **more)
    done = samples.promotion(proof, gates=samples.gates(text), guard=samples.guard(text))
    report = promotion_report(done, record=None, created=samples.TIME)
    return read(as_junit(report))


@pytest.mark.parametrize("text", ["ok", samples.HOSTILE], ids=["plain", "hostile"])
def test_counts_are_those_of_the_cases(text: str) -> None:
    root = promoted(text)
    assert root.tag == "testsuites"
    for counted in (root, *root.iter("testsuite")):
        cases = list(counted.iter("testcase"))
        assert int(counted.attrib["tests"]) == len(cases)
        assert int(counted.attrib["failures"]) == sum(
            one.find("failure") is not None for one in cases
        )
        assert int(counted.attrib["skipped"]) == sum(
            one.find("skipped") is not None for one in cases
        )


def test_suites_are_kinds_of_checks() -> None:
    assert [one.attrib["name"] for one in promoted().iter("testsuite")] == [
        "verdict",
        "smoke test",
        "drift",
        "gates",
        "clients",
    ]


def test_hostile_text_is_text() -> None:
    root = promoted(samples.HOSTILE)
    assert {one.tag for one in root.iter()} == {
        *("testsuites", "testsuite", "testcase", "failure", "skipped", "system-out")
    }
    said = [one.text or "" for one in root.iter("system-out")]
    assert any("</script><script>" in one for one in said)


def test_an_inconclusive_check_is_skipped_not_passed() -> None:
    root = promoted()
    churn = [one for one in root.iter("testcase") if "max-churn" in one.attrib["name"]]
    skipped = churn[0].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"].startswith("inconclusive: 9 of 400 rows change")


def test_a_signature_without_a_request_is_skipped() -> None:
    proof = samples.proof(tuple(one for one in samples.verdicts(4) if one.api == "Predict"))
    report = smoke_report(proof, subject="ranker@7", record=None, created=samples.TIME)
    root = read(as_junit(report))
    (missed,) = [one for one in root.iter("testcase") if one.attrib["name"] == "classify"]
    assert missed.find("skipped") is not None
    verdict = next(root.iter("testcase"))
    assert verdict.find("skipped") is not None


def test_checks_that_were_left_out_are_counted() -> None:
    root = promoted(left_out={"passed": 8000, "failed": 3})
    found = {one.attrib["name"]: one for one in root.iter("testcase")}
    assert found["8000 more passed"].find("skipped") is not None
    assert found["3 more failed"].find("failure") is not None


def test_a_failure_has_its_problems_and_log() -> None:
    error = SmokeFailed("it failed", hint="repair it", problems=["one", "two"], log="a\nb")
    report = failure_report(
        error, kind="Promotion", subject="ranker", proof=None, created=samples.TIME
    )
    root = read(as_junit(report))
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "it failed"
    assert failure.text == "one\ntwo\nrepair it"
    log = root.find("testsuite/system-err")
    assert log is not None
    assert log.text == "a\nb\n"


def test_times_are_seconds() -> None:
    root = promoted()
    (case,) = [one for one in root.iter("testcase") if one.attrib["name"].endswith("json#1)")]
    wanted = samples.verdicts(12)[1].milliseconds / 1000
    assert float(case.attrib["time"]) == pytest.approx(wanted, abs=1e-6)
