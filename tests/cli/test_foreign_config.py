"""Repositories whose models.config was there before servingrepo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.testing.exports import write_export
from tests.support import command

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = """\
model_config_list { config { name: "x" base_path: "/elsewhere/x" model_platform: "tensorflow"
model_version_policy { specific { versions: 1 } } } }
"""


@pytest.mark.parametrize("text", [ELSEWHERE, "nonsense {", "\udcff", "x\u00a0{}"])
def test_init_over_a_config_of_others_says_what_must_come_first(tmp_path: Path, text: str) -> None:
    config = tmp_path / "models" / "models.config"
    config.parent.mkdir()
    config.write_bytes(text.encode(errors="surrogateescape"))
    done = command("--root", tmp_path, "init")
    assert done.code == 0
    assert "stays as it is" in done.out
    assert done.out.splitlines()[-1].endswith("servingrepo config write --take-edit")
    assert config.read_bytes() == text.encode(errors="surrogateescape")


def test_config_check_tells_which_base_paths_nobody_can_look_at(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.config").write_text(ELSEWHERE)
    assert command("--root", tmp_path, "init").code == 0
    assert command("--root", tmp_path, "config", "write", "--take-edit").code == 0
    done = command("--root", tmp_path, "config", "check")
    assert done.code == 0
    assert "base paths on disk: checked, except /elsewhere/x" in done.out
    told = command("--root", tmp_path, "config", "check", "--json").json["result"]
    assert told["base_paths_not_looked_at"] == ["/elsewhere/x"]


ONLY_FOR_PYTHON = """\
model_config_list { config { name: "x" base_path: "/elsewhere/x" model_platform: "tensorflow"
model_version_policy { specific {\u00a0versions: 1_000 } } } }
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "check", "models/models.config"),
        ("--root", ".", "config", "check"),
        ("--root", ".", "config", "write", "--take-edit"),
        ("--root", ".", "serve", "x@1"),
        ("--root", ".", "unserve", "x"),
    ],
)
def test_a_config_that_only_python_reads_is_refused(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    write_export(tmp_path / "run")
    root = ("--root", tmp_path)
    assert command(*root, "init").code == 0
    assert command(*root, "promote", tmp_path / "run", "--model", "x", "--no-smoke").code == 0
    config = tmp_path / "models" / "models.config"
    config.write_text(ONLY_FOR_PYTHON)
    done = command(*arguments, cwd=tmp_path)
    assert done.code == 36
    assert "models.config:2:34: " in done.err
    assert "U+00A0" in done.err
    assert "models.config:2:45: 1_000 " in done.err
    assert config.read_text() == ONLY_FOR_PYTHON


def test_octal_numbers_are_warned_of_before_and_when_they_are_taken_over(tmp_path: Path) -> None:
    config = tmp_path / "models" / "models.config"
    config.parent.mkdir()
    config.write_text(ELSEWHERE.replace("versions: 1", "versions: 00000123"))
    assert command("--root", tmp_path, "init").code == 0
    checked = command("config", "check", config)
    taken = command("--root", tmp_path, "config", "write", "--take-edit")
    for done in (checked, taken):
        assert done.code == 0
        warned = next(line for line in done.out.splitlines() if "00000123 is octal" in line)
        assert "reads 83, not 123" in warned
    assert "versions: 83" in config.read_text()
    again = command("--root", tmp_path, "config", "write", "--json").json["result"]
    assert again["findings"] == []


def test_a_config_with_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(ELSEWHERE.replace("\n", "\r\n").encode())
    assert command("config", "check", tmp_path / "c").code == 0
    (tmp_path / "c").write_bytes(b"# of an old Mac\rmodel_config_list {")
    assert "nothing is set" in command("config", "check", tmp_path / "c").out
