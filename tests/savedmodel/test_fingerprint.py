"""The five hashes: as TensorFlow computes them, and what is said where they differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servingrepo.protos import fingerprint_pb2, saved_model_pb2
from servingrepo.savedmodel.canonical import canonical_bytes
from servingrepo.savedmodel.fingerprint import HASHES, read_fingerprint
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.testing.exports import saved_model, write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.savedmodel.values import Fingerprint

TF2 = "serving/saved_model_half_plus_two_tf2_cpu/00000123"


def fingerprint_of(path: Path) -> Fingerprint:
    found = inspect_export(path).fingerprint
    assert found is not None
    return found


def verdicts(path: Path) -> dict[str, str]:
    return {one.name: one.verdict for one in fingerprint_of(path).fields}


def rewrite(path: Path, *, producer: int | None = None, **hashes: int) -> None:
    file = path / "fingerprint.pb"
    message = fingerprint_pb2.FingerprintDef.FromString(file.read_bytes())
    for name, value in hashes.items():
        setattr(message, name, value)
    if producer is not None:
        message.version.producer = producer
    file.write_bytes(message.SerializeToString())


@pytest.mark.tf
@pytest.mark.parametrize("name", ["m", "plain"])
def test_all_five_hashes_are_those_that_tensorflow_computes(
    tensorflow_models: Path, name: str
) -> None:
    said = json.loads((tensorflow_models / "said.json").read_text())[name]
    found = fingerprint_of(tensorflow_models / name)
    assert found.producer in {1, 4}  # of TensorFlow 2.19, of later ones
    assert {one.name: one.computed for one in found.fields if one.computed} == said
    assert verdicts(tensorflow_models / name) == dict.fromkeys(HASHES, "matches")


@pytest.mark.corpus
def test_a_fingerprint_that_others_wrote_holds(corpus: Path) -> None:
    assert verdicts(corpus / TF2) == dict.fromkeys(HASHES, "matches")


@pytest.mark.corpus
def test_fingerprints_of_the_conformance_models_hold(conformance: Path) -> None:
    models = [one.parent for one in conformance.rglob("fingerprint.pb")]
    assert models
    for path in models:
        assert verdicts(path) == dict.fromkeys(HASHES, "matches")


@pytest.mark.parametrize("name", HASHES)
def test_a_hash_that_differs_is_named_as_damage(tmp_path: Path, name: str) -> None:
    path = write_export(tmp_path / "1", variables=True, fingerprint=True)
    rewrite(path, **{name: 99})
    assert verdicts(path)[name] == "differs"
    (defect,) = inspect_export(path).defects
    assert (defect.slug, defect.kind) == ("fingerprint", "damaged")
    assert name in defect.message
    assert " 99 " in defect.message


@pytest.mark.parametrize("producer", [2, 3, 5, 1000])
def test_a_hash_of_an_unknown_producer_is_no_damage(tmp_path: Path, producer: int) -> None:
    path = write_export(tmp_path / "1", variables=True, fingerprint=True)
    rewrite(path, producer=producer, signature_def_hash=99)
    assert verdicts(path) == {
        "saved_model_checksum": "matches",
        "graph_def_program_hash": "absent",
        "signature_def_hash": "cannot verify",
        "saved_object_graph_hash": "matches",  # there are no objects: 0, which is what is noted
        "checkpoint_hash": "matches",
    }
    assert inspect_export(path).defects == ()


@pytest.mark.parametrize("producer", [0, 1, 4])
def test_hashes_of_known_producers_are_verified(tmp_path: Path, producer: int) -> None:
    path = write_export(tmp_path / "1", fingerprint=True)
    rewrite(path, producer=producer, graph_def_program_hash=7)
    assert verdicts(path)["graph_def_program_hash"] == "differs"


def test_the_checksum_may_be_of_the_bytes_or_of_what_cpp_writes(tmp_path: Path) -> None:
    import farmhash

    message = saved_model()
    function = message.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "f"
    for number in range(3):
        function.arg_attr[number].SetInParent()
    raw = message.SerializeToString(deterministic=True)
    ordered = bytes(canonical_bytes(message))
    assert raw != ordered
    assert saved_model_pb2.SavedModel.FromString(ordered) == message
    for form in (raw, ordered):
        stored = fingerprint_pb2.FingerprintDef(saved_model_checksum=farmhash.fingerprint64(form))
        found = read_fingerprint(
            stored.SerializeToString(), saved_model=raw, message=message, index=None
        )
        assert found.field("saved_model_checksum").verdict == "matches"


def test_canonical_bytes_of_maps_are_in_ascending_order() -> None:
    message = saved_model_pb2.SavedModel()
    graph = message.meta_graphs.add().graph_def
    node = graph.node.add(name="n", op="Reshape")
    for key in ("Tshape", "T", "Tidx", "a"):
        node.attr[key].func.attr["x_1"].b = True
        node.attr[key].func.attr["x"].b = True
    data = bytes(canonical_bytes(message))
    places = [
        data.index(b"\n" + bytes([len(key)]) + key) for key in (b"T", b"Tidx", b"Tshape", b"a")
    ]
    assert places == sorted(places)
    assert data.index(b"\n\x01x") < data.index(b"\n\x03x_1")
    assert saved_model_pb2.SavedModel.FromString(data) == message


@pytest.mark.parametrize("data", [b"\x10\x00", b"\x12\x04\x12\x02\x10\x00", b"\x13\x14"])
def test_canonical_bytes_keep_fields_of_another_wire_type(data: bytes) -> None:
    message = saved_model_pb2.SavedModel.FromString(data)
    assert bytes(canonical_bytes(message)) == data


def test_functions_that_share_a_number_cannot_be_verified() -> None:
    message = saved_model()
    for name in ("__inference_f_7", "__inference_g_7"):
        message.meta_graphs[0].object_graph_def.concrete_functions[name].bound_inputs.append(1)
    stored = fingerprint_pb2.FingerprintDef(saved_object_graph_hash=5)
    stored.version.producer = 4
    found = read_fingerprint(
        stored.SerializeToString(), saved_model=b"", message=message, index=None
    )
    assert found.field("saved_object_graph_hash").verdict == "cannot verify"


def test_signatures_may_be_hashed_without_their_keys_by_old_code_only(tmp_path: Path) -> None:
    import farmhash

    from servingrepo.savedmodel.fingerprint import _combine

    path = write_export(tmp_path / "1", fingerprint=True)
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (definition,) = message.meta_graphs[0].signature_def.values()
    old = _combine(0, farmhash.fingerprint64(bytes(canonical_bytes(definition))))
    rewrite(path, producer=1, signature_def_hash=old)
    assert verdicts(path)["signature_def_hash"] == "matches"
    rewrite(path, producer=4)
    assert verdicts(path)["signature_def_hash"] == "differs"
