"""A run on a network file system that stops answering: a real one, whose server takes requests and answers none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import StorageHung
from servingrepo.runs.mounts import network_mount
from servingrepo.runs.worktree import code_of
from servingrepo.testing.exports import write_export
from tests.support import command, ending, new_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
NEVER = 1 << 60
WAIT = 0.5
SLACK = 8.0
"""Seconds that a busy machine may take beyond the wait."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    write_export(source / "run/saved_model", variables=True, assets={"words": b"a\n" * 500_000})
    (source / "run/metrics.json").write_text('{"accuracy": 0.9}')
    (source / "run/config.json").write_text('{"rate": 0.1}')
    return source


@contextmanager
def mounted(source: Path, place: Path, *, after: int = NEVER) -> Iterator[subprocess.Popen[str]]:
    """Mount a mirror of a directory for the block; what waits for it then fails, and so ends."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("only root may mount a file system, and /dev/fuse has to be there")
    place.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.runs.hanging", source, place, "--after", str(after)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        said = server.stdout.readline()
        assert said == "ready\n", said + server.stdout.read()
        yield server
    finally:
        # The kernel gives up what still waits when the server is gone; nothing here asks the mount anything.
        server.kill()
        server.wait()
        server.stdout.close()
        subprocess.run(["umount", "--lazy", place], check=False)


def hang(server: subprocess.Popen[str]) -> None:
    os.kill(server.pid, signal.SIGUSR1)
    time.sleep(0.1)


def started(place: Path) -> list[str]:
    """Return the processes whose command line has a path in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(place) in line and "tests.runs.hanging" not in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("scan", "{}/run"),
        ("scan", "{}/run/../run", "--json"),
        ("promote", "{}/run", "--model", "m", "--saved-model", "{}/run/saved_model"),
        ("export", "{}/run"),
    ],
)
def test_a_command_given_a_hung_mount_ends_in_time_with_its_own_error(
    source: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    new_repository(tmp_path / "repo")
    place = tmp_path / "mnt"
    (tmp_path / "link").symlink_to(place)
    with mounted(source, place) as server:
        hang(server)
        begin = time.monotonic()
        filled = [one.format(tmp_path / "link") for one in arguments]
        done = command("--root", tmp_path / "repo", *filled, "--run-wait", str(WAIT))
        assert time.monotonic() - begin < WAIT + SLACK
    assert done.code == 53, done
    said = done.json["error"]["message"] if "--json" in arguments else done.err
    assert f"mounted at {place} has not answered for 0.5 s" in said


# Which request hangs is where the scan is: finding the run, listing it, reading the graph.
@pytest.mark.parametrize("after", [2, 17, 41])
def test_a_scan_whose_mount_hangs_on_the_way_ends_in_time(
    source: Path, tmp_path: Path, after: int
) -> None:
    with mounted(source, tmp_path / "mnt", after=after):
        begin = time.monotonic()
        done = command("scan", tmp_path / "mnt/run", "--json", "--run-wait", str(WAIT))
        assert time.monotonic() - begin < WAIT + SLACK
        assert done.code == 53, done
        assert done.json["error"]["slug"] == "storage-hung"


@pytest.mark.parametrize("after", [30, 120])
def test_a_promotion_whose_mount_hangs_on_the_way_leaves_nothing_once_the_kernel_lets_go(
    source: Path, tmp_path: Path, after: int
) -> None:
    repo = new_repository(tmp_path / "repo")
    promote = ("--root", tmp_path / "repo", "promote", tmp_path / "mnt/run", "--model", "m")
    with mounted(source, tmp_path / "mnt", after=after):
        begin = time.monotonic()
        done = command(*promote, "--no-smoke", "--run-wait", str(WAIT))
        assert time.monotonic() - begin < WAIT + SLACK
        assert done.code == 53, done
    ends = time.monotonic() + SLACK
    while started(tmp_path / "mnt") and time.monotonic() < ends:
        time.sleep(0.05)
    assert started(tmp_path / "mnt") == []
    repo.recover()
    assert not list((tmp_path / "repo/models").glob("m/.staging/*"))
    assert not list((tmp_path / "repo/.servingrepo/journal").glob("*"))
    (tmp_path / "mnt").rmdir()
    with mounted(source, tmp_path / "mnt"):
        assert command(*promote, "--no-smoke").code == 0
        assert repo.verify("m@served")[0].ok


def test_a_promotion_whose_mount_hangs_when_the_run_was_read_goes_on(
    source: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "repo")
    with (
        mounted(source, tmp_path / "mnt") as server,
        ending(
            subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        "servingrepo",
                        "--root",
                        tmp_path / "repo",
                        "promote",
                        "-q",
                    ),
                    *(tmp_path / "mnt/run", "--model", "m", "--no-smoke", "--run-wait", "0.5"),
                ],
                env={**os.environ, "SERVINGREPO_FAILPOINTS": "c1.before-rename=sleep:3"},
                stdout=subprocess.PIPE,
            )
        ) as promoting,
    ):
        record = tmp_path / "repo/.servingrepo/models/m/1.json"
        ends = time.monotonic() + SLACK
        while not record.exists() and time.monotonic() < ends:
            time.sleep(0.02)
        hang(server)
        out, _ = promoting.communicate(timeout=30)
    assert (promoting.returncode, out) == (0, b"1\n")
    assert repo.verify("m@served")[0].ok


