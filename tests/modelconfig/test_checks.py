from __future__ import annotations

import re

import pytest

from servingrepo.modelconfig import (
    EMPTY,
    DiskFacts,
    EntryKind,
    Finding,
    check,
    entry,
    parse,
    pin,
)

POLICY = "model_version_policy"
LABELS = "version_labels"


def pinned(*versions: int) -> str:
    return f"{POLICY} {{ specific {{ versions: {list(versions)} }} }}"


def labelled(label: str, version: int) -> str:
    return f'{LABELS} {{ key: "{label}" value: {version} }}'


GOOD = {
    "name": 'name: "m"',
    "base_path": 'base_path: "/models/m"',
    "model_platform": 'model_platform: "tensorflow"',
    POLICY: pinned(3, 7),
    LABELS: labelled("stable", 3),
}
WHOLE: dict[str, EntryKind] = {"3": "saved-model", "7": "saved-model", ".staging": "empty"}


def config_text(*, more: str = "", **fields: str) -> str:
    """One model's config: the good one with fields replaced, and more text after it."""
    return f"model_config_list {{ config {{ {' '.join((GOOD | fields).values())} }} {more} }}"


def findings(text: str, *, disk: dict[str, DiskFacts] | None = None) -> tuple[Finding, ...]:
    return check(parse(text), disk=disk)


def test_check_when_all_is_well_then_no_findings() -> None:
    disk = {"/models/m": DiskFacts(exists=True, entries=WHOLE)}
    assert findings(config_text()) == ()
    assert findings(config_text(), disk=disk) == ()
    assert findings("model_config_list {}", disk={}) == ()


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("name", "", "error: name: is empty"),
        ("name", 'name: "a/b"', "error: model a/b: name: … no URL"),
        ("name", 'name: "a:b"', "error: model a:b: name: … no URL"),
        ("name", 'name: "ü x"', "warning: model ü x: name: not a model name"),
        ("name", 'name: "7"', "warning: model 7: name: … an integer"),
        ("base_path", "", "error: model m: base_path: is empty"),
        ("base_path", 'base_path: "a/m"', "error: model m: base_path: 'a/m' is not absolute"),
        ("base_path", 'base_path: "~/m"', "error: model m: base_path: '~/m' begins with ~"),
        ("base_path", 'base_path: "s3://b"', "error: model m: base_path: … s3://, … no longer"),
        ("base_path", 'base_path: "hdfs://b"', "error: model m: base_path: … no longer"),
        ("base_path", 'base_path: "http://b"', "error: model m: base_path: … does not have"),
        ("model_platform", "", "error: model m: model_platform: is missing"),
        ("model_platform", "model_type: TENSORFLOW", "warning: model m: model_type: is deprecated"),
        ("model_platform", "model_type: OTHER", "error: model m: model_type: OTHER"),
        ("model_platform", "model_type: 7", "error: model m: model_type: 7 is no model type"),
        ("model_platform", 'model_platform: "TF"', "error: model m: model_platform: 'TF' is not"),
        ("extra", "model_type: TENSORFLOW", "error: model m: model_type: is set beside"),
        ("extra", "logging_config {}", "error: model m: logging_config: … no request logger"),
        (POLICY, "", f"warning: model m: {POLICY}: no policy"),
        (POLICY, f"{POLICY} {{ all {{}} }}", f"warning: model m: {POLICY}: policy all"),
        (
            POLICY,
            f"{POLICY} {{ latest {{ num_versions: 2 }} }}",
            f"warning: model m: {POLICY}: policy latest",
        ),
        (POLICY, pinned(3, 7, 3), f"warning: model m: {POLICY}: version 3 is listed 2 times"),
        (POLICY, pinned(3, -3), f"error: model m: {POLICY}: version -3 is negative"),
        (POLICY, pinned(3, 0), f"warning: model m: {POLICY}: version 0"),
        (
            LABELS,
            labelled("a", 4),
            f"error: model m: {LABELS}: label 'a' is on version 4, which is not",
        ),
        (LABELS, labelled("a/b", 3), f"error: model m: {LABELS}: … 'a/b'"),
        (LABELS, labelled("", 3), f"error: model m: {LABELS}: … it is empty"),
        (
            LABELS,
            labelled("a", 3) + labelled("a", 7),
            f"error: model m: {LABELS}: label 'a' is given more than once",
        ),
    ],
)
def test_check_when_one_mistake_then_one_finding_with_model_and_field(
    field: str, text: str, said: str
) -> None:
    found = findings(config_text(**{field: text}))
    assert len(found) == 1
    start, _, words = said.partition(" … ")
    assert str(found[0]).startswith(start)
    assert all(each in found[0].message for each in words.split(" … "))
    assert found[0].hint


def test_check_when_numbers_are_octal_then_both_readings_are_said() -> None:
    found = findings(
        config_text(
            model_version_policy="model_version_policy { specific { versions: [00000123, 7] } }",
            version_labels="version_labels { key: 'stable' value: 0123 }",
        )
    )
    assert [str(each).partition(": line")[0] for each in found] == [
        f"warning: model m: {POLICY}",
        f"warning: model m: {LABELS}",
    ]
    assert all({"83", "123"} <= set(re.findall(r"\b[1-9]\d*\b", str(each))) for each in found)


def test_check_when_specific_has_no_versions_then_all_would_be_unloaded() -> None:
    found = findings(config_text(model_version_policy=pinned(), version_labels=""))
    assert [str(each).partition(" without")[0] for each in found] == [
        f"error: model m: {POLICY}: specific"
    ]


