"""Repositories whose models.config was there before servingrepo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import command

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = """\
model_config_list { config { name: "x" base_path: "/elsewhere/x" model_platform: "tensorflow"
model_version_policy { specific { versions: 1 } } } }
"""


@pytest.mark.parametrize("text", [ELSEWHERE, "nonsense {", "\udcff"])
def test_init_over_a_config_of_others_says_what_must_come_first(tmp_path: Path, text: str) -> None:
    config = tmp_path / "models" / "models.config"
    config.parent.mkdir()
    config.write_bytes(text.encode(errors="surrogateescape"))
    done = command("--root", tmp_path, "init")
    assert done.code == 0
    assert "is left as it is" in done.out
    assert done.out.splitlines()[-1].endswith("servingrepo config write --take-edit")
    assert config.read_bytes() == text.encode(errors="surrogateescape")


def test_config_check_tells_which_base_paths_nobody_can_look_at(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.config").write_text(ELSEWHERE)
    assert command("--root", tmp_path, "init").code == 0
    assert command("--root", tmp_path, "config", "write", "--take-edit").code == 0
    done = command("--root", tmp_path, "config", "check")
    assert done.code == 0
    assert "base paths on disk: looked at, but for /elsewhere/x" in done.out
    told = command("--root", tmp_path, "config", "check", "--json").json["result"]
    assert told["base_paths_not_looked_at"] == ["/elsewhere/x"]
