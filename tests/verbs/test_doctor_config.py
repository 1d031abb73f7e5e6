"""doctor on configs that people wrote: what servers refuse, hang on or read otherwise, and the text to write."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servingrepo.modelconfig
from servingrepo.verbs.doctor_rules import RULES
from tests.verbs.doctoring import configure, entry, examine, export, models, slugs, the

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = 'version_labels { key: "stable" value: 2 }'
TWO = "specific { versions: 2 }"
GOOD = f"model_config_list {{\n{entry('half', TWO)}}}\n"


@pytest.mark.parametrize(
    ("text", "slug", "fix"),
    [
        (entry("half", TWO), "config-refused", "one list: model_config_list"),
        (entry("half", TWO) + entry("other"), "config-refused", "one list: model_config_list"),
        (GOOD + GOOD, "config-refused", "keep one model_config_list"),
        ("\ufeff" + GOOD, "config-refused", "byte order mark"),
        ('{"model_config_list": {"config": []}}', "config-refused", "protobuf text"),
        ("model_config_list:\n  - config:\n    name: half\n", "config-refused", "protobuf text"),
        ("", "config-refused", "model_config_list {"),
        (GOOD.replace("versions: 2", "versions: 1_0"), "config-refused", ""),
        (GOOD.replace("versions: 2", "versions: 010"), "octal-number", "write 10"),
        (GOOD.replace(' model_platform: "tensorflow"', ""), "platform-missing", "model_platform"),
        (GOOD.replace('"tensorflow"', '"other"'), "platform-unsupported", "model_platform"),
        (
            GOOD.replace(' model_platform: "tensorflow"', " model_type: OTHER"),
            "platform-unsupported",
            "",
        ),
        (GOOD.replace("/models/half", "s3://bucket/half"), "base-path-refused", "absolute path"),
        (GOOD.replace("/models/half", "models/half"), "base-path-refused", "absolute path"),
        (GOOD.replace("/models/half", "/models/nowhere"), "base-path-missing", "nowhere/1"),
        (GOOD.replace("versions: 2", "versions: 7"), "version-missing", "versions: 2"),
        (GOOD.replace("versions: 2", ""), "nothing-pinned", "at least one"),
        (GOOD.replace(TWO, "latest { num_versions: 1 }"), "serves-at-once", "versions: 2"),
        (GOOD.replace(TWO, "all {}"), "serves-at-once", "versions: 1 versions: 2"),
        (GOOD.replace('"half" base', '"a/b" base'), "bad-name", "a-b"),
        (GOOD.replace('"half" base', '"" base'), "bad-name", ""),
        (GOOD.replace("versions: 2", f"versions: 1 }} }} {LABEL} #"), "config-refused", ""),
        (
            f"model_config_list {{\n{entry('half', TWO, more='logging_config {}')}}}\n",
            "logging-config",
            "remove",
        ),
        (f"model_config_list {{\n{entry('half', TWO) * 2}}}\n", "model-twice", "all but one"),
        (
            f"model_config_list {{\n{entry('half', TWO, labels=LABEL.replace('2', '1'))}}}\n",
            "label-not-pinned",
            "pin that version too",
        ),
        (
            f"model_config_list {{\n{entry('half', 'all {}', labels=LABEL.replace('2', '9'))}}}\n",
            "label-on-nothing",
            "move the label",
        ),
        (
            f"model_config_list {{\n{entry('half', TWO, labels=LABEL + LABEL)}}}\n",
            "label-twice",
            "one",
        ),
        ('custom_model_config { type_url: "x" }', "custom-config", "model_config_list"),
        (
            f"model_config_list {{\n{entry('half', TWO, more='model_type: TENSORFLOW')}}}\n",
            "platform-old",
            "model_platform",
        ),
        (
            GOOD.replace("model_version_policy", "model_type: TENSORFLOW model_version_policy"),
            "platform-twice",
            "remove",
        ),
        (GOOD.replace("versions: 2", "versions: 2 versions: -1"), "odd-pin", "1, 2, 3"),
        (GOOD.replace("versions: 2", "versions: 2 versions: 2"), "pinned-twice", "once"),
        (GOOD.replace(TWO, "latest {}"), "latest-zero", "num_versions: 1"),
        (
            f"model_config_list {{\n{entry('half', TWO, labels=LABEL.replace('stable', 'a b'))}}}\n",
            "bad-label",
            "a_b",
        ),
        (
            f"model_config_list {{\n{entry('half', TWO)}{entry('b', TWO, base_path='/models/half')}}}\n",
            "base-path-shared",
            "of its own",
        ),
        ("# nothing\n", "nothing-set", "model_config_list {}"),
    ],
)
def test_mistakes_of_a_config_are_found(tmp_path: Path, text: str, slug: str, fix: str) -> None:
    (models(tmp_path) / "models.config").write_text(text)
    found = examine(tmp_path)
    named = [one for one in found.findings if one.slug == slug]
    assert named, found.findings
    assert fix in named[0].fix
    assert named[0].consequence
    assert found.exit_code == 36 or named[0].severity == "warning"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_config_in_utf_16_is_found(tmp_path: Path, encoding: str) -> None:
    (models(tmp_path) / "models.config").write_bytes(GOOD.encode(encoding))
    found = examine(tmp_path)
    assert slugs(found) == ["config-refused"]
    assert "iconv" in the(found, "config-refused").fix


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("versions: 2", "versions: 1, versions: 2"),
        GOOD.replace("versions: 2", "versions: [1, 2]"),
        GOOD.replace("{", ": {"),
    ],
)
def test_a_config_that_servers_read_is_good(tmp_path: Path, text: str) -> None:
    (models(tmp_path) / "models.config").write_text(text, newline="")
    assert slugs(examine(tmp_path)) == []


def test_names_with_dots_are_good(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    export(shelf / "half.v2" / "1")
    configure(shelf, entry("half", TWO), entry("half.v2", "specific { versions: 1 }"))
    assert slugs(examine(tmp_path)) == []


def test_an_empty_base_path_is_an_error(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    (shelf / "empty").mkdir()
    configure(shelf, entry("half", TWO), entry("empty", "specific { versions: 1 }"))
    found = examine(tmp_path)
    assert slugs(found) == ["base-path-empty"]
    assert "unloaded" in the(found, "base-path-empty").consequence


@pytest.mark.parametrize(
    ("slug", "children", "named"),
    [
        ("base-path-empty", (), ""),
        ("flat-saved-model", (".",), ""),
        ("same-number", ("1", "01"), ""),
        ("cannot-load", (), "1"),
    ],
)
def test_what_is_wrong_in_a_directory_names_it(
    tmp_path: Path, slug: str, children: tuple[str, ...], named: str
) -> None:
    """Not the file with its entry: that one is right."""
    shelf = models(tmp_path)
    place = shelf / "odd"
    (place / named).mkdir(parents=True)
    for child in children:
        export(place / child)
    configure(shelf, entry("half", TWO), entry("odd", "specific { versions: 1 }"))
    (found,) = (one for one in examine(tmp_path).findings if one.slug == slug)
    assert found.path == str(place / named)


def test_a_bucket_is_not_checked_and_not_wrong(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    configure(shelf, entry("half", TWO), entry("far", TWO, base_path="gs://bucket/far"))
    found = examine(tmp_path)
    assert slugs(found) == []
    assert any("gs://bucket/far" in one for one in found.not_checked)


def test_a_model_under_another_name_is_found_by_its_path(tmp_path: Path) -> None:
    """models/saved_models/<N> under the name email_model, seen by servers below /srv/x."""
    shelf = tmp_path / "models"
    export(shelf / "saved_models" / "3")
    configure(shelf, entry("email_model", base_path="/srv/x/saved_models"))
    found = examine(tmp_path)
    assert slugs(found) == ["serves-at-once"]
    assert the(found, "serves-at-once").model == "email_model"
    assert "versions: 3" in the(found, "serves-at-once").fix


def test_models_that_no_entry_names_are_noted(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    export(shelf / "spare" / "1")
    found = examine(tmp_path)
    assert [one.slug for one in found.findings] == ["not-in-config"]
    assert the(found, "not-in-config").model == "spare"


def test_labels_are_noted_where_flags_are_unknown(tmp_path: Path) -> None:
    configure(models(tmp_path), entry("half", TWO, labels=LABEL))
    found = examine(tmp_path)
    assert [one.slug for one in found.findings] == ["labels-need-flag"]


def test_a_config_of_a_config_map_is_found(tmp_path: Path) -> None:
    """A ConfigMap's volume: models.config is a link to ..data/models.config, and ..data to a directory."""
    shelf = models(tmp_path)
    version = shelf / "..2026_01_01"
    version.mkdir()
    (shelf / "models.config").rename(version / "models.config")
    (shelf / "..data").symlink_to(version.name)
    (shelf / "models.config").symlink_to("..data/models.config")
    found = examine(tmp_path)
    assert slugs(found) == ["config-is-link"]
    assert "..data/models.config" in the(found, "config-is-link").what


def test_a_config_elsewhere_is_read(tmp_path: Path) -> None:
    shelf = models(tmp_path, config=False)
    file = configure(tmp_path / "etc", entry("half", "specific { versions: 7 }"))
    found = examine(shelf, config=file)
    assert found.config == str(file)
    assert slugs(found) == ["version-missing"]


def config_slugs() -> Iterator[str]:
    """Yield the slug of each finding that modelconfig makes."""
    folder = Path(servingrepo.modelconfig.__file__).parent
    for file in ("checks.py", "disk.py"):
        for node in ast.walk(ast.parse((folder / file).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "error",
                "warning",
                "find",
            }:
                yield from (
                    one.value
                    for one in ast.walk(node.args[0])
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )


def test_every_rule_of_configs_is_one_of_doctors() -> None:
    found = {*config_slugs()} - {"not-looked-at"}
    assert len(found) > 20
    assert found - {one.slug for one in RULES} == set()
