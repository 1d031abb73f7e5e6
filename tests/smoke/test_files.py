"""Files of cases: what each format gives, and what is said of one that cannot be used."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingrepo.errors import BadCase
from servingrepo.protos import example_pb2, prediction_log_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask
from servingrepo.savedmodel.inspection import Inspection, inspect_export
from servingrepo.smoke.files import Cases, as_source, cases_in, cases_of_model, load_cases
from servingrepo.smoke.fitting import Misfit, fit_case
from servingrepo.smoke.tensors import make_tensor, read_tensor
from servingrepo.testing.exports import Served, write_export

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from servingrepo.smoke.cases import SmokeCase


def records(*payloads: bytes) -> bytes:
    """Return the bytes of a TFRecord file."""
    out = b""
    for one in payloads:
        head = struct.pack("<Q", len(one))
        sums = (struct.pack("<I", mask(crc32c(part))) for part in (head, one))
        out += head + next(sums) + one + next(sums)
    return out


def example(**features: float) -> Any:
    message = example_pb2.Example()
    for key, value in features.items():
        message.features.feature[key].float_list.value.append(value)
    return message


def cases_of(path: Path) -> list[SmokeCase]:
    return list(Cases(sources=(as_source(path),)))


@pytest.fixture
def plain(tmp_path: Path) -> Inspection:
    return inspect_export(write_export(tmp_path / "plain"))


@pytest.fixture
def parsing(tmp_path: Path) -> Inspection:
    served = Served(key="r", api="regress", feed="parse_example_v2")
    return inspect_export(write_export(tmp_path / "parsing", signatures=[served]))


DOCUMENT = {"schema": 1, "cases": [{"name": "two", "inputs": {"x": [1, 2]}}, {"inputs": [3.0]}]}
TOML = """
schema = 1
[[cases]]
name = "two"
inputs = { x = [1, 2] }
[[cases]]
inputs = [3.0]
"""
LINES = "\n".join(
    json.dumps(one)
    for one in ({"schema": 1}, {"name": "two", "inputs": {"x": [1, 2]}}, {"inputs": [3.0]})
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", json.dumps(DOCUMENT)),
        ("c.toml", TOML),
        ("c.jsonl", LINES),
        ("c.jsonl", LINES + "\n"),
    ],
)
def test_documents_of_each_kind_hold_the_same_cases(
    tmp_path: Path, plain: Inspection, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    first, second = cases_of(path)
    assert first.source == f"case {path}#1 (two)"
    assert second.source == f"case {path}#2"
    sent = [read_tensor(fit_case(one, plain).inputs["x"]).values for one in (first, second)]
    assert sent == [(1.0, 2.0), (3.0,)]


@pytest.mark.parametrize("schema", [0, 2, "1", True, None])
def test_another_schema_number_is_refused(tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"schema": schema, "cases": [{"inputs": 1}]}))
    with pytest.raises(BadCase, match="this servingrepo reads schema 1"):
        as_source(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ({"schema": 1}, "cases must be a list that is not empty"),
        ({"schema": 1, "cases": []}, "cases must be a list that is not empty"),
        ({"schema": 1, "cases": [{"inputs": 1}], "more": 1}, "unknown key 'more'"),
        ({"schema": 1, "cases": [{"inputs": 1}], "budget": {"p9": 1}}, "budget: "),
        ({"schema": 1, "cases": [{"inputs": 1}], "budget": {"p50_ms": 0}}, "above 0"),
        ({"schema": 1, "cases": [{"inputs": 1}], "budget": {"document": "x"}}, "'document'"),
    ],
)
def test_a_document_of_another_form_is_refused(tmp_path: Path, text: Any, problem: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(text))
    with pytest.raises(BadCase) as caught:
        as_source(path)
    assert problem in "; ".join(caught.value.problems)


def test_a_bad_case_of_a_document_spares_the_others(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    lines = ['{"schema": 1}', '{"inputs": 1, "x": 2}', "no json", '{"expect": 3, "inputs": 1}']
    path.write_text("\n".join([*lines, '{"inputs": 1}']))
    assert [one.problems[:1] != () for one in cases_of(path)] == [True, True, True, False]
    assert cases_of(path)[0].problems == ("unknown key 'x'",)


def test_lines_without_a_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"inputs": 1}\n')
    with pytest.raises(BadCase, match="schema"):
        cases_of(path)


def test_many_lines_are_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with path.open("w") as file:
        file.write('{"schema": 1}\n')
        file.writelines('{"inputs": [1.0, 2.0, 3.0]}\n' for _ in range(100_000))
    source = as_source(path)
    tracemalloc.start()
    try:
        assert sum(not one.problems for one in Cases(sources=(source,))) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_arrays_are_sent_as_they_are(tmp_path: Path, plain: Inspection) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=np.array([1.5, 2.5], dtype="float32"))
    (case,) = cases_of(tmp_path / "c.npz")
    tensor = read_tensor(fit_case(case, plain).inputs["x"])
    assert (tensor.dtype, tensor.shape, tensor.values) == ("float32", (2,), (1.5, 2.5))


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1, 2], [3, 4]], dtype=">i4").T,
        np.asfortranarray(np.arange(6, dtype="int32").reshape(2, 3)),
        np.array(7, dtype="int32"),
    ],
)
def test_arrays_of_any_order_become_row_major(tmp_path: Path, values: Any) -> None:
    np.savez(tmp_path / "c.npz", x=values)
    (case,) = cases_of(tmp_path / "c.npz")
    array = case.data["x"]
    assert array.shape == values.shape
    assert np.frombuffer(array.content, "<i4").tolist() == values.ravel().tolist()


def test_strings_of_arrays_become_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", u=np.array(["aä", ""]), s=np.array([[b"x"]]))
    (case,) = cases_of(tmp_path / "c.npz")
    assert case.data["u"].texts == ("aä".encode(), b"")
    assert (case.data["s"].shape, case.data["s"].texts) == ((1, 1), (b"x",))


def test_an_array_of_another_dtype_is_refused(tmp_path: Path, plain: Inspection) -> None:
    np.savez(tmp_path / "c.npz", x=np.array([1.0]))
    (case,) = cases_of(tmp_path / "c.npz")
    with pytest.raises(Misfit, match="it is float64, and the signature wants float32"):
        fit_case(case, plain)


class Hostile:
    """What runs code when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (Hostile, "ran", True)


