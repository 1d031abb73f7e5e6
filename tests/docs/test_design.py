"""docs/design.md says what the code is and does: rooms, schema, steps and files."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.testing.fake_models import FakeModels
from servingrepo.testing.fake_server import serve_fake
from tests.support import command, new_repository, run_with
from tools.house import DOCUMENT, drawn, house, picture
from tools.schema import classes, described, kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = DOCUMENT.read_text()
ANYTHING = {
    "NAME": r"[\w.-]+",
    "N": r"\d+",
    "TXID": r"\d{8}T\d{6}Z-[0-9a-f]{8}",
    "TIME": r"\w+",
}


def part(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", TEXT, re.DOTALL)
    assert found is not None, mark
    return found[1]


def test_picture_is_of_the_house_as_it_is() -> None:
    assert drawn(TEXT) == TEXT, "make house"


def test_picture_shows_every_room_and_only_what_adds_something() -> None:
    rooms = house()
    lines = picture(rooms).splitlines()
    assert {line.strip() for line in lines} >= rooms.keys()
    assert "  cli --> api" in lines
    assert "  cli --> errors" not in lines
    assert "  servers -. starts .-> embedded" in lines


def test_schema_is_that_of_the_classes() -> None:
    assert described(TEXT) == TEXT, "make house"


def test_schema_says_what_every_field_means() -> None:
    meanings = kept(TEXT)
    fields = [
        (kind.__name__, field.encode_name)
        for kind in classes()
        for field in msgspec.structs.fields(kind)
    ]
    assert len(fields) > 100
    assert [one for one in fields if not meanings[one]] == [], "write it into the table"


@contextmanager
def fake_endpoint() -> Iterator[str]:
    with serve_fake(FakeModels(load_seconds=0.0)) as client:
        yield str(client.endpoint)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """Promote twice and roll back on a live server; return the root, and the steps of each command."""
    folder = tmp_path_factory.mktemp("life")
    root = folder / "serving"
    repo = new_repository(root)
    repo.promote(run_with(folder / "a", offset=1.0), model="half", smoke=False)
    run_with(folder / "b", offset=2.0)
    steps: dict[str, list[str]] = {}
    with fake_endpoint() as endpoint:
        repo.reload(endpoints=[endpoint], wait=30)
        for name, arguments in (
            ("promote", ("promote", folder / "b", "--model", "half", "--no-smoke")),
            ("rollback", ("rollback", "half")),
        ):
            record = folder / name
            done = command(
                *("--root", root, *arguments, "--endpoint", endpoint),
                env={"SERVINGREPO_FAILPOINTS": f"record={record}"},
            )
            assert done.code == 0, done.err
            steps[name] = [line.partition("@")[0] for line in record.read_text().splitlines()]
    return root, steps


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_steps_come_in_the_order_of_the_picture(
    life: tuple[Path, dict[str, list[str]]], verb: str
) -> None:
    shown = re.findall(
        r"\(([a-z0-9]+(?:[.-][a-z0-9-]+)+|staged|proven)\)$", part(verb), re.MULTILINE
    )
    assert len(shown) > 6
    taken = iter(life[1][verb])
    assert [step for step in shown if step not in taken] == []


def test_every_file_of_a_repository_is_in_the_list(
    life: tuple[Path, dict[str, list[str]]],
) -> None:
    root, _ = life
    for arguments in (
        ("prune", "half", "--keep-last", "1"),
        ("contract", "half", "--write"),
        ("verify", "half", "--max-seconds", "60"),
    ):
        done = command("--root", root, *arguments)
        assert done.code == 0, done.err
    listed = re.findall(r"^\| `(.+?)` \|", part("disk"), re.MULTILINE)
    # What lies in a directory of the list belongs to it.
    patterns = [
        re.sub("|".join(ANYTHING), lambda name: ANYTHING[name[0]], re.escape(one))
        + (".+" if one.endswith("/") else "")
        for one in listed
    ]
    files = [one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file()]
    assert len(files) > 10
    assert [file for file in files if not any(re.fullmatch(one, file) for one in patterns)] == []
