"""How deep the main path is: the functions of ours between a command and what it does to the world.

A number of frames or files that grows is a layer more that the next reader has to keep in mind.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import servingrepo
from servingrepo.testing.exports import write_export

PROGRAM = """
import json, sys, threading

PACKAGE, main = "/servingrepo/", threading.main_thread()
WANTED = {"publish_directory": "storage/disk.py", "status": "servers/client.py"}
found = {}


def frames(frame):
    while frame is not None:
        path = frame.f_code.co_filename
        if PACKAGE in path:
            yield path.rpartition(PACKAGE)[2], frame.f_code.co_name
        frame = frame.f_back


def watch(frame, event, _):
    name = frame.f_code.co_name
    if event == "call" and WANTED.get(name, "?") in frame.f_code.co_filename and name not in found:
        stack = list(frames(frame))
        if threading.current_thread() is not main:
            stack += frames(sys._current_frames()[main.ident])
        found[name] = stack[::-1]


sys.setprofile(watch)
threading.setprofile(watch)
from servingrepo.cli.main import main as command

try:
    command()
except BaseException:
    pass
sys.setprofile(None)
threading.setprofile(None)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """Return the frames of ours, from the command's function on, by the function that they lead to."""
    root = tmp_path_factory.mktemp("frames")
    export = write_export(root / "run")
    servingrepo.init(root / "repo")
    options = (
        "--model",
        "m",
        "--no-smoke",
        "--endpoint",
        "127.0.0.1:1",
        "--root",
        str(root / "repo"),
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "promote", str(export), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        name: stack[stack.index(["cli/promote.py", "command"]) :] for name, stack in found.items()
    }


def above_storage(stack: list[tuple[str, str]]) -> tuple[int, int]:
    """Count frames and files."""
    ours = [file for file, _ in stack if not file.startswith("storage/")]
    return len(ours), len(set(ours))


def test_the_first_commit_point_is_near_the_command(
    paths: dict[str, list[tuple[str, str]]],
) -> None:
    frames, files = above_storage(paths["publish_directory"])
    assert frames <= 6, paths["publish_directory"]
    assert files <= 4, paths["publish_directory"]


def test_a_live_server_is_near_the_command(paths: dict[str, list[tuple[str, str]]]) -> None:
    """The hand-over to a thread counts as a frame."""
    frames, files = above_storage(paths["status"])
    assert frames <= 9, paths["status"]
    assert files <= 7, paths["status"]
