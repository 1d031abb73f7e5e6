from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from servingrepo.errors import (
    AmbiguousExport,
    NoPermission,
    NoSavedModel,
    UnsafeExport,
    UnsupportedExport,
    UsageError,
)
from servingrepo.runs.scan import scan_run
from servingrepo.runs.values import RunScan
from tests.support import without_root


def export(path: Path, *, name: str = "saved_model.pb", written: int = 1_700_000_000) -> Path:
    """A directory that is laid out as a SavedModel; its contents are no question of this room."""
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "variables.index").write_bytes(b"index")
    (path / name).write_bytes(b"graph")
    os.utime(path / name, (written, written))
    return path


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_scan_when_the_run_is_the_savedmodel_then_itself(tmp_path: Path, name: str) -> None:
    run = export(tmp_path / "run", name=name)
    scan = scan_run(run)
    assert (scan.kind, scan.export, scan.run) == ("self", str(run), str(run))
    assert [each.path for each in scan.candidates] == ["."]


@pytest.mark.parametrize("child", ["saved_model", "00000123", "my export", "größe"])
def test_scan_when_one_child_is_a_savedmodel_then_that(tmp_path: Path, child: str) -> None:
    export(tmp_path / child)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "logs" / "train").mkdir(parents=True)
    scan = scan_run(tmp_path)
    assert (scan.kind, scan.export) == ("child", str(tmp_path / child))
    assert (scan.candidates[0].size, scan.candidates[0].written) == (10, 1_700_000_000)


def test_scan_when_estimator_exports_then_the_newest_complete_one(tmp_path: Path) -> None:
    exporter = tmp_path / "export" / "latest"
    export(exporter / "999999999", written=1_700_000_009)
    export(exporter / "1646034756", written=1_700_000_001)
    export(exporter / "temp-1646034800")
    (exporter / "1646034790" / "variables").mkdir(parents=True)
    scan = scan_run(tmp_path)
    assert (scan.kind, scan.export) == ("estimator-export", str(exporter / "1646034756"))
    assert [each.path for each in scan.candidates] == [
        "export/latest/1646034756",
        "export/latest/999999999",
    ]
    assert [(each.kind, each.path) for each in scan.others] == [
        ("incomplete-export", "export/latest/1646034790"),
        ("incomplete-export", "export/latest/temp-1646034800"),
    ]


def test_scan_when_exports_have_no_exporter_then_the_newest(tmp_path: Path) -> None:
    export(tmp_path / "export" / "1646034756")
    export(tmp_path / "export" / "1646034757")
    assert scan_run(tmp_path).export.endswith("/export/1646034757")


def test_scan_when_two_exporters_then_ambiguous_between_their_newest(tmp_path: Path) -> None:
    for each in ("best/1", "best/2", "latest/3"):
        export(tmp_path / "export" / each, written=1_700_000_000 + int(each[-1]))
    with pytest.raises(AmbiguousExport, match=r"has 2 SavedModels") as caught:
        scan_run(tmp_path)
    assert caught.value.problems == (
        "export/best/2: written 2023-11-14 22:13:22 UTC, 10 bytes",
        "export/latest/3: written 2023-11-14 22:13:23 UTC, 10 bytes",
    )
    assert "--saved-model export/latest/3" in str(caught.value.hint)


@pytest.mark.parametrize(
    "exports",
    [
        ["a", "b"],
        [".", "saved_model"],
        ["saved_model", "export/best/1"],
        ["out/a/x", "out/b/x"],
    ],
    ids="+".join,
)
def test_scan_when_several_and_nothing_says_which_then_ambiguous(
    tmp_path: Path, exports: list[str]
) -> None:
    for each in exports:
        export(tmp_path / each)
    with pytest.raises(AmbiguousExport) as caught:
        scan_run(tmp_path)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == exports


def test_scan_when_one_child_and_others_deeper_then_the_child(tmp_path: Path) -> None:
    export(tmp_path / "saved_model")
    export(tmp_path / "checkpoints" / "epoch_1")
    scan = scan_run(tmp_path)
    assert scan.kind == "child"
    assert [(each.path, each.kind) for each in scan.candidates] == [
        ("checkpoints/epoch_1", "nested"),
        ("saved_model", "child"),
    ]


def test_an_export_is_found_four_levels_down(tmp_path: Path) -> None:
    export(tmp_path / "artifacts" / "model" / "data" / "model")
    assert scan_run(tmp_path).kind == "nested"
    export(tmp_path / "other" / "1" / "2" / "3" / "4" / "5")
    with pytest.raises(NoSavedModel):
        scan_run(tmp_path / "other")
    assert scan_run(tmp_path / "other" / "1").kind == "nested"


def test_a_savedmodel_in_assets_is_not_searched(
    tmp_path: Path,
) -> None:
    export(tmp_path / "saved_model")
    export(tmp_path / "saved_model" / "assets" / "inner")
    export(tmp_path / "saved_model" / "assets.extra")
    assert [each.path for each in scan_run(tmp_path).candidates] == ["saved_model"]