def test_check_when_latest_zero_then_said_beside_the_policy() -> None:
    found = findings(
        config_text(model_version_policy="model_version_policy { latest { num_versions: 0 } }")
    )
    assert ["takes it for 1" in each.message for each in found] == [False, True]


def test_check_when_a_model_is_listed_twice_then_named_once() -> None:
    second = "config { " + " ".join(GOOD.values()) + " }"
    found = findings(config_text(more=second))
    assert [(each.severity, each.model, each.field) for each in found] == [("error", "m", "name")]
    assert "2 times" in found[0].message


@pytest.mark.parametrize(
    "path", ["/models/m", "/models/m/", "/models//m", "file:///models/m", "//models/m"]
)
def test_check_when_two_models_share_a_base_path_then_warned(path: str) -> None:
    config = pin(parse(config_text()), name="n", base_path=path, versions=[3])
    found = check(config)
    assert [(each.severity, each.model, each.field) for each in found] == [
        ("warning", "n", "base_path")
    ]


def test_check_when_custom_model_config_then_the_server_aborts() -> None:
    found = findings("custom_model_config { type_url: 'a/b' }")
    assert [(each.severity, each.field) for each in found] == [("error", "custom_model_config")]


def test_check_when_nothing_is_set_then_a_reload_would_refuse() -> None:
    assert [each.severity for each in check(EMPTY)] == ["warning"]


def test_check_when_several_mistakes_then_all_at_once() -> None:
    found = findings(config_text(base_path="", model_platform="", extra="logging_config {}"))
    assert [each.field for each in found] == ["base_path", "model_platform", "logging_config"]


def entries(**kinds: EntryKind) -> DiskFacts:
    """Versions on disk; `v7="empty"` is an empty directory called 7."""
    return DiskFacts(exists=True, entries={name[1:]: kind for name, kind in kinds.items()})


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (None, "warning: model m: base_path: /models/m was not checked"),
        (DiskFacts(exists=False), "error: model m: base_path: /models/m does not exist"),
        (DiskFacts(exists=True), "error: model m: base_path: /models/m has no versions: all"),
        (entries(_x="saved-model"), "error: model m: base_path: /models/m has no versions: all"),
        (
            DiskFacts(exists=True, flat=True),
            "error: model m: base_path: /models/m has no versions: a SavedModel lies directly",
        ),
        (
            entries(v3="saved-model", v8="empty"),
            f"error: model m: {POLICY}: version 7 is not in /models/m",
        ),
        (
            entries(v3="saved-model", v7="empty"),
            f"error: model m: {POLICY}: version 7: /models/m/7 is an empty directory",
        ),
        (
            entries(v3="saved-model", v7="not-a-directory"),
            f"error: model m: {POLICY}: version 7: /models/m/7 is not a directory",
        ),
        (
            entries(v3="saved-model", v7="broken-link"),
            f"error: model m: {POLICY}: version 7: /models/m/7 is a link to nothing",
        ),
        (
            entries(v3="saved-model", v0007="no-saved-model"),
            f"error: model m: {POLICY}: version 7: /models/m/0007 has no saved_model.pb",
        ),
        (
            entries(v3="saved-model", v7="saved-model", v07="saved-model"),
            "error: model m: base_path: '07' and '7' in /models/m are both version 7",
        ),
        (
            entries(v3="saved-model", v7="saved-model", v01="saved-model", v1="empty"),
            "warning: model m: base_path: '01' and '1' in /models/m are both version 1",
        ),
    ],
)
def test_check_when_the_disk_does_not_fit_then_said(facts: DiskFacts | None, said: str) -> None:
    found = findings(config_text(), disk={} if facts is None else {"/models/m": facts})
    assert len(found) == 1
    assert str(found[0]).startswith(said)


def test_a_label_on_a_missing_version_is_said() -> None:
    found = findings(
        config_text(model_version_policy="model_version_policy { all {} }"),
        disk={"/models/m": DiskFacts(exists=True, entries={"7": "saved-model"})},
    )
    assert [(each.severity, each.field) for each in found] == [
        ("warning", "model_version_policy"),
        ("error", "version_labels"),
    ]


@pytest.mark.parametrize(("latest", "broken"), [(1, ["9"]), (2, ["8", "9"]), (9, ["2", "8", "9"])])
def test_policy_latest_checks_what_would_be_served(latest: int, broken: list[str]) -> None:
    facts = DiskFacts(exists=True, entries={"2": "empty", "8": "empty", "9": "empty"})
    policy = f"model_version_policy {{ latest {{ num_versions: {latest} }} }}"
    found = findings(
        config_text(model_version_policy=policy, version_labels=""), disk={"/models/m": facts}
    )
    errors = [each.message for each in found if each.severity == "error"]
    assert len(errors) == len(broken)
    assert all(f"/models/m/{name} is" in text for name, text in zip(broken, errors, strict=True))


def test_only_one_model_is_checked_if_one_is_named() -> None:
    other = f'config {{ name: "x" base_path: "/models/m" {pinned()} }}'
    text = config_text(more=other, model_platform="")
    alone = check(parse(text), only="m")
    assert [(each.model, each.slug) for each in alone] == [("m", "platform-missing")]
    others = check(parse(text), only="x")
    assert {each.slug for each in others} == {"platform-missing", "nothing-pinned"}


def test_the_first_entry_of_a_name_is_returned() -> None:
    config = parse(config_text(more=f'config {{ name: "m" {pinned(9)} }} config {{ name: "n" }}'))
    found = [entry(config, name) for name in ("m", "n", "o")]
    assert [one and one.versions for one in found] == [(3, 7), (), None]
