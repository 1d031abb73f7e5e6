from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingrepo.errors import BadContract
from servingrepo.savedmodel.contract import (
    Contract,
    PinnedSignature,
    PinnedTensor,
    check_contract,
    contract_of,
    parse_contract,
    render_contract,
)
from tests.savedmodel.test_compatibility import signature, signatures, spec

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
tensors = st.builds(
    PinnedTensor,
    dtype=st.none() | names,
    shape=st.none() | st.just("any") | st.lists(st.integers(-1, 5), max_size=3).map(tuple),
    default=st.just(value=False),
)
contracts = st.builds(
    Contract,
    model=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True),
    signatures=st.dictionaries(
        names,
        st.builds(
            PinnedSignature,
            method=st.none() | names,
            inputs=st.dictionaries(names, tensors, max_size=3),
            outputs=st.dictionaries(names, tensors, max_size=3),
        ),
        max_size=3,
    ),
)


@settings(max_examples=40, deadline=None)
@given(contracts)
def test_a_contract_survives_its_text_whatever_its_names(contract: Contract) -> None:
    text = render_contract(contract)
    assert parse_contract(text.encode(), source="x") == contract
    assert render_contract(parse_contract(text.encode(), source="x")) == text


@settings(max_examples=40, deadline=None)
@given(signatures)
def test_signatures_keep_the_contract_that_was_made_of_them(some: tuple) -> None:  # type: ignore[type-arg]
    assert check_contract(contract_of("m", some), some).verdict == "same"


@settings(max_examples=40, deadline=None)
@given(signatures)
def test_an_empty_contract_demands_nothing(some: tuple) -> None:  # type: ignore[type-arg]
    assert check_contract(Contract(model="m"), some).verdict == "same"


def parsed(text: str) -> Contract:
    return parse_contract(text.encode(), source="x")


def test_only_what_a_contract_names_is_demanded() -> None:
    contract = parsed('model = "m"\n[signatures.serving_default]\noutputs.y = {}\n')
    wide = signature(spec("anything", "string"), outputs=(spec("y", "int8", None), spec("z")))
    assert check_contract(contract, [wide]).verdict == "same"
    assert check_contract(contract, [signature(outputs=())]).verdict == "breaking"


@pytest.mark.parametrize(
    ("tensor", "found", "kind"),
    [
        ('dtype = "int64"', spec(), "input-dtype-changed"),
        ("shape = [-1, 4, 1]", spec(), "input-shape-changed"),
        ("shape = [-1, -1]", spec(), "input-shape-narrowed"),
        ('shape = "any"', spec(), "input-shape-narrowed"),
        ("default = true", spec(), "input-lost-default"),
    ],
)
def test_what_a_contract_demands_of_an_input(tensor: str, found: object, kind: str) -> None:
    contract = parsed(f'model = "m"\n[signatures.serving_default.inputs]\nx = {{ {tensor} }}\n')
    (change,) = check_contract(contract, [signature(found)]).changes  # type: ignore[arg-type]
    assert (change.kind, change.breaking) == (kind, True)


def test_a_wider_shape_than_demanded_is_fine() -> None:
    contract = parsed('model = "m"\n[signatures.serving_default]\ninputs.x = { shape = [8, 4] }\n')
    assert check_contract(contract, [signature(spec())]).verdict == "same"
    assert check_contract(contract, [signature(spec(shape=None))]).verdict == "same"


def test_an_input_that_the_contract_does_not_name_must_have_a_default() -> None:
    contract = parsed('model = "m"\n[signatures.serving_default]\ninputs.x = {}\n')
    more = signature(spec(), spec("z"))
    assert [one.kind for one in check_contract(contract, [more]).changes] == ["input-required"]
    more = signature(spec(), spec("z", has_default=True))
    assert check_contract(contract, [more]).verdict == "same"


def test_a_missing_signature_and_another_method_break() -> None:
    contract = parsed('model = "m"\n[signatures.a]\nmethod = "x"\n[signatures.b]\n')
    found = check_contract(contract, [signature(key="a")])
    assert [one.kind for one in found.changes] == ["method-changed", "signature-removed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "not TOML"),
        (b"[", "not TOML"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b"", "model"),
        (b'model = "m"\nsignature = {}', "signature"),
        (b'model = "m"\nschema = 2', "format 2"),
        (b'model = "m"\n[signatures.a.inputs.x]\nshape = 4', "shape"),
        (b'model = "m"\n[signatures.a.inputs.x]\nshape = "all"', "'all'"),
        (b'model = "m"\n[signatures.a.inputs.x]\nshap = []', "shap"),
    ],
)
def test_what_is_no_contract_is_refused_with_the_place(text: bytes, said: str) -> None:
    with pytest.raises(BadContract, match=said.replace("[", r"\[")):
        parse_contract(text, source="x")


def test_all_mistakes_of_a_contract_are_told_at_once() -> None:
    text = (
        'model = "m"\n[signatures.a]\ninputs.x = { shape = [-2] }\noutputs.y = { default = true }'
    )
    with pytest.raises(BadContract) as caught:
        parsed(text)
    assert len(caught.value.problems) == 2


def test_the_sample_is_a_contract() -> None:
    sample = Path(__file__).parents[2] / "configs" / "ranker.contract.toml"
    contract = parse_contract(sample.read_bytes(), source="x")
    assert contract.model == "ranker"
    assert contract.signatures["serving_default"].inputs["temperature"].default
