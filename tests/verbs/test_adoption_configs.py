"""adopt: a models.config as people write it. What TensorFlow Serving takes is adopted, what it refuses explained."""

from __future__ import annotations

import codecs
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import ConfigInvalid, RepositoryDamaged
from servingrepo.modelconfig import entry as entry_of
from servingrepo.repository.config import read_config
from tests.support import command, new_repository
from tests.verbs.trees import entry, facts, pins, taken, versions, write_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository


def written(root: Path, data: bytes) -> OpenRepository:
    """Make a tree of models a and b with this models.config a repository."""
    versions(root / "models" / "a", 1, 2)
    versions(root / "models" / "b", 1)
    (root / "models" / "models.config").write_bytes(data)
    return new_repository(root)


def lists(root: Path, **rest: str) -> str:
    listed = "".join(entry(root, name, more) for name, more in rest.items())
    return f"model_config_list {{\n{listed}}}\n"


@pytest.mark.parametrize(
    ("change", "pinned"),
    [
        (lambda text: text.replace("\n", "\r\n"), (2,)),
        (lambda text: text.replace("\n", " "), (2,)),
        (lambda text: f"# of an old Mac\r\n{text}", (2,)),
        (lambda text: text.replace("versions: 2", "versions: 1, versions: 2"), (1, 2)),
        (lambda text: text.replace("versions: 2", "versions: 2; versions: 1;"), (1, 2)),
        (lambda text: text.replace("versions: 2", "versions: [1, 2]"), (1, 2)),
        (lambda text: text.replace("versions: 2", "versions: 0x2"), (2,)),
        (lambda text: text.replace("{", "<").replace("}", ">"), (2,)),
        (lambda text: text.replace('"', "'"), (2,)),
        (lambda text: text.replace("specific {", "specific: {"), (2,)),
    ],
    ids=[
        *("crlf", "one line", "mixed", "commas", "semicolons", "list", "hexadecimal", "angles"),
        *("quotes", "colon"),
    ],
)
def test_what_a_server_reads_is_adopted(
    change: Callable[[str], str], pinned: tuple[int, ...], tmp_path: Path
) -> None:
    """And an undo brings back the bytes."""
    data = change(lists(tmp_path, a=pins(2), b=pins(1))).encode()
    repo = written(tmp_path, data)
    before = facts(tmp_path)
    done = repo.adopt((), all=True)
    assert {one.model: one.pins for one in done.models} == {"a": pinned, "b": (1,)}
    found = entry_of(read_config(repo.value).config, "a")
    assert found is not None
    assert found.versions == pinned
    repo.undo_adoption()
    assert repo.value.layout.config.read_bytes() == data
    assert facts(tmp_path) == before


