"""Every line of bad input that a user can give to the command line: a clear answer, and nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from typing import TYPE_CHECKING

import pytest

from servingrepo.testing.exports import Served
from tests.cli.inside import command, refused
from tests.cli.trees import snapshot
from tests.support import run_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Outcome

HDF5 = b"\x89HDF\r\n\x1a\n"


def promote(root: Path, run: Path, *more: str, model: str = "ranker") -> Outcome:
    return command("--root", root, "promote", run, f"--model={model}", "--no-smoke", *more)


# the run ------------------------------------------------------------------------------------------


def empty(run: Path) -> None:
    run.mkdir()


def only_configs(run: Path) -> None:
    run.mkdir()
    (run / "params.json").write_text("{}")


def keras(run: Path) -> None:
    run.mkdir()
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "x")


def hdf5(run: Path) -> None:
    run.mkdir()
    (run / "model.h5").write_bytes(HDF5 + bytes(64) + b"model_config")


def keras_weights(run: Path) -> None:
    run.mkdir()
    (run / "model.weights.h5").write_bytes(HDF5 + bytes(64))


def checkpoint(run: Path) -> None:
    run.mkdir()
    for name in ("model.ckpt-10.index", "model.ckpt-10.data-00000-of-00001"):
        (run / name).write_bytes(b"x")
    (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-10"\n')


def pytorch(run: Path) -> None:
    run.mkdir()
    with zipfile.ZipFile(run / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", "x")


def truncated(run: Path) -> None:
    graph = run_with(run, offset=7.0) / "saved_model" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-20])


def empty_graph(run: Path) -> None:
    (run_with(run, offset=7.0) / "saved_model" / "saved_model.pb").write_bytes(b"")


def no_variables(run: Path) -> None:
    run_with(run, offset=7.0, variables=True)
    shutil.rmtree(run / "saved_model" / "variables")


def no_shard(run: Path) -> None:
    run_with(run, offset=7.0, variables=True)
    (run / "saved_model" / "variables" / "variables.data-00000-of-00001").unlink()


def short_shard(run: Path) -> None:
    run_with(run, offset=7.0, variables=True)
    shard = run / "saved_model" / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])


def no_asset(run: Path) -> None:
    run_with(run, offset=7.0, assets={"words.txt": b"a\n"})
    (run / "saved_model" / "assets" / "words.txt").unlink()


def link_out(run: Path) -> None:
    run_with(run, offset=7.0)
    (run / "saved_model" / "passwords").symlink_to("/etc/passwd")


def link_to_nothing(run: Path) -> None:
    run_with(run, offset=7.0)
    (run / "saved_model" / "dangling").symlink_to("nothing")


def export_is_a_link_out(run: Path) -> None:
    elsewhere = run_with(run.parent / "elsewhere", offset=7.0)
    run.mkdir()
    (run / "saved_model").symlink_to(elsewhere / "saved_model")


def fifo(run: Path) -> None:
    run_with(run, offset=7.0)
    os.mkfifo(run / "saved_model" / "pipe")


def unix_socket(run: Path) -> None:
    run_with(run, offset=7.0)
    here = os.getcwd()  # noqa: PTH109 - a socket's path has 107 bytes at most
    os.chdir(run / "saved_model")
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("sock")
    finally:
        os.chdir(here)


def two_exports(run: Path) -> None:
    run_with(run, offset=7.0)
    shutil.copytree(run / "saved_model", run / "other")


def gpu(run: Path) -> None:
    run_with(run, offset=7.0, device="/device:GPU:0")


def no_serve_tag(run: Path) -> None:
    run_with(run, offset=7.0, tags=("train",))


def gone(run: Path) -> None:
    pass


def a_file(run: Path) -> None:
    run.write_text("x")


RUNS: list[tuple[Callable[[Path], None], int, tuple[str, ...]]] = [
    (gone, 20, ("does not exist",)),
    (a_file, 20, ("is a file",)),
    (empty, 20, ("it is empty", "tf.saved_model.save")),
    (only_configs, 20, ("none of them a model", "tf.saved_model.save")),
    (keras, 20, ("model.keras", "a Keras model", ".export(")),
    (hdf5, 20, ("model.h5", "Keras model in HDF5", ".export(")),
    (keras_weights, 20, ("model.weights.h5", "weights", ".export(")),
    (checkpoint, 20, ("model.ckpt-10", "variables only", "tf.saved_model.save")),
    (pytorch, 20, ("model.pt", "PyTorch", "ONNX")),
    (two_exports, 21, ("2 SavedModels", "saved_model", "other", "--saved-model")),
    (truncated, 22, ("saved_model.pb", "truncated", "export the model again")),
    (empty_graph, 22, ("saved_model.pb", "empty")),
    (no_variables, 22, ("variables/", "missing", "export the model again")),
    (no_shard, 22, ("variables.data-00000-of-00001", "missing")),
    (short_shard, 22, ("variables.data-00000-of-00001", "cut short")),
    (no_asset, 22, ("words.txt",)),
    (gpu, 23, ("GPU",)),
    (no_serve_tag, 23, ("serve", "train")),
    (link_out, 24, ("passwords", "/etc/passwd")),
    (link_to_nothing, 24, ("dangling", "nothing")),
    (export_is_a_link_out, 24, ("saved_model", "elsewhere")),
    (fifo, 24, ("pipe: a FIFO",)),
    (unix_socket, 24, ("sock: a socket",)),
]


@pytest.mark.parametrize(("make", "code", "said"), RUNS, ids=[make.__name__ for make, _, _ in RUNS])
def test_bad_run_is_refused_and_nothing_is_changed(
    make: Callable[[Path], None], code: int, said: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "bad"
    make(run)
    before, run_before = snapshot(root), snapshot(tmp_path)
    refused(promote(root, run), code, run, *said)
    refused(promote(root, run, "--dry-run"), code, run)
    refused(command("scan", run), code, run, *said)
    assert snapshot(root) == before
    assert snapshot(tmp_path) == run_before


def test_flat_saved_model_in_the_model_s_folder_is_refused(root: Path, run: Path) -> None:
    for model in ("flat", "ranker"):
        base = root / "models" / model
        shutil.copytree(run / "saved_model", base, dirs_exist_ok=True)
        before = snapshot(root)
        refused(promote(root, run, model=model), 39, base, "saved_model.pb", "version number")
        refused(promote(root, run, "--dry-run", model=model), 39, base)
        assert snapshot(root) == before


# names and numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", "7", "-1", "+1", "a/b", "../x", "..", ".hidden", "a b", "é", "a\n", "\x1b[31m"),
        *("x" * 129, "x.json", "models.config"),
    ],
)
def test_bad_model_name_is_refused_by_every_command_that_takes_one(
    name: str, root: Path, run: Path
) -> None:
    before = snapshot(root)
    done = promote(root, run, model=name)
    refused(done, 11, "not a model name", "try ")
    refused(command("--root", root, "hold", "--", name), 11, "not a model name")
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        ("0", 12, "versions begin at 1"),
        ("-1", 12, "negative"),
        ("007", 12, "write 7"),
        ("+3", 12, "write 3"),
        ("9223372036854775808", 12, "9223372036854775807"),
        ("three", 12, "decimal"),
        ("3.0", 12, "decimal"),
        ("", 12, "empty"),
        ("2", 33, "--version 3"),
        ("1", 33, "--version 3"),
    ],
)
def test_bad_version_number_is_refused(
    number: str, code: int, said: str, root: Path, run: Path
) -> None:
    before = snapshot(root)
    refused(promote(root, run, f"--version={number}"), code, said)
    refused(promote(root, run, f"--version={number}", "--dry-run"), code, said)
    assert snapshot(root) == before


def test_a_number_that_was_used_is_refused_though_its_version_is_gone(
    root: Path, run: Path
) -> None:
    command("--root", root, "serve", "ranker@1")
    shutil.rmtree(root / "models" / "ranker" / "2")
    (root / ".servingrepo" / "models" / "ranker" / "2.json").unlink()
    before = snapshot(root)
    refused(promote(root, run, "--version=2"), 33, "--version 3")
    assert snapshot(root) == before
    (root / "models" / "ranker" / "0000041").mkdir()
    refused(promote(root, run, "--version=41"), 33, "--version 42")


def test_the_greatest_number_may_be_used_and_is_the_last(root: Path, run: Path) -> None:
    last = promote(root, run, f"--version={2**63 - 1}", "-q")
    assert (last.code, last.out) == (0, f"{2**63 - 1}\n")
    before = snapshot(root)
    other = run_with(run.parent / "other", offset=44.0)
    refused(promote(root, other), 33, "highest number")
    assert snapshot(root) == before


def test_bad_content_promoted_again_is_refused_with_who_and_why(root: Path, tmp_path: Path) -> None:
    command("--root", root, "mark-bad", "ranker@1", "-m", "trained on broken labels")
    before = snapshot(root)
    refused(promote(root, tmp_path / "run1"), 34, "ranker@1", "trained on broken labels", "--clear")
    refused(command("--root", root, "serve", "ranker@1"), 34, "trained on broken labels")
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("reference", "code", "said"),
    [
        ("ranker@9", 32, "version 9 of ranker"),
        ("nosuch", 32, "nosuch"),
        ("ranker@", 13, "ranker@"),
        ("ranker@x y", 13, "ranker@x y"),
        ("@7", 11, "empty"),
    ],
)
def test_bad_reference_is_refused(reference: str, code: int, said: str, root: Path) -> None:
    before = snapshot(root)
    for name in ("serve", "show"):
        refused(command("--root", root, name, reference), code, said)
    assert snapshot(root) == before


# smoke --------------------------------------------------------------------------------------------


@pytest.mark.tf
def test_a_model_that_fails_its_smoke_test_leaves_only_a_burnt_number(
    root: Path, tmp_path: Path
) -> None:
    bad = run_with(tmp_path / "bad", offset=3.0, signatures=[Served(fault="uninitialized")])
    before = snapshot(root, burnt="ranker")
    done = command("--root", root, "promote", bad, "--model", "ranker", "--engine", "embedded")
    refused(done, 70, "serving_default", "never_assigned")
    assert snapshot(root, burnt="ranker") == before
    refused(promote(root, bad, "--version=3"), 33, "--version 4")


@pytest.mark.parametrize(
    "text",
    ["", "no json", "{}", '{"instances": 7}', '{"signature_name": 3, "instances": []}', "[]"],
)
def test_bad_case_file_is_refused_before_anything_happens(
    text: str, root: Path, run: Path, tmp_path: Path
) -> None:
    case = tmp_path / "case.json"
    case.write_text(text)
    before = snapshot(root)
    done = command(
        "--root", root, "promote", run, "--model", "ranker", "--case", case, "--engine", "embedded"
    )
    refused(done, 71, case)
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "stage", [("--first", "localhost:8500"), ("--batch", "25%"), ("--watch-for", "5")]
)
def test_stages_without_endpoints_are_refused_and_nothing_is_served(
    root: Path, stage: tuple[str, str]
) -> None:
    before = snapshot(root)
    refused(command("--root", root, "serve", "ranker@1", *stage), 2, "endpoints", "--endpoint")
    assert snapshot(root) == before
