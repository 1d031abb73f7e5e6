from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.embedded.config import ModelEntry, ServerConfig
from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.text_files import read_models
from servingrepo.embedded.versions import VersionPolicy

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """# a comment
model_config_list: <
  config: [ { name: 'm', base_path: "/mo" "dels/m"; model_platform: "tensorflow"
    model_version_policy { specific { versions: [1, 0x2] } }
    version_labels { key: "a" value: 1 } version_labels { key: "a" value: 2 }
    logging_config {} } ]
>
"""


def read(tmp_path: Path, text: str) -> ServerConfig | Status:
    file = tmp_path / "models.config"
    file.write_text(text)
    return read_models(str(file))


def test_read_models_takes_everything_that_text_format_allows(tmp_path: Path) -> None:
    entry = ModelEntry(
        name="m",
        base_path="/models/m",
        platform="tensorflow",
        policy=VersionPolicy("specific", specific=(1, 2)),
        labels={"a": 2},
        has_logging=True,
    )
    assert read(tmp_path, GOOD) == ServerConfig("list", (entry,))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy("latest", 1)),
        ("model_version_policy {}", VersionPolicy("latest", 1)),
        ("model_version_policy { latest {} }", VersionPolicy("latest", 0)),
        ("model_version_policy { latest { num_versions: 3 } }", VersionPolicy("latest", 3)),
        ("model_version_policy { all {} }", VersionPolicy("all")),
        ("model_version_policy { specific {} }", VersionPolicy("specific")),
    ],
)
def test_read_models_policies(tmp_path: Path, text: str, policy: VersionPolicy) -> None:
    config = read(tmp_path, f'model_config_list {{ config {{ name: "m" {text} }} }}')
    assert isinstance(config, ServerConfig)
    assert config.models[0].policy == policy


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("# nothing\n", "unset"),
        ("model_config_list {}", "list"),
        ("custom_model_config {}", "custom"),
    ],
)
def test_read_models_kinds(tmp_path: Path, text: str, kind: str) -> None:
    config = read(tmp_path, text)
    assert isinstance(config, ServerConfig)
    assert config.kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "model_config_list { config { nam: 'm' } }",
        "model_config_list { config { model_type: NO_SUCH } }",
        "model_config_list {} custom_model_config {}",
        "model_config_list { config { name: 'a' name: 'b' } }",
        "model_config_list {",
        "\ufeffmodel_config_list {}",
        "model_config_list\u00a0{}",
        "model_config_list\u3000{}",
        "model_config_list {}\u0085",
        "model_config_list {} \x01",
        "model_config_list { config { name: '\\_' } }",
        *(
            f"model_config_list {{ config {{ version_labels {{ key: 'a' value: {number} }} }} }}"
            for number in ("1_000", "+1", "0o17", "0b1", "00000189", "\u0661")
        ),
    ],
)
def test_read_models_that_does_not_parse(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.config"
    assert read(tmp_path, text) == Status(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'")


def test_read_models_takes_bytes_of_any_kind_in_comments(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_bytes(b"# \xff\x01\nmodel_config_list {}")
    assert read_models(str(tmp_path / "models.config")) == ServerConfig("list")


def test_read_models_missing_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    missing = Status(Code.NOT_FOUND, f"{path}; No such file or directory")
    assert read_models(str(path)) == missing
    assert read(tmp_path, "") == Status(Code.INVALID_ARGUMENT, f"{path}; Invalid argument")