def test_scan_when_exports_are_in_hidden_folders_then_not_found(tmp_path: Path) -> None:
    export(tmp_path / ".staging" / "x")
    export(tmp_path / ".cache")
    with pytest.raises(NoSavedModel):
        scan_run(tmp_path)


# --saved-model ------------------------------------------------------------------------------------


def test_scan_when_chosen_then_that_one(tmp_path: Path) -> None:
    export(tmp_path / "a")
    wanted = export(tmp_path / "b")
    chosen: list[Path] = [
        Path("b"),
        wanted,
        Path("./a/../b"),
        Path("b/saved_model.pb"),
    ]
    for each in chosen:
        scan = scan_run(tmp_path, saved_model=each)
        assert (scan.kind, scan.export) == ("chosen", str(wanted))
        assert sorted(each.path for each in scan.candidates) == ["a", "b"]


def test_a_chosen_export_may_lie_deeper_than_listed(tmp_path: Path) -> None:
    deep = export(tmp_path / "1/2/3/4/5/6")
    assert scan_run(tmp_path, saved_model=Path("1/2/3/4/5/6")).export == str(deep)


def test_scan_when_chosen_is_outside_then_refused(tmp_path: Path) -> None:
    export(tmp_path / "outside")
    run = tmp_path / "run"
    export(run / "saved_model")
    (run / "link").symlink_to(tmp_path / "outside")
    for each in (Path("../outside"), tmp_path / "outside"):
        with pytest.raises(UsageError, match="does not lie in"):
            scan_run(run, saved_model=each)
    with pytest.raises(UnsafeExport, match=r"leads out of .* by a link"):
        scan_run(run, saved_model=Path("link"))


def test_scan_when_chosen_is_no_savedmodel_then_says_what_it_is(tmp_path: Path) -> None:
    export(tmp_path / "saved_model")
    (tmp_path / "lite").mkdir()
    (tmp_path / "lite" / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(NoSavedModel, match=r"lite, but model\.tflite: a TFLite model"):
        scan_run(tmp_path, saved_model=Path("lite"))
    with pytest.raises(NoSavedModel, match="does not exist"):
        scan_run(tmp_path, saved_model=Path("nope"))
    with pytest.raises(NoSavedModel, match="is not a directory"):
        scan_run(tmp_path, saved_model=Path("lite/model.tflite"))


# links --------------------------------------------------------------------------------------------


def test_scan_when_the_run_is_a_link_then_resolved(tmp_path: Path) -> None:
    export(tmp_path / "run_7" / "saved_model")
    (tmp_path / "latest").symlink_to("run_7")
    scan = scan_run(tmp_path / "latest")
    assert scan.run == str(tmp_path / "run_7")
    assert scan.export == str(tmp_path / "run_7" / "saved_model")
    assert scan.provenance["run_name"] == "run_7"
    absolute = tmp_path / "latest" / "saved_model"
    assert scan_run(tmp_path / "latest", saved_model=absolute).export == scan.export


def test_scan_when_a_child_links_to_one_of_several_then_that_one(tmp_path: Path) -> None:
    for number in "123":
        export(tmp_path / "exports" / number)
    (tmp_path / "saved_model").symlink_to("exports/2")
    scan = scan_run(tmp_path)
    assert (scan.kind, scan.export) == ("child", str(tmp_path / "exports" / "2"))
    assert [each.path for each in scan.candidates] == ["exports/1", "exports/3", "saved_model"]


def test_scan_when_links_turn_in_circles_then_it_ends(tmp_path: Path) -> None:
    export(tmp_path / "saved_model")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "saved_model" / "up").symlink_to("..")
    (tmp_path / "loop").symlink_to("loop")
    assert scan_run(tmp_path).kind == "child"


def test_scan_when_the_only_export_is_behind_a_link_out_then_unsafe(tmp_path: Path) -> None:
    export(tmp_path / "elsewhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "saved_model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeExport, match=r"saved_model: a link out of the run") as caught:
        scan_run(tmp_path / "run")
    assert "cp -rL" in str(caught.value.hint)


def test_scan_when_the_graph_itself_is_a_link_out_then_unsafe(tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(b"graph")
    (tmp_path / "run" / "sm").mkdir(parents=True)
    (tmp_path / "run" / "sm" / "saved_model.pb").symlink_to(tmp_path / "graph.pb")
    with pytest.raises(UnsafeExport, match=r"sm/saved_model\.pb: a link out"):
        scan_run(tmp_path / "run")


# no run, or nothing to read -----------------------------------------------------------------------


def test_scan_when_the_run_is_not_there_then_said(tmp_path: Path) -> None:
    with pytest.raises(NoSavedModel, match="does not exist"):
        scan_run(tmp_path / "nope")
    (tmp_path / "gone").symlink_to("nope")
    with pytest.raises(NoSavedModel, match="is a link to nothing"):
        scan_run(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NoSavedModel, match="is below a file"):
        scan_run(tmp_path / "file" / "run")


def test_scan_when_the_run_is_a_file_then_says_which_kind(tmp_path: Path) -> None:
    export(tmp_path / "saved_model")
    with pytest.raises(NoSavedModel, match="the directory that it lies in") as caught:
        scan_run(tmp_path / "saved_model" / "saved_model.pb")
    assert caught.value.hint == f"give {tmp_path / 'saved_model'}"
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04....config.json")
    with pytest.raises(NoSavedModel, match=r"is a file, .*: a Keras model") as caught:
        scan_run(tmp_path / "model.keras")
    assert f"load_model('{tmp_path / 'model.keras'}')" in str(caught.value.hint)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NoSavedModel, match="FIFO"):
        scan_run(tmp_path / "fifo")


