"""The caller's own code: cases that it makes, predicates that it has, and what is said when it fails."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.smoke.cases import SmokeCase
from servingrepo.smoke.code import CaseCode, Predicates
from servingrepo.smoke.tensors import Array, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


CASE = SmokeCase(file="c.json", position=3, name="n")
NUMBERS = {"y": Tensor(dtype="float32", shape=(2, 1), values=(1.0, 2.0))}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that writes the module `own` into the current directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        (tmp_path / "own.py").write_text(textwrap.dedent(text))

    return write


def cases(what: str, **more: Any) -> list[SmokeCase]:
    return list(CaseCode(what=what, **more))


def problem(what: str, outputs: dict[str, Tensor] | None = None, seconds: float = 10.0) -> str:
    with Predicates(seconds=seconds) as predicates:
        return predicates.problem(what, CASE, NUMBERS if outputs is None else outputs)


def test_a_function_gives_cases_with_arrays(write: Callable[[str], None]) -> None:
    write(
        """
        import numpy as np
        print("this goes nowhere")

        def some():
            yield {"name": "a", "inputs": {"x": np.array([1.5], dtype="float32")}}
            yield {"instances": [{"x": np.float32(2)}], "predictions": [np.array([1, 2])]}
            yield {"inputs": {"x": [1]}, "expect": {"predicate": "own:check"}}
        """
    )
    first, second, third = cases("own:some")
    assert first.source == "case own:some#1 (a)"
    assert isinstance(first.data["x"], Array)
    assert (first.data["x"].dtype, len(first.data["x"].content)) == ("float32", 4)
    assert (second.data, second.expected) == ([{"x": 2.0}], [[1, 2]])
    assert third.expect is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "def some(): raise RuntimeError('no luck')",
            "raised RuntimeError: no luck (own.py, line 1)",
        ),
        ("def some(): return 3", "raised TypeError"),
        ("def some(): return []", "it gave no case"),
        ("some = 3", "is no function"),
        ("def other(): pass", "cannot be imported: AttributeError"),
        ("import nothing_like_that", "cannot be imported: ModuleNotFoundError"),
        ("import os\ndef some(): os._exit(9)", "ended its process (9)"),
        ("import sys\ndef some(): sys.exit()", "raised SystemExit"),
    ],
)
def test_a_function_that_fails_is_a_bad_case(
    write: Callable[[str], None], text: str, said: str
) -> None:
    write(text)
    (case,) = cases("own:some")
    assert case.position == 1
    assert said in case.problems[0]


def test_cases_before_a_failure_are_given(write: Callable[[str], None]) -> None:
    write(
        """
        import time
        def some():
            yield {"inputs": 1}
            yield {"no": 1}
            time.sleep(60)
        """
    )
    began = time.monotonic()
    first, second, third = cases("own:some", seconds=0.5)
    assert first.problems == ()
    assert "unknown key 'no'" in second.problems
    assert third.problems == ("did not answer within 0.5 s, and was stopped",)
    assert time.monotonic() - began < 30


def test_a_huge_array_of_a_function_fails_alone(write: Callable[[str], None]) -> None:
    write(
        """
        import numpy as np
        def some():
            yield {"inputs": {"x": np.broadcast_to(np.float32(1), (1 << 29,))}}
            yield {"inputs": {"x": np.zeros(1, "datetime64[s]")}}
            yield {"inputs": 1}
        """
    )
    first, second, third = cases("own:some")
    assert "needs 2,147,483,648 bytes" in first.problems[0]
    assert "cannot be sent" in second.problems[0]
    assert third.problems == ()


def test_code_is_searched_here_behind_libraries(write: Callable[[str], None]) -> None:
    write("import colorsys\ndef some(): yield {'inputs': 1}")
    for name in ("colorsys.py", "numpy.py", "msgspec.py"):
        Path(name).write_text("raise SystemExit('shadowed')")
    assert cases("own:some")[0].problems == ()


PREDICATES = """
import numpy as np

def yes(case, outputs):
    assert case == {"name": "n", "file": "c.json", "position": 3, "signature_name": "serving_default"}
    assert outputs["y"].dtype == np.float32 and outputs["y"].shape == (2, 1)
    return outputs["y"].max() == 2

def nothing(case, outputs): pass
def no(case, outputs): return np.False_
def reason(case, outputs): return "too high"
def asserts(case, outputs): assert outputs["y"].max() < 2, "not below 2"
def raises(case, outputs): return outputs["z"]
def hangs(case, outputs):
    while True: pass
def dies(case, outputs):
    import os; os.kill(os.getpid(), 9)
def prints(case, outputs):
    print("noise"); return True
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("yes", ""),
        ("nothing", ""),
        ("prints", ""),
        ("no", "predicate own:no: it says np.False_"),
        ("reason", "predicate own:reason: too high"),
        ("asserts", "predicate own:asserts: not below 2"),
        ("raises", "predicate own:raises raised KeyError: 'z' (own.py, line"),
        ("dies", "predicate own:dies ended its process (-9)"),
        ("absent", "predicate own:absent cannot be imported: AttributeError"),
    ],
)
def test_a_predicate_accepts_or_says_why_not(
    write: Callable[[str], None], name: str, said: str
) -> None:
    write(PREDICATES)
    found = problem(f"own:{name}")
    assert found == said or (said and found.startswith(said))


def test_a_predicate_that_hangs_is_stopped_alone(write: Callable[[str], None]) -> None:
    write(PREDICATES)
    with Predicates(seconds=0.5) as predicates:
        found = predicates.problem("own:hangs", CASE, NUMBERS)
        assert found == "predicate own:hangs did not answer within 0.5 s, and was stopped"
        assert predicates.problem("own:yes", CASE, NUMBERS) == ""


def test_a_predicate_gets_strings_as_bytes(write: Callable[[str], None]) -> None:
    write("def check(case, outputs): return outputs['s'].tolist() == [b'a', b'b']")
    texts = {"s": Tensor(dtype="string", shape=(2,), values=(b"a", b"b"))}
    assert problem("own:check", texts) == ""


def test_a_predicate_gets_complex_numbers(write: Callable[[str], None]) -> None:
    write("def check(case, outputs): return outputs['c'].tolist() == [1j, 2]")
    numbers = {"c": Tensor(dtype="complex64", shape=(2,), values=(1j, 2 + 0j))}
    assert problem("own:check", numbers) == ""


def test_no_child_is_left_behind(write: Callable[[str], None]) -> None:
    write(
        """
        import os, pathlib, subprocess
        def some():
            child = subprocess.Popen(["sleep", "600"])
            pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
            yield {"inputs": 1}
            yield {"inputs": 1}
        """
    )
    for _ in CaseCode(what="own:some"):
        break
    pids = Path("pids").read_text().split()
    ends = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < ends:
        time.sleep(0.05)
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")  # noqa: PTH110
