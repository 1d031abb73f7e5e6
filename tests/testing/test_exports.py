"""Exports written by hand are what they claim to be, for our reader and for TensorFlow itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from servingrepo.protos import saved_model_pb2
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.testing.bundles import write_bundle
from servingrepo.testing.exports import Served, write_export
from tests.support import as_text

if TYPE_CHECKING:
    from pathlib import Path

_RUN = """
import json, sys
import tensorflow as tf
path, calls = sys.argv[1], json.loads(sys.argv[2])
loaded = tf.saved_model.load(path)
example = tf.train.Example()
example.features.feature["x"].float_list.value.append(4.0)
results = {}
for key, kind in calls.items():
    given = [example.SerializeToString()] if kind == "example" else [4.0]
    try:
        (alias, value), = loaded.signatures[key](tf.constant(given)).items()
        results[key] = [alias, value.numpy().tolist()]
    except tf.errors.OpError as error:
        results[key] = type(error).__name__
print(json.dumps(results))
"""


def run_in_tensorflow(path: Path, calls: dict[str, str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(path), json.dumps(calls)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.mark.tf
def test_write_export_with_every_kind_of_signature_is_answered_by_tensorflow(
    tmp_path: Path,
) -> None:
    path = write_export(
        tmp_path / "1",
        slope=2.0,
        offset=1.0,
        variables=True,
        assets={"words.txt": b"a\nb\n"},
        signatures=[
            Served(),
            Served(key="scores", api="classify", feed="parse_example"),
            Served(key="values", api="regress", feed="parse_example_v2"),
            Served(key="nothing", fault="nan"),
            Served(key="refusing", fault="refuses"),
            Served(key="empty", fault="uninitialized"),
        ],
    )
    results = run_in_tensorflow(
        path,
        {
            "serving_default": "number",
            "scores": "example",
            "values": "example",
            "refusing": "number",
            "empty": "number",
        },
    )
    assert results == {
        "serving_default": ["y", [9.0]],
        "scores": ["scores", [[9.0]]],
        "values": ["outputs", [[9.0]]],
        "refusing": "InvalidArgumentError",
        "empty": "FailedPreconditionError",
    }


def test_write_export_by_default_is_half_plus_two_under_the_tag_serve(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1")
    found = inspect_export(path)
    assert found.defects == ()
    assert [one.key for one in found.signatures] == ["serving_default"]
    assert found.signatures[0].method_name == "tensorflow/serving/predict"
    assert [one.name for one in path.iterdir()] == ["saved_model.pb"]


def test_write_export_with_a_payload_has_exactly_that_many_bytes_none_repeated(
    tmp_path: Path,
) -> None:
    path = write_export(tmp_path / "1", payload_bytes=3_000_001)
    content = (path / "assets.extra" / "payload.bin").read_bytes()
    assert len(content) == 3_000_001
    assert content[: 1 << 20] != content[1 << 20 : 2 << 20]


def test_write_export_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    served = [Served(), Served(key="other", api="regress", feed="parse_example_v2")]
    first = write_export(tmp_path / "1", signatures=served, variables=True)
    second = write_export(tmp_path / "2", signatures=served, variables=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_write_export_as_text_can_be_parsed_back(tmp_path: Path) -> None:
    as_text(write_export(tmp_path / "1", tags=("serve", "gpu")))
    found = inspect_export(tmp_path / "1")
    assert found.file == "saved_model.pbtxt"
    assert found.tag_sets == (("gpu", "serve"),)


def test_write_export_pinned_to_a_device_says_so_in_the_graph(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", device="/device:GPU:0")
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    devices = {node.device for node in message.meta_graphs[0].graph_def.node}
    assert devices == {"", "/device:GPU:0"}


def test_write_bundle_in_shards_writes_as_many_data_files(tmp_path: Path) -> None:
    write_bundle(tmp_path / "variables", {"a": 1.0, "b": 2.0, "c": 3.0}, num_shards=2)
    assert sorted((one.name, one.stat().st_size) for one in tmp_path.iterdir())[:2] == [
        ("variables.data-00000-of-00002", 8),
        ("variables.data-00001-of-00002", 4),
    ]
