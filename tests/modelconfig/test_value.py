from __future__ import annotations

import re

import pytest

from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig import (
    EMPTY,
    Entry,
    decode,
    diff,
    entry,
    models,
    parse,
    pin,
    render,
    to_proto,
)
from servingrepo.modelconfig.value import OctalNumber

TWO_MODELS = """\
# kept by hand
model_config_list: {
  config: [{ name: 'zwei', base_path: "/models/" 'zwei'; model_platform: "tensorflow"
    model_version_policy < specific < versions: [0x7, 3] > >
    version_labels { key: "stable" value: 3 } version_labels { key: "canary", value: 7 } },
  { name: "eins" base_path: "/models/eins" model_type: TENSORFLOW logging_config {
      log_collector_config { type: "x" filename_prefix: "\\x6c\\141" } } }]
}
"""


def test_parse_when_written_in_every_style_of_text_format_then_the_entries() -> None:
    config = parse(TWO_MODELS)
    assert models(config) == (
        Entry(
            name="zwei",
            base_path="/models/zwei",
            platform="tensorflow",
            policy="specific",
            versions=(3, 7),
            labels={"canary": 7, "stable": 3},
        ),
        Entry(name="eins", base_path="/models/eins", platform="", policy="default", latest_count=1),
    )


def test_equal_texts_give_one_value() -> None:
    text = "model_config_list { config { name: 'm' base_path: '/models/m' model_platform: 'tensorflow' } }"
    config = parse(text)
    pin(config, name="m", base_path="/models/m", versions=[7])
    to_proto(config).model_config_list.config[0].name = "changed"
    assert parse(text) is config
    assert [(one.name, one.policy) for one in models(parse(text))] == [("m", "default")]


def test_render_when_fields_are_not_ours_then_kept_and_order_kept() -> None:
    text = render(parse(TWO_MODELS))
    assert text.index('"zwei"') < text.index('"eins"')
    assert text.index('"canary"') < text.index('"stable"')
    assert text.index("versions: 7") < text.index("versions: 3")
    assert 'filename_prefix: "la"' in text
    assert text.endswith("}\n")


def test_render_when_names_are_not_ascii_then_readable() -> None:
    config = parse(
        'model_config_list { config { name: "größe\\n\\001" base_path: "/modelle/größe" } }'
    )
    assert 'name: "größe\\n\\001"' in render(config)
    assert render(parse(render(config))) == render(config)


@pytest.mark.parametrize("value", [r"\007", r"\n\001m", ""])
def test_an_any_of_any_bytes_is_written_as_is(value: str) -> None:
    of_a_known_type = "type_url: 'type.googleapis.com/tensorflow.serving.ModelConfig'"
    config = parse(f"custom_model_config {{ {of_a_known_type} value: '{value}' }}")
    assert parse(render(config)).proto == config.proto


