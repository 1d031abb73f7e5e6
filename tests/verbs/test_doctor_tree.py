"""doctor on trees that people made: what is wrong there, what it means, and the command that corrects it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from servingrepo.savedmodel.warmup import FILE
from servingrepo.testing.exports import write_export
from tests.support import new_repository, without_root
from tests.verbs.doctoring import (
    compose,
    configure,
    entry,
    examine,
    export,
    models,
    slugs,
    the,
)

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.verbs.doctor import Examination


def fixed(found: Examination, slug: str) -> None:
    """Type the command of a finding."""
    subprocess.run(["bash", "-ec", the(found, slug).fix.partition(";")[0]], check=True)


def test_a_sane_tree_has_no_findings(tmp_path: Path) -> None:
    models(tmp_path)
    found = examine(tmp_path, compose=compose(tmp_path), deep=True)
    assert found.findings == ()
    assert (found.models, found.versions, found.exit_code) == (1, 2, 0)
    assert "adopt --all" in found.next


def test_root_and_models_directory_are_the_same(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    (shelf / "half" / "9").mkdir()
    assert examine(tmp_path).findings == examine(shelf).findings != ()


def test_a_flat_saved_model_gets_a_version(tmp_path: Path) -> None:
    shelf = tmp_path / "models"
    export(shelf / "p297")
    found = examine(tmp_path)
    assert slugs(found) == ["flat-saved-model"]
    assert found.exit_code == 39
    fixed(found, "flat-saved-model")
    assert slugs(examine(tmp_path, deep=True)) == []
    assert (shelf / "p297" / "1" / "saved_model.pb").exists()


def test_a_saved_model_twice_is_found(tmp_path: Path) -> None:
    export(tmp_path / "models" / "p297")
    export(tmp_path / "models" / "p297" / "0001")
    found = examine(tmp_path)
    assert slugs(found) == ["two-saved-models", "odd-version-name"]
    assert "0001" in the(found, "odd-version-name").what
    fixed(found, "odd-version-name")
    assert slugs(examine(tmp_path)) == ["two-saved-models"]


@pytest.mark.parametrize("name", ["007", "-1", "+8", " 5"])
def test_odd_names_of_versions_are_found(tmp_path: Path, name: str) -> None:
    export(models(tmp_path, config=False) / "half" / name)
    assert "odd-version-name" in slugs(examine(tmp_path))


@pytest.mark.parametrize(("name", "number"), [("v1", 3), ("1.0", 3), ("v7", 7), ("version-12", 12)])
def test_names_that_are_no_version_are_found(tmp_path: Path, name: str, number: int) -> None:
    """The fix takes the number that the name means if it is free, else the next one."""
    shelf = models(tmp_path, config=False)
    export(shelf / "half" / name)
    found = examine(tmp_path)
    assert slugs(found) == ["not-a-version"]
    fixed(found, "not-a-version")
    assert (shelf / "half" / str(number) / "saved_model.pb").exists()
    assert slugs(examine(tmp_path)) == []


def test_a_base_path_with_odd_names_alone_is_empty(tmp_path: Path) -> None:
    export(tmp_path / "models" / "half" / "v1")
    assert set(slugs(examine(tmp_path))) == {"base-path-empty", "not-a-version"}


def spoil(shelf: Path, how: str) -> None:
    place = shelf / "half" / "3"
    match how:
        case "file":
            place.write_text("x")
        case "broken link":
            place.symlink_to("nowhere")
        case "empty":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "too deep":
            export(place / "saved_model")
        case "no variables data":
            export(place)
            next((place / "variables").glob("*.data-*")).unlink()
        case "no graph":
            export(place)
            (place / "saved_model.pb").write_bytes(b"")
        case "lfs pointer":
            export(place)
            (place / "saved_model.pb").write_text(
                "version https://git-lfs.github.com/spec/v1\noid x\n"
            )


HOW = (
    "file",
    "broken link",
    "empty",
    "fifo",
    "too deep",
    "no variables data",
    "no graph",
    "lfs pointer",
)


@pytest.mark.parametrize("how", HOW)
def test_highest_version_that_cannot_load_is_an_error(tmp_path: Path, how: str) -> None:
    """Nothing pins versions, so the next start would load it."""
    spoil(models(tmp_path, config=False), how)
    found = examine(tmp_path)
    assert slugs(found) == ["cannot-load"]
    assert found.exit_code in {20, 22, 36}
    assert "ends with 255" in the(found, "cannot-load").consequence


@pytest.mark.parametrize("how", HOW)
def test_damaged_version_that_is_not_pinned_is_a_warning(tmp_path: Path, how: str) -> None:
    spoil(models(tmp_path), how)
    found = examine(tmp_path)
    assert slugs(found) == ["unserved-damaged"]
    assert found.exit_code == 0


@pytest.mark.parametrize("how", ["file", "broken link", "empty", "too deep"])
def test_commands_for_what_is_no_version_work(tmp_path: Path, how: str) -> None:
    spoil(models(tmp_path), how)
    found = examine(tmp_path)
    subprocess.run(
        ["bash", "-ec", the(found, "unserved-damaged").fix.partition(";")[0]],
        check=True,
    )
    assert slugs(examine(tmp_path)) == []


def test_a_version_without_variables_fails_requests(tmp_path: Path) -> None:
    shelf = models(tmp_path, config=False)
    shutil.rmtree(shelf / "half" / "2" / "variables")
    found = examine(tmp_path)
    assert slugs(found) == ["requests-fail"]
    assert the(found, "requests-fail").defect == "variables-missing"
    assert "AVAILABLE" in the(found, "requests-fail").consequence


def test_warm_up_that_fails_the_load_is_found(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    file = shelf / "half" / "2" / FILE
    file.parent.mkdir()
    file.write_bytes(b"no records at all, but long enough for a header")
    found = examine(tmp_path)
    assert slugs(found) == ["warm-up-fails"]
    fixed(found, "warm-up-fails")


def test_changed_bytes_need_a_deep_look(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    data = next((shelf / "half" / "2" / "variables").glob("*.data-*"))
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    found = examine(tmp_path)
    assert slugs(found) == []
    assert any("bytes of variables" in one for one in found.not_checked)
    found = examine(tmp_path, deep=True)
    assert slugs(found) == ["content-changed"]
    assert the(found, "content-changed").defect == "tensor-damaged"
    assert not any("bytes of variables" in one for one in found.not_checked)


def test_fingerprint_of_another_model_is_found(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    write_export(shelf / "half" / "2", variables=True, fingerprint=True)
    write_export(tmp_path / "other", variables=True, fingerprint=True, offset=9.0)
    shutil.copy(tmp_path / "other" / "variables" / "variables.index", shelf / "half/2/variables")
    assert "content-changed" in slugs(examine(tmp_path))


def test_several_names_of_one_number_are_found(tmp_path: Path) -> None:
    export(models(tmp_path) / "half" / "02")
    found = examine(tmp_path)
    assert slugs(found) == ["same-number", "odd-version-name"]
    assert the(found, "same-number").severity == "error"


def test_links_as_dvc_makes_them_are_explained(tmp_path: Path) -> None:
    """Files of a version are links into a cache beside the tree, which a container does not mount."""
    shelf = models(tmp_path)
    cache = tmp_path / ".dvc" / "cache" / "files" / "md5" / "ab"
    cache.mkdir(parents=True)
    graph = shelf / "half" / "2" / "saved_model.pb"
    graph.rename(cache / "cdef")
    graph.symlink_to(cache / "cdef")
    found = examine(tmp_path)
    assert slugs(found) == ["link-out"]
    assert "dvc checkout --relink" in the(found, "link-out").fix
    assert any("saved_model.pb" in one for one in found.not_checked)
    assert slugs(examine(tmp_path, compose=compose(tmp_path))) == ["cannot-load", "link-out"]


def test_versions_as_git_annex_links_them_are_explained(tmp_path: Path) -> None:
    shelf = models(tmp_path, config=False)
    (shelf / "half" / "3").symlink_to("../../.git/annex/objects/ab/cd/SHA256E-s1--x/3")
    found = examine(tmp_path)
    assert "git annex" in the(found, "link-out").fix
    (shelf / "half" / "3").unlink()
    (shelf / "half" / "3").symlink_to("../.git/annex/objects/ab/cd/SHA256E-s1--x/3")
    found = examine(tmp_path)
    assert slugs(found) == ["cannot-load"]
    assert "git annex get" in the(found, "cannot-load").fix


def test_served_links_out_of_a_mounted_tree_are_errors(tmp_path: Path) -> None:
    """A server on this machine can follow them; a container that mounts the tree alone cannot."""
    shelf = models(tmp_path)
    (shelf / "half" / "2").rename(tmp_path / "elsewhere")
    (shelf / "half" / "2").symlink_to(tmp_path / "elsewhere")
    assert slugs(examine(tmp_path)) == ["link-out"]
    found = examine(tmp_path, compose=compose(tmp_path))
    assert slugs(found) == ["cannot-load", "link-out"]
    fixed(found, "link-out")
    assert slugs(examine(tmp_path, compose=compose(tmp_path))) == []


def test_an_unserved_link_out_is_named_once(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    (shelf / "half" / "1").rename(tmp_path / "elsewhere")
    (shelf / "half" / "1").symlink_to(tmp_path / "elsewhere")
    assert slugs(examine(tmp_path)) == ["link-out"]


def test_a_model_behind_a_link_out_is_missing_in_containers(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    (shelf / "half").rename(tmp_path / "elsewhere")
    (shelf / "half").symlink_to(tmp_path / "elsewhere")
    assert slugs(examine(tmp_path)) == ["link-out"]
    assert slugs(examine(tmp_path, compose=compose(tmp_path))) == ["base-path-missing", "link-out"]


def test_links_inside_a_tree_are_followed(tmp_path: Path) -> None:
    shelf = models(tmp_path, config=False)
    (shelf / ".store").mkdir()
    (shelf / "half" / "2").rename(shelf / ".store" / "x")
    (shelf / "half" / "2").symlink_to("../.store/x")
    found = examine(tmp_path, deep=True)
    assert slugs(found) == []
    assert (found.models, found.versions) == (1, 2)


def test_nested_models_are_found(tmp_path: Path) -> None:
    shelf = tmp_path / "models"
    for version in (20201016, 20210118):
        export(shelf / "push" / "lr" / str(version))
    configure(shelf, entry("lr", "specific { versions: 20210118 }", base_path="/models/push/lr"))
    found = examine(tmp_path)
    assert found.findings == ()
    assert (found.models, found.versions) == (1, 2)


def test_names_of_models_may_look_like_versions(tmp_path: Path) -> None:
    """Neither they, nor folders of other files, nor what mkfs leaves, are taken for anything else."""
    shelf = models(tmp_path, config=False)
    export(shelf / "v2" / "1")
    export(shelf / "1.5" / "1")
    (shelf / "scripts").mkdir()
    (shelf / "scripts" / "run.sh").touch()
    (shelf / "lost+found").mkdir(mode=0)
    found = examine(tmp_path)
    assert slugs(found) == []
    assert (found.models, found.versions) == (3, 4)


def test_a_version_beside_models_hides_none(tmp_path: Path) -> None:
    shelf = models(tmp_path, config=False)
    export(shelf / "7")
    (shelf / "half" / "3").mkdir()
    found = examine(tmp_path)
    assert (found.models, found.versions) == (2, 4)
    assert slugs(found) == ["cannot-load"]


def test_an_empty_directory_is_a_warning_without_config(tmp_path: Path) -> None:
    (models(tmp_path, config=False) / "empty").mkdir()
    found = examine(tmp_path)
    assert slugs(found) == ["base-path-empty"]
    assert found.exit_code == 0


def test_one_models_directory_is_examined_too(tmp_path: Path) -> None:
    found = examine(models(tmp_path) / "half")
    assert (found.models, found.versions, slugs(found)) == (1, 2, [])


def test_directories_that_cannot_be_read_are_findings() -> None:
    with without_root() as folder:
        shelf = models(folder)
        export(shelf / "other" / "1")
        export(shelf / "third" / "1")
        (shelf / "half" / "2").chmod(0)
        (shelf / "other").chmod(0)
        found = examine(folder, deep=True)
        assert set(slugs(found)) == {"unreadable"}
        assert {one.path for one in found.findings if one.severity == "error"} == {
            str(shelf / "half" / "2"),
            str(shelf / "other"),
        }
        assert found.exit_code == 52


def test_nothing_is_written_and_no_lock_is_taken() -> None:
    """Neither in a tree nor in a repository, by a user who may only read."""
    with without_root() as folder:
        models(folder, config=False)
        new_repository(folder)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
        found = examine(folder, deep=True)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert (found.managed, found.exit_code) == (True, 0)
        assert found.next == f"servingrepo --root {folder} status"


def test_a_repository_is_noted_and_named(tmp_path: Path) -> None:
    models(tmp_path, config=False)
    repo = new_repository(tmp_path)
    (repo.root / "models").chmod(0o777)
    found = examine(tmp_path)
    assert found.managed
    assert "chmod o-w" in the(found, "repository-note").what
    assert found.next == f"servingrepo --root {tmp_path} status"


def test_a_repository_of_a_newer_format_is_found(tmp_path: Path) -> None:
    models(tmp_path)
    new_repository(tmp_path)
    marker = tmp_path / ".servingrepo" / "format.json"
    marker.write_text('{"schema": 99}')
    found = examine(tmp_path)
    assert slugs(found) == ["repository-unreadable"]
    assert found.exit_code == 31


def test_ten_thousand_versions_are_not_all_inspected(tmp_path: Path) -> None:
    """Each is a directory with a file of that name; the pinned one is whole."""
    shelf = models(tmp_path)
    for version in range(3, 10_003):
        place = shelf / "half" / str(version)
        place.mkdir()
        (place / "saved_model.pb").touch()
    found = examine(tmp_path)
    assert found.versions == 10_002
    assert set(slugs(found)) == {"unserved-damaged"}
    assert any("versions: whether they have a saved_model.pb" in one for one in found.not_checked)


def test_what_is_no_directory_of_models_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    found = examine(tmp_path)
    assert slugs(found) == ["no-models"]
    assert found.next == "servingrepo init, then servingrepo promote RUN --model NAME"
