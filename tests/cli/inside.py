"""The command line inside the tests' own process: ten times as fast as a process for each command."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from servingrepo.cli.main import run
from tests.support import Outcome

if TYPE_CHECKING:
    from pathlib import Path


def command(*arguments: str | Path) -> Outcome:
    """Run the real command line, for what needs no environment, signal or terminal of its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(one) for one in arguments])
    said = []
    for stream in (out, err):
        stream.seek(0)
        said.append(stream.read())
    assert "Traceback" not in said[1], said[1]
    return Outcome(code, *said)


def refused(done: Outcome, code: int, *said: str | Path) -> None:
    """Check an error: its code, one line of what happened with a hint, and what both say."""
    assert done.code == code, (done.out, done.err)
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert sum(line.startswith("hint: ") for line in lines) == 1, done.err
    for one in said:
        assert str(one) in done.err, done.err