def test_render_when_no_models_then_an_empty_list() -> None:
    for empty in (EMPTY, parse("# nothing\n"), parse("model_config_list {}")):
        assert render(empty).split("\n", 1)[1] == "model_config_list {\n}\n"
        assert to_proto(empty).WhichOneof("config") == "model_config_list"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("model_config_list {\n  config { nam: 'x' } }", "models.config:2:12: "),
        ("model_config_list { config { name: 'a' name: 'b' } }", ":1:40: "),
        ("model_config_list { config { model_type: FOO } }", ":1:42: "),
        ("model_config_list {} custom_model_config {}", ":1:22: "),
        ("model_config_list { config { name: 'a' ", ":1:40: "),
        ("model_config_list { config { name: '\\377' } }", ":1:"),
        ("no such thing", ":1:1: "),
        ("\ufeffmodel_config_list {}", ":1:1: "),
        (
            "model_config_list{config{model_version_policy{specific{versions:9223372036854775808}}}}",
            "out of range",
        ),
        ("custom_model_config { [example.com/no.Such] {} }", "no.Such"),
        (
            "custom_model_config {"
            + "[type.googleapis.com/google.protobuf.Any] {" * 3000
            + "}" * 3001,
            "nested",
        ),
        ('{"model_config_list": {}}', "JSON"),
        ("model_config_list:\n  config:\n  - name: m\n", "YAML"),
    ],
)
def test_parse_when_nonsense_then_says_where(text: str, where: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert where in caught.value.message
    assert len(caught.value.message) < 1000


def test_parse_when_there_are_several_mistakes_then_all_of_them() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse("model_config_list { config {\n nam: 'a'\n base_path:\u00a0'\\_'\n} }", source="/a/b")
    assert caught.value.message.startswith("/a/b:2:2: ")
    assert [one.split(" ", 1)[0] for one in caught.value.problems] == ["/a/b:3:12:", "/a/b:3:14:"]
    assert [one.column for one in caught.value.details["mistakes"]] == [2, 12, 14]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_decode_when_utf_16_then_said(encoding: str) -> None:
    with pytest.raises(ConfigInvalid, match="UTF-16"):
        decode("model_config_list {}".encode(encoding))


def test_decode_when_not_utf_8_then_says_where() -> None:
    with pytest.raises(ConfigInvalid, match=r"^/a:2:4: the byte 0xF6"):
        decode(b"# \xc3\xa4\n# \xc3\xa4\xf6", source="/a")
    assert decode(b"# \xc3\xa4") == "# \u00e4"


def test_parse_when_numbers_are_octal_then_remembered() -> None:
    config = parse(
        "model_config_list { config { name: 'm'\nmodel_version_policy { specific { versions: [00000123, 7] } }\n"
        "version_labels { key: 'a' value: -010 } } }"
    )
    assert config.octal_numbers == (
        OctalNumber(model="m", field="model_version_policy", line=2, written="00000123", value=83),
        OctalNumber(model="m", field="version_labels", line=3, written="-010", value=-8),
    )
    assert [one.decimal for one in config.octal_numbers] == ["123", "-10"]
    assert models(config)[0].versions == (7, 83)


def test_parse_when_zero_bytes_then_refused_as_the_server_does() -> None:
    with pytest.raises(ConfigInvalid, match=r"^other\.config has zero bytes"):
        parse("", source="other.config")


@pytest.mark.parametrize(
    ("policy", "kind", "count"),
    [
        ("", "default", 1),
        ("model_version_policy {}", "default", 1),
        ("model_version_policy { latest {} }", "latest", 1),
        ("model_version_policy { latest { num_versions: 3 } }", "latest", 3),
        ("model_version_policy { all {} }", "all", 0),
        ("model_version_policy { specific {} }", "specific", 0),
    ],
)
def test_entry_when_policies_differ_then_said(policy: str, kind: str, count: int) -> None:
    found = entry(parse(f"model_config_list {{ config {{ name: 'm' {policy} }} }}"), "m")
    assert found is not None
    assert (found.policy, found.latest_count, found.versions) == (kind, count, ())


def test_entry_when_the_model_is_not_there_then_none() -> None:
    assert entry(EMPTY, "m") is None


def test_of_a_model_listed_twice_the_first_entry_counts() -> None:
    config = parse(
        "model_config_list { config { name: 'm' base_path: '/1' } config { name: 'n' base_path: '/n' } "
        "config { name: 'm' base_path: '/2' } }"
    )
    found = entry(config, "m")
    assert found is not None
    assert found.base_path == "/1"
    assert [one.base_path for one in models(config)] == ["/1", "/n", "/2"]
    assert entry(config, "o") is None


def test_of_a_label_given_twice_the_last_wins() -> None:
    pair = "version_labels {{ key: '{}' value: {} }}"
    text = "".join(pair.format(key, at) for key, at in [("a", 1), ("b", 2), ("\\141", 3)])
    config = parse(f"model_config_list {{ config {{ name: 'm' {text} }} }}")
    assert config.repeated_labels == (("m", "a"),)
    assert models(config)[0].labels == {"a": 3, "b": 2}


def test_to_proto_when_changed_then_the_config_is_not() -> None:
    config = parse(TWO_MODELS)
    before = render(config)
    to_proto(config).model_config_list.config[0].name = "other"
    assert render(config) == before


def test_diff_when_texts_differ_then_unified() -> None:
    change = diff("a\nb\n", "a\nc\n", old="models.config", new="new")
    assert change == "--- models.config\n+++ new\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert diff("a\n", "a\n") == ""
    assert re.search(r"^\+c$", change, re.MULTILINE)