def test_a_pickled_array_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.array([Hostile()], dtype=object))
    (case,) = cases_of(tmp_path / "c.npz")
    assert "nothing is unpickled" in case.problems[0]
    assert not Hostile.ran


def huge_npz(path: Path) -> None:
    """Write a small file that says it has an array of 2 GB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 29,)}
    )
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("x.npy", header.getvalue())


def test_an_array_of_two_gigabytes_is_refused(tmp_path: Path) -> None:
    huge_npz(tmp_path / "c.npz")
    (case,) = cases_of(tmp_path / "c.npz")
    assert "needs 2,147,483,648 bytes, and there is room for 1,073,741,824" in case.problems[0]


def test_a_small_file_of_a_run_unpacks_to_little(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=np.zeros(20 << 20, dtype="float32"))
    (source,) = cases_in({"c.npz": (tmp_path / "c.npz").read_bytes()}, shown="run/smoke")
    (case,) = source
    assert "there is room for 67,108,864" in case.problems[0]
    assert cases_of(tmp_path / "c.npz")[0].problems == ()


def test_an_npz_packed_in_another_way_is_a_bad_case(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("x.npy", b"")
    assert "not packed as numpy" in cases_of(tmp_path / "c.npz")[0].problems[0]


SEEDS = {
    "c.npz": b"",
    "c.tfrecord": records(example(x=1.0).SerializeToString(), b""),
    "tf_serving_warmup_requests": b"",
    "c.json": json.dumps({**DOCUMENT, "budget": {"p50_ms": 1}}).encode(),
    "c.jsonl": LINES.encode(),
    "c.toml": TOML.encode(),
}


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.integers(0, 3), st.binary(max_size=6)), max_size=5
    ),
)
def test_damaged_files_of_a_run_are_bad_cases(
    name: str, changes: list[tuple[int, int, bytes]]
) -> None:
    content = bytearray(SEEDS[name] or hostile_seed(name))
    for place, size, new in changes:
        at = place % (len(content) + 1)
        content[at : at + size] = new
    (source,) = cases_in({name: bytes(content)}, shown="run/smoke")
    with suppress(BadCase):
        for case in source:
            assert case.file == f"run/smoke/{name}" or not case.problems


def hostile_seed(name: str) -> bytes:
    if name != "c.npz":
        return records(*warmup_requests())
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.array(["a", "b"]), y=np.zeros((2, 3), "int64"))
    return packed.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_npz_is_a_bad_case(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    (case,) = cases_of(tmp_path / "c.npz")
    assert len(case.problems) == 1


def test_each_record_is_a_case(tmp_path: Path, parsing: Inspection) -> None:
    path = tmp_path / "data-00000-of-00001"
    path.write_bytes(records(*(example(x=one).SerializeToString() for one in (1.0, 2.0))))
    first, second = cases_of(path)
    fitted = fit_case(second, parsing)
    assert (first.position, second.position, fitted.api, fitted.signature.key) == (
        1,
        2,
        "Regress",
        "r",
    )
    assert fitted.examples[0].features.feature["x"].float_list.value == [2.0]


def test_a_truncated_record_is_named_behind_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "c.tfrecord"
    whole = records(example(x=1.0).SerializeToString(), example(x=2.0).SerializeToString())
    path.write_bytes(whole[:-3])
    first, second = cases_of(path)
    assert first.problems == ()
    assert second.source == f"case {path}#2"
    assert "cut short" in second.problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it holds no record"),
        (b"short", "ends within the record"),
        (records(b"") + b"short", "ends within the record"),
        (b"\x1f\x8b" + bytes(20), "gzip"),
        (records(b"\xff\xff"), "no tf.Example"),
    ],
)
def test_records_that_cannot_be_read_are_bad_cases(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "c.tfrecord"
    path.write_bytes(content)
    assert problem in cases_of(path)[-1].problems[0]


def test_an_example_of_another_kind_is_refused(tmp_path: Path, parsing: Inspection) -> None:
    message = example_pb2.Example()
    message.features.feature["x"].int64_list.value.append(1)
    path = tmp_path / "c.tfrecord"
    path.write_bytes(records(message.SerializeToString(), example(z=1.0).SerializeToString()))
    wrong, missing = cases_of(path)
    with pytest.raises(Misfit, match="feature x is int64, and the graph wants float32"):
        fit_case(wrong, parsing)
    with pytest.raises(Misfit, match="feature x is missing"):
        fit_case(missing, parsing)


def test_records_with_two_takers_need_a_name(tmp_path: Path) -> None:
    served = [Served(key=key, api="regress", feed="parse_example") for key in ("a", "b")]
    inspection = inspect_export(write_export(tmp_path / "1", signatures=served))
    (tmp_path / "d.tfrecord").write_bytes(records(example(x=1.0).SerializeToString()))
    (case,) = cases_of(tmp_path / "d.tfrecord")
    with pytest.raises(Misfit, match="there is a, b"):
        fit_case(case, inspection)
    (tmp_path / "c.toml").write_text(
        'schema = 1\n[[cases]]\nfile = "d.tfrecord"\nsignature_name = "b"\n'
    )
    (case,) = cases_of(tmp_path / "c.toml")
    assert fit_case(case, inspection).signature.key == "b"


def warmup_requests() -> list[bytes]:
    predict = prediction_log_pb2.PredictionLog()
    predict.predict_log.request.model_spec.name = "another"
    predict.predict_log.request.inputs["x"].CopyFrom(make_tensor("float32", [1], [4.0]))
    regress = prediction_log_pb2.PredictionLog()
    regress.regress_log.request.model_spec.signature_name = "r"
    regress.regress_log.request.input.example_list.examples.append(example(x=5.0))
    both = prediction_log_pb2.PredictionLog()
    for key in ("r", "c"):
        both.multi_inference_log.request.tasks.add().model_spec.signature_name = key
    held = both.multi_inference_log.request.input.example_list_with_context
    held.examples.append(example())
    held.context.CopyFrom(example(x=6.0))
    return [one.SerializeToString() for one in (predict, regress, both)]


def test_a_warm_up_file_gives_its_requests(tmp_path: Path) -> None:
    served = [
        Served(),
        Served(key="r", api="regress", feed="parse_example"),
        Served(key="c", api="classify", feed="parse_example"),
    ]
    export = write_export(tmp_path / "1", signatures=served)
    (export / "assets.extra").mkdir()
    warmup = export / "assets.extra" / "tf_serving_warmup_requests"
    warmup.write_bytes(records(*warmup_requests()))
    inspection = inspect_export(export)
    cases = list(Cases(sources=(as_source("warmup"),)).of(export))
    fitted = [fit_case(one, inspection) for one in cases]
    assert [(one.signature.key, one.api) for one in fitted] == [
        ("serving_default", "Predict"),
        ("r", "Regress"),
        ("r", "Regress"),
        ("c", "Classify"),
    ]
    assert read_tensor(fitted[0].inputs["x"]).values == (4.0,)
    assert fitted[3].context.features.feature["x"].float_list.value == [6.0]
    assert cases[3].source == "case assets.extra/tf_serving_warmup_requests#3"


def test_warmup_without_an_export_is_refused() -> None:
    with pytest.raises(BadCase, match="belongs to an export"):
        list(Cases(sources=(as_source("warmup"),)))


def test_a_file_in_a_document_gets_its_conditions(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([1.0], dtype="float32"))
    (tmp_path / "c.toml").write_text(
        'schema = 1\nbudget = { p50_ms = 9 }\n[[cases]]\nname = "n"\nfile = "d.npz"\n'
        "expect.outputs.y.max = 3\n"
    )
    (case,) = cases_of(tmp_path / "c.toml")
    assert case.source == f"case {tmp_path / 'd.npz'}#1 (n)"
    assert case.expect is not None
    assert case.expect.outputs["y"].max == 3
    assert case.budget is not None
    assert case.budget.p50_ms == 9


@pytest.mark.parametrize("name", ["../d.npz", "/d.npz", "d.json", "none.npz"])
def test_a_document_names_data_beside_it_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "d.npz", x=np.array([1.0]))
    document = {"schema": 1, "cases": [{"file": name}]}
    (tmp_path / "in" / "c.json").write_text(json.dumps(document))
    (case,) = cases_of(tmp_path / "in" / "c.json")
    assert name in case.problems[0]


def test_cases_of_a_model_are_found_by_name(tmp_path: Path) -> None:
    for name in (
        "m.cases.toml",
        "m.cases.d.npz",
        "m.contract.toml",
        "mm.cases.json",
        "n.cases.npz",
    ):
        (tmp_path / name).write_text("")
    assert found(cases_of_model(tmp_path, "m")) == ["m.cases.toml"]
    assert found(cases_of_model(tmp_path, "n")) == ["n.cases.npz"]
    assert found(cases_of_model(tmp_path / "none", "m")) == []


def found(files: Iterable[Any]) -> list[str]:
    return [one.name for one in files]


def test_what_lies_in_a_run_names_no_code() -> None:
    case = {"inputs": 1, "expect": {"predicate": "os:abort"}}
    content = json.dumps({"schema": 1, "cases": [case, {"inputs": 2}]}).encode()
    (source,) = cases_in({"c.json": content}, shown="run/smoke")
    first, second = source
    assert "never from a run" in first.problems[0]
    assert second.problems == ()


@pytest.mark.parametrize("what", ["missing.json", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadCase, match=what) as caught:
        as_source(tmp_path / what)
    assert "MODULE:FUNCTION" in str(caught.value.hint)


def test_cases_for_live_servers_have_no_budget(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**DOCUMENT, "budget": {"p99_ms": 5}}))
    with pytest.raises(BadCase, match="only a smoke test judges"):
        load_cases(path)
    path.write_text(json.dumps({"schema": 1, "cases": [{"inputs": 1}, {"no": 1}]}))
    with pytest.raises(BadCase, match="no valid file") as caught:
        load_cases(path)
    assert caught.value.problems[0].startswith(f"{path}#2: ")