def test_scan_when_the_run_is_empty_then_said(tmp_path: Path) -> None:
    with pytest.raises(NoSavedModel, match="it is empty"):
        scan_run(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(NoSavedModel, match="directories but no files"):
        scan_run(tmp_path)


def test_scan_when_the_run_cannot_be_read_then_no_permission() -> None:
    with without_root() as folder:
        run = export(folder / "run")
        run.chmod(0)
        with pytest.raises(NoPermission, match=str(run)):
            scan_run(run)


def test_an_unreadable_child_is_listed_as_unreadable() -> None:
    with without_root() as folder:
        export(folder / "run" / "saved_model")
        (folder / "run" / "secret").mkdir(mode=0)
        scan = scan_run(folder / "run")
        assert [(each.kind, each.path) for each in scan.others] == [("unreadable", "secret")]
        (folder / "run" / "saved_model").chmod(0)
        with pytest.raises(NoSavedModel, match="saved_model: a directory that cannot be read"):
            scan_run(folder / "run")


# what the scan carries ----------------------------------------------------------------------------


def test_scan_when_encoded_then_decoded_again(tmp_path: Path) -> None:
    export(tmp_path / "saved_model")
    scan = scan_run(tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(scan), type=RunScan) == scan


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": COMMIT + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs/heads/main": COMMIT + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack\n{COMMIT} refs/heads/main\n"},
    ],
    ids=["detached", "loose", "packed"],
)
def test_provenance_when_in_a_git_work_tree_then_its_head(
    tmp_path: Path, files: dict[str, str]
) -> None:
    run = export(tmp_path / "runs" / "one")
    for name, text in files.items():
        path = tmp_path / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = scan_run(run).provenance
    assert said["git_head_at_scan"] == COMMIT
    assert said["export_written"] == "2023-11-14T22:13:20Z"
    assert said["run"] == str(run)


@pytest.mark.parametrize("head", ["", "ref: refs/../../secret", "ref: refs/heads/new", "nonsense"])
def test_provenance_when_git_says_nothing_usable_then_left_out(tmp_path: Path, head: str) -> None:
    run = export(tmp_path / "run")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert "git_head_at_scan" not in scan_run(run).provenance


# other people's runs ------------------------------------------------------------------------------


@pytest.mark.corpus
def test_a_real_estimator_run_is_scanned(
    corpus: Path,
) -> None:
    scan = scan_run(corpus / "tfx" / "estimator_run")
    assert scan.kind == "estimator-export"
    assert scan.export.endswith("/export/chicago-taxi/1646034756")
    assert [
        (each.kind, each.path, each.count) for each in scan.others if each.kind != "events"
    ] == [("estimator-checkpoint", "model.ckpt-1000", 3)]
    assert len([each for each in scan.others if each.kind == "events"]) == 2


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("run", "kind", "path"),
    [
        ("serving/saved_model_counter", "child", "00000123"),
        ("serving/saved_model_half_plus_two_tf2_cpu", "child", "00000123"),
        ("serving/saved_model_half_plus_two_gpu", "child", "00000123"),
        ("serving/saved_model_half_plus_two_mlmd/00000123", "self", "."),
        ("tfx/pusher_model_push", "child", "1584391735"),
        ("tfx/transform_fn", "self", "."),
    ],
)
def test_scan_when_real_exports_then_found(corpus: Path, run: str, kind: str, path: str) -> None:
    scan = scan_run(corpus / run)
    assert (scan.kind, [each.path for each in scan.candidates]) == (kind, [path])
    assert scan.others == ()


@pytest.mark.corpus
def test_scan_when_real_exports_cannot_be_taken_then_the_right_reason(corpus: Path) -> None:
    serving = corpus / "serving"
    with pytest.raises(NoSavedModel, match=r"00000123/model\.tflite: a TFLite model"):
        scan_run(serving / "saved_model_half_plus_two_tflite")
    with pytest.raises(NoSavedModel, match="a TFLite model"):
        scan_run(serving / "parse_example_tflite")
    with pytest.raises(UnsupportedExport, match="a SessionBundle"):
        scan_run(serving / "bad_half_plus_two")
    with pytest.raises(AmbiguousExport) as caught:
        scan_run(serving / "saved_model_half_plus_two_2_versions")
    assert [each[:9] for each in caught.value.problems] == ["00000123:", "00000124:"]
