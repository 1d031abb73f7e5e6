"""Round trips of whole configs, over configs that we make and over anything that the schema allows."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig import (
    EMPTY,
    MAX_VERSION,
    ModelConfig,
    Stamp,
    check,
    drop,
    entry,
    is_label,
    is_model_name,
    models,
    parse,
    pin,
    read_stamp,
    render,
    to_proto,
)
from servingrepo.protos import model_server_config_pb2

model_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    is_model_name
)
labels = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True).filter(is_label)
versions = st.sets(st.integers(min_value=1, max_value=MAX_VERSION), min_size=1, max_size=5)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
any_int64 = st.integers(min_value=-MAX_VERSION - 1, max_value=MAX_VERSION)


@st.composite
def pins(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of one `pin` that is allowed."""
    name, pinned = draw(model_names), draw(versions)
    return {
        "name": name,
        "base_path": f"/models/{name}",
        "versions": pinned,
        "labels": draw(st.dictionaries(labels, st.sampled_from(sorted(pinned)), max_size=3)),
    }


@st.composite
def our_configs(draw: st.DrawFn) -> ModelConfig:
    """Configs made by `pin` alone."""
    config = EMPTY
    for arguments in draw(st.lists(pins(), max_size=4)):
        config = pin(config, **arguments)
    return config


@st.composite
def any_configs(draw: st.DrawFn) -> ModelConfig:
    """Configs as anybody may have written them, nonsense included."""
    proto = model_server_config_pb2.ModelServerConfig()
    proto.model_config_list.SetInParent()
    for _ in range(draw(st.integers(0, 3))):
        model = proto.model_config_list.config.add(name=draw(any_text), base_path=draw(any_text))
        model.model_platform = draw(st.sampled_from(["", "tensorflow", "onnx"]))
        model.model_type = draw(st.integers(0, 3))
        policy = draw(st.sampled_from(["", "latest", "all", "specific"]))
        if policy == "specific":
            model.model_version_policy.specific.SetInParent()
            pinned = draw(st.lists(any_int64, max_size=3))
            model.model_version_policy.specific.versions.extend(pinned)
        elif policy == "latest":
            model.model_version_policy.latest.num_versions = draw(st.integers(0, 2**32 - 1))
        elif policy == "all":
            model.model_version_policy.all.SetInParent()
        for label, version in draw(st.dictionaries(any_text, any_int64, max_size=3)).items():
            model.version_labels[label] = version
        if draw(st.booleans()):
            model.logging_config.log_collector_config.type = draw(any_text)
    return ModelConfig(proto=proto)


@given(any_configs())
def test_render_when_parsed_again_then_the_same_bytes(config: ModelConfig) -> None:
    text = render(config)
    again = parse(text)
    assert again.proto == config.proto
    assert render(again) == text
    assert read_stamp(text) is Stamp.UNEDITED
    # Python's own reader takes all that ours takes, and the same from it.
    assert text_format.Parse(text, model_server_config_pb2.ModelServerConfig()) == config.proto


PIECES = [
    *(
        "model_config_list",
        "config",
        "name",
        "base_path",
        "version_labels",
        "key",
        "value",
        "latest",
    ),
    *("specific", "versions", "custom_model_config", "type_url", "[a/google.protobuf.Any]"),
    *("{", "}", "<", ">", "[", "]", ":", ",", ";", "'a'", '"/b"', "7", "-1", "#", "\n"),
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map(" ".join)))
def test_parse_when_any_text_then_a_config_or_config_invalid(text: str) -> None:
    try:
        config = parse(text)
    except ConfigInvalid as error:
        said = error
    else:
        assert parse(render(config)).proto == to_proto(config)
        return
    assert "\n" not in said.message
    assert said.hint


@given(our_configs())
def test_pin_when_rendered_and_parsed_then_the_same_config_without_errors(
    config: ModelConfig,
) -> None:
    text = render(config)
    assert parse(text).proto == to_proto(config)
    assert render(parse(text)) == text
    assert [found for found in check(config) if found.severity == "error"] == []


@given(our_configs(), pins())
def test_pinning_changes_one_model_and_not_the_input(
    config: ModelConfig, arguments: dict[str, Any]
) -> None:
    before = render(config)
    name = arguments["name"]
    new = pin(config, **arguments)
    assert render(config) == before
    pinned = entry(new, name)
    assert pinned is not None
    assert pinned.versions == tuple(sorted(arguments["versions"]))
    assert pinned.labels == arguments["labels"]
    assert [each for each in models(new) if each.name != name] == [
        each for each in models(config) if each.name != name
    ]
    assert render(pin(new, **arguments)) == render(new)


@given(our_configs(), pins())
def test_drop_when_the_model_was_added_then_as_before(
    config: ModelConfig, arguments: dict[str, Any]
) -> None:
    name = arguments["name"]
    without = drop(config, name)
    assert entry(without, name) is None
    assert render(drop(pin(without, **arguments), name)) == render(without)


@given(any_configs())
def test_check_when_any_config_then_never_fails_and_every_finding_is_readable(
    config: ModelConfig,
) -> None:
    for found in check(config):
        assert found.field
        assert found.message
        assert str(found).startswith(found.severity)