def config(root: Path, name: str) -> str:
    """Return an entry without a list around it."""
    return entry(root, name, pins(1)).strip()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: (config(root, "a") + config(root, "b")).encode(), "into one list: model"),
        (lambda root: (lists(root, a=pins(1)) * 2).encode(), "keep one model_config_list"),
        (lambda root: codecs.BOM_UTF8 + lists(root, a=pins(1)).encode(), "byte order mark"),
        (lambda root: lists(root, a=pins(1)).encode("utf-16"), "UTF-16"),
        (lambda root: lists(root, a=pins(1)).encode("utf-16-le"), "UTF-16"),
        (lambda _: b'{"model_config_list": {"config": [{"name": "a"}]}}', "JSON"),
        (lambda _: b"model_config_list:\n  config:\n  - name: a\n", "YAML"),
        (lambda root: lists(root, a=pins(1)).encode() + b"\xff", "UTF-8"),
        (lambda root: lists(root, a=pins(1)).encode()[:-4], "models.config:"),
        (lambda root: lists(root, a="versions: 1").encode(), "versions"),
    ],
    ids=[
        *("no list", "twice", "bom", "utf-16", "utf-16-le", "json", "yaml", "bytes", "cut off"),
        "misplaced",
    ],
)
def test_what_a_server_refuses_is_explained(
    make: Callable[[Path], bytes], said: str, tmp_path: Path
) -> None:
    """Nothing is adopted by half: the entries of such a file are not known."""
    data = make(tmp_path)
    repo = written(tmp_path, data)
    before = facts(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(ConfigInvalid) as caught:
            repo.adopt((), all=True, dry_run=dry_run)
        assert said in f"{caught.value.message} {caught.value.problems} {caught.value.hint}"
        assert "models.config" in caught.value.message
    assert repo.value.layout.config.read_bytes() == data
    assert facts(tmp_path) == before
    assert repo.models() == ()


def test_an_entry_given_twice_is_explained(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1, 2)
    versions(tmp_path / "models" / "b", 1)
    repo = taken(
        tmp_path, entry(tmp_path, "a", pins(1)), entry(tmp_path, "a", pins(2)), entry(tmp_path, "b")
    )
    left = {one.model: one.reason for one in repo.adopt((), all=True, dry_run=True).left}
    assert {*left} == {"a"}
    assert "listed 2 times" in left["a"]
    with pytest.raises(ConfigInvalid, match="listed 2 times"):
        repo.adopt(["a"])


def test_a_custom_config_is_left_alone(tmp_path: Path) -> None:
    """A server that takes it is not the published one; a list of models would put an end to it."""
    data = b'custom_model_config { type_url: "x" }'
    repo = written(tmp_path, data)
    left = repo.adopt((), all=True, dry_run=True).left
    assert {one.model for one in left} == {"a", "b"}
    assert "custom_model_config" in left[0].reason
    with pytest.raises(ConfigInvalid, match="custom_model_config"):
        repo.adopt((), all=True)
    assert repo.value.layout.config.read_bytes() == data


def test_an_entry_of_another_platform_is_kept(tmp_path: Path) -> None:
    """It stays unmanaged as it is, field by field, and so does what servingrepo knows nothing of."""
    versions(tmp_path / "models" / "a", 1)
    other = entry(tmp_path, "jax", 'model_platform: "jax" model_version_policy { all {} }')
    versions(tmp_path / "models" / "jax", 1)
    repo = taken(tmp_path, entry(tmp_path, "a"), other)
    before = entry_of(read_config(repo.value).config, "jax")
    done = repo.adopt((), all=True)
    assert [one.model for one in done.models] == ["a"]
    assert entry_of(read_config(repo.value).config, "jax") == before
    assert [(row.model, row.ours) for row in repo.list()] == [("a", True), ("jax", False)]


def test_a_config_map_is_refused_and_can_be_named(tmp_path: Path) -> None:
    """Kubernetes mounts it as models.config > ..data/models.config > ..2026/models.config."""
    versions(tmp_path / "models" / "a", 1, 2)
    mounted = tmp_path / "models" / "..2026_11_30"
    mounted.mkdir()
    (mounted / "models.config").write_text(lists(tmp_path, a=pins(1)))
    (tmp_path / "models" / "..data").symlink_to("..2026_11_30")
    path = tmp_path / "models" / "models.config"
    path.symlink_to("..data/models.config")
    repo = new_repository(tmp_path)
    with pytest.raises(RepositoryDamaged) as caught:
        repo.adopt((), all=True)
    assert "ConfigMap" in (caught.value.hint or "")
    assert repo.models() == ()
    path.unlink()
    elsewhere = tmp_path / "etc"
    elsewhere.mkdir()
    for name in ("..2026_11_30", "..data"):
        (tmp_path / "models" / name).rename(elsewhere / name)
    (elsewhere / "models.config").symlink_to("..data/models.config")
    done = repo.adopt((), all=True, config=elsewhere / "models.config")
    assert [(one.model, one.pins) for one in done.models] == [("a", (1,))]
    assert (elsewhere / "models.config").is_symlink()


def test_several_adoptions_at_once_adopt_once(tmp_path: Path) -> None:
    """Whoever comes second says that it is done, or that something changed, and changes nothing."""
    for name in ("a", "b", "push/c"):
        versions(tmp_path / "models" / name, 1, 2)
    at = entry(tmp_path, "c", base_path=f"{tmp_path}/models/push/c")
    write_config(tmp_path, entry(tmp_path, "a"), entry(tmp_path, "b"), at)
    repo = new_repository(tmp_path)
    call = [sys.executable, "-m", "servingrepo", "--root", str(tmp_path), "adopt", "--all"]
    several = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = []
    for process in several:
        _, err = process.communicate(timeout=60)
        ends.append(process.returncode)
        assert "Traceback" not in err
    assert 0 in ends
    assert {*ends} <= {0, 25, 41}, ends
    again = servingrepo.open(tmp_path)
    assert [one.action for one in again.history()] == ["adopt"] * 3
    assert [row.versions for row in again.list()] == [(1, 2)] * 3
    assert repo.recover() == ()
    assert command("--root", tmp_path, "verify").code == 0