def test_a_signal_reaches_the_child_that_reads(source: Path, tmp_path: Path) -> None:
    new_repository(tmp_path / "repo")
    with (
        mounted(source, tmp_path / "mnt"),
        ending(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "servingrepo", "--root", tmp_path / "repo", "promote"),
                    *(tmp_path / "mnt/run", "--model", "m", "--no-smoke"),
                ],
                env={**os.environ, "SERVINGREPO_FAILPOINTS": "record.done=sleep:60"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ) as promoting,
    ):
        record = tmp_path / "repo/.servingrepo/models/m/1.json"
        ends = time.monotonic() + SLACK
        while not record.exists() and time.monotonic() < ends:
            time.sleep(0.02)
        promoting.terminate()
        _, err = promoting.communicate(timeout=30)
    assert promoting.returncode == 143
    assert b"stopped by SIGTERM" in err
    assert not record.exists()


def test_a_run_on_a_mount_that_answers_is_read_as_on_a_local_disk(
    source: Path, tmp_path: Path
) -> None:
    with mounted(source, tmp_path / "mnt"):
        far = command("scan", tmp_path / "mnt/run")
        assert command("scan", tmp_path / "mnt/none").code == 20
    near = command("scan", source / "run")
    assert (far.code, far.err) == (near.code, near.err) == (0, "")
    assert far.out.replace(str(tmp_path / "mnt"), str(source)) == near.out


def test_the_python_api_refuses_a_hung_mount_and_finds_it_behind_links(
    source: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "repo")
    place = tmp_path / "mnt"
    (tmp_path / "a").symlink_to("b/../b")
    (tmp_path / "b").symlink_to(place)
    (tmp_path / "loop").symlink_to("loop")
    with mounted(source, place) as server:
        assert network_mount(tmp_path / "a/run") == str(place)
        assert network_mount(tmp_path / "elsewhere/../mnt/x") == str(place)
        assert network_mount(tmp_path / "mnt2") is None
        assert network_mount(tmp_path / "loop") is None
        assert repo.scan(tmp_path / "a/run").kind == "child"
        hang(server)
        assert code_of(place, of="working directory", seconds=0.5) is None
        for read in (repo.scan, repo.measure, repo.export):
            with pytest.raises(StorageHung, match=r"has not answered for 0\.5 s"):
                read(tmp_path / "a/run", run_wait=0.5)
        with pytest.raises(StorageHung):
            servingrepo.open(tmp_path / "repo").promote(
                tmp_path / "a/run", model="m", smoke=False, run_wait=0.5
            )
