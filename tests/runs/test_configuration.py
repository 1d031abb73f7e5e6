from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from servingrepo.masking import MASK
from servingrepo.runs.configuration import LONGEST_TEXT, Configuration, read_configuration
from servingrepo.runs.listing import list_names

if TYPE_CHECKING:
    from pathlib import Path

BOMB = "a0: &a0 [1, 2]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)


def read(run: Path, **files: str) -> Configuration:
    """Read a run with these files; `__` is `/`, and `_yaml` stands for `.yaml`."""
    for name, text in files.items():
        path = run / name.replace("__", "/").replace("_yaml", ".yaml").replace("_gin", ".gin")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_configuration(list_names(str(run)))


def test_yaml_is_read_as_json_is_with_anchors_merges_and_dates(tmp_path: Path) -> None:
    text = (
        "base: &base {lr: 1.0e-3, layers: [64, 32]}\n"
        "model:\n  <<: *base\n  name: wide\n"
        "started: 2026-05-10\n"
        "1: one\n"
        "password: hunter2\n"
        "urls: ['mysql://u:hunter2@host/x']\n"
        "flag: no\nnothing: null\n"
    )
    found = read(tmp_path, config_yaml=text, sub__params_yaml="a: 1").values
    assert found == {
        "base/lr": "0.001",
        "base/layers": "[64, 32]",
        "model/lr": "0.001",
        "model/layers": "[64, 32]",
        "model/name": "wide",
        "started": '"2026-05-10"',
        "1": "one",
        "password": MASK,
        "urls": f'["mysql://{MASK}@host/x"]',
        "flag": "false",
        "nothing": "null",
        "sub/a": "1",
    }


def test_what_hydra_writes_is_found(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text(yaml.safe_dump({"optimizer": {"lr": 0.1}}))
    found = read(tmp_path)
    assert found.values == {".hydra/optimizer/lr": "0.1"}
    assert list(found.files) == [".hydra/config.yaml"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "more than 20,000 values"),
        (MERGES, "more than 20,000 values"),
        ("a: &a [*a]", "its alias a is part of itself"),
        ("[" * 500, "nested more than 64 levels"),
        ("- " * 500, "nested more than 64 levels"),
        ("x: " + "9" * 20_000, "a value has more than 10,000 characters"),
        ("x: 1" + ":1" * 20_000, "a value has more than 10,000 characters"),
        # The parser's own words for the rest, which differ from one release to the next.
        ("[" * 5_000, ""),
        ("- " * 5_000, ""),
        ("x: !!python/object/apply:os.system ['touch ran']", " at line 1"),
        ("a: b: c", " at line 1"),
        ("a: 1\n---\na: 2\n", " at line 2"),
        ("x: 2026-99-99", ""),
        ("\0", "it is no YAML"),
        ("a: *nothing", "or of nothing"),
        ("{[a]: 1}", " at line 1"),
        ("#" * (LONGEST_TEXT + 1), "more than 262,144 bytes"),
    ],
)
def test_yaml_that_is_broken_or_a_bomb_is_hashed_and_said_at_once(
    tmp_path: Path, text: str, why: str
) -> None:
    begin = time.process_time()
    found = read(tmp_path, config_yaml=text, params_yaml="a: 1")
    assert time.process_time() - begin < 2
    assert found.values == {"a": "1"}
    assert set(found.files) == {"config.yaml", "params.yaml"}
    assert list(found.unread) == ["config.yaml"]
    assert why in found.unread["config.yaml"]
    assert found.unread["config.yaml"]


def test_more_values_than_are_kept_are_said(tmp_path: Path) -> None:
    found = read(tmp_path, config_yaml="\n".join(f"k{n}: {n}" for n in range(300)))
    assert len(found.values) == 200
    assert found.unread == {"config.yaml": "the run has more than 200 values"}


def test_a_file_too_long_and_too_many_files_are_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.json").write_text('"' + "x" * (1 << 20) + '"')
    for number in range(25):
        (tmp_path / f"b{number}").mkdir()
        (tmp_path / f"b{number}/config.gin").write_text("lr = 1")
    found = read(tmp_path)
    assert (found.values, len(found.files)) == ({}, 19)
    assert found.unread == {
        "a/config.json": "it has more than 1,048,576 bytes",
        "…": "only 20 files are read, and there are more",
    }
