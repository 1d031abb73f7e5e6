"""Whatever bytes an export has: a verdict within seconds, in bounded memory, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.savedmodel.bundle import BadIndex, read_index
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.snappy import BadSnappy, decompress
from servingrepo.savedmodel.variables import read_variables
from servingrepo.testing.bundles import write_bundle
from tests.savedmodel.hostile import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 30.0
MEGABYTES = 700
WHOLE = {"100,000 signatures", "long way", "many calls", "many readers", "many assets"}
"""Large, but nothing is wrong with what is in them."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_get_a_verdict_within_seconds_and_bounded_memory(
    tmp_path: Path, name: str
) -> None:
    HOSTILE[name](tmp_path / "1")
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "servingrepo", "verify", "--json", tmp_path / "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert "Traceback" not in said, said
    assert process.returncode in {0, 22}, said
    assert time.monotonic() - start < SECONDS
    assert usage.ru_maxrss < MEGABYTES * 1000
    assert (process.returncode == 0) == (name in WHOLE)


@given(st.binary(max_size=400), st.integers(0, 1000))
def test_decompress_of_any_bytes_stays_within_its_limit(data: bytes, limit: int) -> None:
    with suppress(BadSnappy):
        assert len(decompress(data, limit=limit)) <= limit


@given(st.lists(st.tuples(st.integers(0, 399), st.integers(0, 7)), min_size=1, max_size=4))
def test_an_index_with_flipped_bits_is_bad(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder / "v", {"a": 1.0, "b": 2.0, "c": 3.0})
    whole = (folder / "v.index").read_bytes()
    data = bytearray(whole)
    for byte, bit in flips:
        data[byte % len(data)] ^= 1 << bit
    if data == whole:
        return
    with pytest.raises(BadIndex):
        read_index(bytes(data))


@given(st.binary(max_size=300))
def test_any_bytes_get_a_verdict(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("export")
    (folder / "variables").mkdir()
    for name in ("saved_model.pb", "fingerprint.pb", "variables/variables.index"):
        (folder / name).write_bytes(data)
    assert inspect_export(folder).defects
    assert read_variables(folder).problem
