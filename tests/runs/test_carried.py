"""Runs that became something else on their way: by Git LFS, Windows, macOS, or a cache that they link to."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from servingrepo.errors import DamagedExport, NoSavedModel, UnsafeExport
from servingrepo.runs.export import export_model
from servingrepo.runs.scan import scan_run
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.testing.exports import write_export
from tests.runs.packing import LFS_POINTER
from tests.support import command, new_repository, run_with

WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/words",
        WARMUP,
    ],
)
def test_a_git_lfs_pointer_in_an_export_is_named(tmp_path: Path, name: str) -> None:
    run = run_with(tmp_path / "run", offset=1, variables=True, assets={"words": b"a\n"})
    file = run / "saved_model" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(LFS_POINTER)
    repo = new_repository(tmp_path / "repo")
    with pytest.raises(DamagedExport, match=f"Git LFS.*{name}") as caught:
        repo.promote(run, model="m", smoke=False)
    assert "git lfs pull" in str(caught.value.hint)
    assert "truncated" not in caught.value.message
    done = command("scan", run)
    assert (done.code, "git lfs pull" in done.err) == (22, True)


def test_all_git_lfs_pointers_of_an_export_are_named_at_once(tmp_path: Path) -> None:
    export = write_export(tmp_path / "saved_model", variables=True)
    names = [
        "saved_model.pb",
        *(f"variables/{one.name}" for one in (export / "variables").iterdir()),
    ]
    for name in names:
        (export / name).write_bytes(LFS_POINTER)
    (defect,) = inspect_export(export).defects
    assert all(name in defect.message for name in names)


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.onnx", "model.tar.gz"])
def test_a_git_lfs_pointer_in_place_of_a_model_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LFS_POINTER)
    for given in (tmp_path, tmp_path / name):
        if given.name == "model.tar.gz":
            continue  # an archive: see test_archives
        with pytest.raises(NoSavedModel, match=f"{name}: a Git LFS pointer") as caught:
            scan_run(given)
        assert "git lfs pull" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_export_of_a_git_lfs_pointer_says_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LFS_POINTER)
    for given in (tmp_path, tmp_path / name):
        with pytest.raises((DamagedExport, NoSavedModel), match="Git LFS pointer") as caught:
            export_model(given)
        assert "git lfs pull" in str(caught.value.hint)


def test_names_with_backslashes_are_explained_where_they_hide_an_export(tmp_path: Path) -> None:
    export = write_export(tmp_path / "made/saved_model", variables=True, assets={"words": b"a\n"})
    run = tmp_path / "run"
    run.mkdir()
    for file in export.rglob("*"):
        if file.is_file():
            name = str(file.relative_to(export.parent)).replace("/", "\\")
            (run / name).write_bytes(file.read_bytes())
    with pytest.raises(NoSavedModel, match="a name with backslashes") as caught:
        scan_run(run)
    assert any("saved_model\\" in problem for problem in caught.value.problems)
    assert "unzip" in str(caught.value.hint)


@pytest.mark.parametrize("part", ["variables", "assets"])
def test_names_with_backslashes_are_explained_where_they_hide_a_part(
    tmp_path: Path, part: str
) -> None:
    run = run_with(tmp_path / "run", offset=1, variables=True, assets={"words": b"a\n"})
    export = run / "saved_model"
    for file in (export / part).iterdir():
        file.rename(export / f"{part}\\{file.name}")
    (export / part).rmdir()
    with pytest.raises(DamagedExport) as caught:
        new_repository(tmp_path / "repo").promote(run, model="m", smoke=False)
    assert caught.value.details["defects"] == ["backslashes"]


def test_what_macos_leaves_in_a_directory_makes_no_noise(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=1, variables=True)
    quiet = command("scan", run, "--json").json["result"]
    for place in (run, run / "saved_model", run / "saved_model/variables"):
        for name in [one.name for one in place.iterdir()]:
            (place / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
        (place / ".DS_Store").write_bytes(b"Bud1")
    (run / "__MACOSX/saved_model").mkdir(parents=True)
    (run / "__MACOSX/saved_model/saved_model.pb").write_bytes(b"\x00\x05\x16\x07")
    loud = command("scan", run, "--json").json["result"]
    assert loud["scan"]["others"] == quiet["scan"]["others"] == []
    assert loud["inspection"]["notes"] == quiet["inspection"]["notes"]


def cached(tmp_path: Path, *names: str) -> Path:
    """A run whose files are links into a cache beside it, as those of DVC and Hugging Face are."""
    run = run_with(tmp_path / "all/run", offset=1, variables=True)
    cache = tmp_path / "all/cache"
    cache.mkdir()
    for number, name in enumerate(names):
        file = run / "saved_model" / name
        file.rename(cache / f"{number:02x}")
        file.symlink_to(f"{'../' * (1 + len(Path(name).parts))}cache/{number:02x}")
    return run


@pytest.mark.parametrize(
    "names",
    [
        ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"),
        ("variables",),
        (".",),
    ],
    ids=str,
)
def test_a_run_of_links_into_a_cache_says_what_works(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    run = cached(tmp_path, *names)
    repo = new_repository(tmp_path / "repo")
    with pytest.raises(UnsafeExport) as caught:
        repo.promote(run, model="m", smoke=False)
    hint = str(caught.value.hint)
    subprocess.run(["cp", "-rL", run, tmp_path / "copy"], check=True)
    assert "cp -rL" in hint
    assert repo.promote(tmp_path / "copy", model="m", smoke=False).version == 1
    if names == ("variables",):
        return  # that export is found, and refused when its files are listed
    before, _, rest = hint.partition(" --saved-model ")
    both = before.rpartition(": ")[2]
    saved_model = rest.partition(";")[0]
    assert repo.promote(both, model="n", saved_model=saved_model, smoke=False).version == 1
    assert shlex.quote(str(run)) in rest


def test_a_link_to_nothing_in_a_run_is_not_to_be_copied(tmp_path: Path) -> None:
    (tmp_path / "saved_model").symlink_to("gone")
    with pytest.raises(UnsafeExport) as caught:
        scan_run(tmp_path)
    assert "cp -rL" not in str(caught.value.hint)
