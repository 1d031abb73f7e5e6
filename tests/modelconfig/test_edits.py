from __future__ import annotations

import msgspec
import pytest

from servingrepo.errors import BadName, BadVersionNumber, ConfigInvalid
from servingrepo.modelconfig import EMPTY, check, drop, entry, models, move, parse, pin, render

BY_HAND = """\
model_config_list {
  config { name: "first" base_path: "/old/first" model_type: TENSORFLOW
    logging_config { sampling_config { sampling_rate: 0.5 } }
    model_version_policy { all {} } version_labels { key: "old" value: 1 } }
  config { name: "second" base_path: "/models/second" model_platform: "tensorflow" }
}
"""


def test_pinning_a_new_model_appends_a_whole_entry() -> None:
    config = pin(
        parse(BY_HAND),
        name="ranker",
        base_path="/models/ranker",
        versions=[7, 3, 7],
        labels={"b": 7},
    )
    assert [model.name for model in models(config)] == ["first", "second", "ranker"]
    assert """\
  config {
    name: "ranker"
    base_path: "/models/ranker"
    model_platform: "tensorflow"
    model_version_policy {
      specific {
        versions: 3
        versions: 7
      }
    }
    version_labels {
      key: "b"
      value: 7
    }
  }
}
""" in render(config)


def test_pinning_keeps_other_fields_and_the_place() -> None:
    config = pin(
        parse(BY_HAND), name="first", base_path="/old/first", versions=[2], labels={"new": 2}
    )
    proto = config.proto.model_config_list.config[0]
    assert proto.logging_config.sampling_config.sampling_rate == 0.5
    assert proto.model_type == 0
    found = entry(config, "first")
    assert found is not None
    assert (found.platform, found.policy, found.versions) == ("tensorflow", "specific", (2,))
    assert (found.base_path, found.labels) == ("/old/first", {"new": 2})
    assert config.proto.model_config_list.config[1].name == "second"


def test_pin_never_moves_a_base_path() -> None:
    config = parse(BY_HAND)
    with pytest.raises(ConfigInvalid, match=r"its versions are at /old/first"):
        pin(config, name="first", base_path="/models/first", versions=[2], labels={})
    again = pin(config, name="first", base_path="/old//first/", versions=[2], labels={})
    found = entry(again, "first")
    assert found is not None
    assert found.base_path == "/old/first", "another spelling of it changes nothing"


def test_move_changes_the_base_path_alone() -> None:
    config = parse(BY_HAND)
    moved = move(config, "first", "/new/first")
    old, new = entry(config, "first"), entry(moved, "first")
    assert old is not None
    assert new == msgspec.structs.replace(old, base_path="/new/first")
    assert entry(moved, "second") == entry(config, "second")
    for name, path in (("third", "/new/third"), ("first", "new/first")):
        with pytest.raises(ConfigInvalid):
            move(config, name, path)


def test_pin_when_labels_are_not_given_then_kept() -> None:
    config = pin(EMPTY, name="m", base_path="/models/m", versions=[1], labels={"stable": 1})
    config = pin(config, name="m", base_path="/models/m", versions=[1, 2])
    found = entry(config, "m")
    assert found is not None
    assert found.labels == {"stable": 1}


def test_pin_when_a_kept_label_would_hang_in_the_air_then_refused() -> None:
    config = pin(EMPTY, name="m", base_path="/models/m", versions=[1], labels={"stable": 1})
    with pytest.raises(ConfigInvalid, match=r"model m: labels on versions .* stable on 1"):
        pin(config, name="m", base_path="/models/m", versions=[2])
    found = entry(pin(config, name="m", base_path="/models/m", versions=[2], labels={}), "m")
    assert found is not None
    assert found.labels == {}


def test_pin_when_no_versions_then_refused_because_all_would_be_unloaded() -> None:
    with pytest.raises(ConfigInvalid, match="model m: no versions to pin"):
        pin(EMPTY, name="m", base_path="/models/m", versions=[])


@pytest.mark.parametrize(
    "base_path", ["", "models/m", "~/models/m", "s3://bucket/m", "./m", "x:/m"]
)
def test_pin_when_the_server_cannot_find_the_base_path_then_refused(base_path: str) -> None:
    with pytest.raises(ConfigInvalid, match="model m: base_path"):
        pin(EMPTY, name="m", base_path=base_path, versions=[1])


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_pin_when_a_version_is_no_positive_int64_then_refused(version: int) -> None:
    with pytest.raises(BadVersionNumber, match=f"version {version} "):
        pin(EMPTY, name="m", base_path="/models/m", versions=[1, version])


def test_pin_when_a_name_or_label_is_not_allowed_then_refused() -> None:
    with pytest.raises(BadName, match="not a model name: '7'"):
        pin(EMPTY, name="7", base_path="/models/7", versions=[1])
    with pytest.raises(BadName, match="not a version label: 'a-b'"):
        pin(EMPTY, name="m", base_path="/models/m", versions=[1], labels={"a-b": 1})


def test_pin_and_drop_when_the_model_is_listed_twice_then_refused() -> None:
    twice = parse("model_config_list { config { name: 'm' } config { name: 'm' } }")
    with pytest.raises(ConfigInvalid, match="lists model m 2 times"):
        pin(twice, name="m", base_path="/models/m", versions=[1])
    with pytest.raises(ConfigInvalid, match="lists model m 2 times"):
        drop(twice, "m")


def test_pin_and_drop_when_custom_model_config_then_never_replaced_in_silence() -> None:
    custom = parse("custom_model_config { type_url: 'x/y' }", source="other.config")
    with pytest.raises(ConfigInvalid, match=r"other\.config has a custom_model_config"):
        pin(custom, name="m", base_path="/models/m", versions=[1])
    with pytest.raises(ConfigInvalid, match=r"other\.config has a custom_model_config"):
        drop(custom, "m")


def test_drop_when_there_then_only_that_entry_goes() -> None:
    config = drop(parse(BY_HAND), "first")
    assert [model.name for model in models(config)] == ["second"]
    assert drop(config, "nobody") is config
    assert render(drop(config, "second")).endswith("\nmodel_config_list {\n}\n")


def test_edits_when_another_model_has_a_label_twice_then_still_reported() -> None:
    label = "version_labels { key: 'a' value: 1 }"
    text = f"""model_config_list {{
      config {{ name: 'm' base_path: '/models/m' model_platform: 'tensorflow' {label} {label}
        model_version_policy {{ specific {{ versions: 1 }} }} }} }}"""
    config = pin(parse(text), name="n", base_path="/models/n", versions=[1])
    assert "label 'a' is given more than once" in str(check(config)[0])
    settled = pin(config, name="m", base_path="/models/m", versions=[1], labels={"a": 1})
    assert check(settled) == ()
