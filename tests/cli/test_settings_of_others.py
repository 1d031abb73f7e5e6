"""Settings that another user of the machine wrote, may write or put a link to: they name commands and servers."""

from __future__ import annotations

import grp
import os
import pwd
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.cli.inside import refused
from tests.support import Outcome, command, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65_534
FILE = "servingrepo.toml"


def by_nobody(script: str, *, cwd: Path) -> None:
    """Run a shell script as another user."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    subprocess.run([*become, "sh", "-euc", script], cwd=cwd, check=True)


@pytest.fixture
def ours(open_folder: Path) -> Path:
    """A directory of ours that others can reach."""
    return open_folder


@pytest.fixture
def theirs(ours: Path) -> Path:
    """A directory of another user, with a run in it that is about to be promoted."""
    folder = ours / "runs"
    run_with(folder / "run", offset=1.0)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return folder


@pytest.fixture
def root(ours: Path) -> Path:
    """A repository of ours."""
    return new_repository(ours / "serving").root


def promoted(root: Path, *, cwd: Path, env: dict[str, str] | None = None) -> Outcome:
    return command(
        *("--root", root, "promote", "run", "--model", "m", "--no-smoke"), cwd=cwd, env=env
    )


# attacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plant",
    [
        "cp {text} servingrepo.toml",
        "cp {text} servingrepo.toml; chmod 600 servingrepo.toml",
        "cp {text} other; ln -s other servingrepo.toml",
        "ln -s {text} servingrepo.toml",
    ],
)
def test_a_planted_file_runs_no_command(plant: str, theirs: Path, root: Path) -> None:
    marker, text = root.parent / "marker", root.parent / "text"
    # The text belongs to root: so does much that others can put a link to.
    text.write_text(f'[promote]\nbefore = "touch {marker}"\n')
    by_nobody(plant.format(text=text), cwd=theirs)
    done = promoted(root, cwd=theirs)
    refused(done, 10, theirs / FILE, f"belongs to uid {NOBODY}, not to root", "--settings FILE")
    assert not marker.exists()
    assert not (root / "models" / "m").exists()


def test_a_file_planted_in_the_root_runs_no_command(theirs: Path, root: Path) -> None:
    marker = root.parent / "marker"
    os.chown(root, NOBODY, NOBODY)
    by_nobody(f"""echo '[promote]\nbefore = "touch {marker}"' > {FILE}""", cwd=root)
    at = f"--root={root}"
    for arguments in ((at, "promote"), ("promote", at)):
        done = command(*arguments, "run", "--model", "m", "--no-smoke", cwd=theirs)
        refused(done, 10, root / FILE)
    assert not marker.exists()


@contextmanager
def listening(address: str) -> Iterator[tuple[str, list[str]]]:
    """Listen for gRPC as anybody could, and keep the metadata of every call."""
    got: list[str] = []

    class Listener(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in its stubs alone
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
            got.extend(str(value) for _, value in handler_call_details.invocation_metadata)

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[Listener()])
        port = server.add_insecure_port(f"{address}:0")
        server.start()
        try:
            yield f"{address}:{port}", got
        finally:
            server.stop(None).wait()


BEARER = "Bearer 5ecret"
WITH_HEADER = {"SERVINGREPO_HEADER": f"authorization={BEARER}"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_planted_endpoint_gets_no_token(address: str, theirs: Path, root: Path) -> None:
    with listening(address) as (endpoint, got):
        by_nobody(f"""echo 'endpoints = ["{endpoint}"]' > {FILE}""", cwd=theirs)
        refused(promoted(root, cwd=theirs, env=WITH_HEADER), 10, theirs / FILE)
        assert got == []
        # The listener does hear what is sent to it by the caller's own word.
        command("--root", root, "reload", "--endpoint", endpoint, cwd=root, env=WITH_HEADER)
        assert BEARER in got


# what is obeyed -----------------------------------------------------------------------------------


def said(cwd: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Return why settings are refused, or nothing if they are obeyed."""
    done = command(*arguments, "list", "-q", cwd=cwd, env=env)
    if done.code == 30:  # there is no repository, and it took the settings to find that out
        return ""
    assert done.code == 10, done
    assert done.out == ""
    return done.err


def settings(folder: Path, mode: int = 0o644) -> Path:
    file = folder / FILE
    file.write_text("wait = 3\n")
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("folder", "file", "owner", "group", "obeyed"),
    [
        (0o755, 0o644, 0, 0, True),
        (0o700, 0o600, 0, 0, True),
        (0o755, 0o646, 0, 0, False),
        (0o755, 0o664, 0, NOBODY, False),
        (0o755, 0o644, NOBODY, NOBODY, False),
        (0o777, 0o644, 0, 0, False),
        (0o1777, 0o644, 0, 0, True),
        (0o1777, 0o644, NOBODY, NOBODY, False),
    ],
)
def test_who_may_write_decides(
    folder: int, file: int, owner: int, group: int, *, obeyed: bool, ours: Path
) -> None:
    os.chown(settings(ours, file), owner, group)
    ours.chmod(folder)
    assert (said(ours) == "") is obeyed


def test_a_directory_of_others_is_no_place_for_settings(ours: Path, theirs: Path) -> None:
    file = settings(theirs)
    assert f"{theirs} belongs to uid {NOBODY}, not to root" in said(theirs)
    assert f"hint: if you trust them: name it: --settings {FILE};" in said(theirs)
    assert said(theirs, "--settings", FILE) == ""
    # A link of ours into it is no better.
    (ours / FILE).symlink_to(file)
    assert f"{theirs} belongs to uid {NOBODY}" in said(ours)


def test_all_that_is_wrong_is_said_at_once_with_what_ends_it(ours: Path) -> None:
    os.chown(settings(ours, 0o666), NOBODY, 0)
    ours.chmod(0o777)
    error = said(ours)
    assert f"  others may exchange what is in {ours}\n" in error
    assert f"  {ours / FILE} belongs to uid {NOBODY}, not to root\n" in error
    assert f"  others may write to {ours / FILE}\n" in error
    assert f"name it: --settings {FILE}, chown 0 {FILE}, chmod go-w {FILE}" in error
    for remedy in (f"chown 0 {FILE}", f"chmod go-w {FILE}"):
        subprocess.run(remedy.split(), cwd=ours, check=True)
    assert said(ours, "--settings", FILE) == ""


def test_a_link_of_others_is_refused_where_only_they_can_change_it(ours: Path) -> None:
    (ours / "etc").mkdir()
    file = settings(ours / "etc")
    ours.chmod(0o1777)
    by_nobody(f"ln -s etc/{FILE} {FILE}", cwd=ours)
    assert f"{ours / FILE} belongs to uid {NOBODY}" in said(ours)
    assert said(ours, "--settings", file) == ""


def test_links_of_ours_are_followed_to_files_of_ours(ours: Path) -> None:
    (ours / "etc").mkdir()
    (ours / "etc" / "real").write_text("nosuch = 1\n")
    (ours / "etc" / "link").symlink_to("real")
    (ours / FILE).symlink_to(ours / "etc" / "link")
    assert "nosuch: no such setting" in said(ours)
    (ours / "etc" / "real").unlink()
    assert said(ours) == "", "a link to nothing is no file"
    (ours / "etc" / "real").symlink_to("link")
    assert "its links form a loop" in said(ours)


def test_a_named_file_is_judged_without_its_directory(ours: Path) -> None:
    file = settings(ours)
    ours.chmod(0o777)
    assert said(ours, "--settings", file) == ""
    file.chmod(0o666)
    assert f"others may write to {file}" in said(ours, "--settings", file)
    assert f"others may write to {file}" in said(ours, env={"SERVINGREPO_SETTINGS": str(file)})
    file.chmod(0o644)
    os.chown(file, NOBODY, NOBODY)
    assert f"{file} belongs to uid {NOBODY}" in said(ours, "--settings", file)


def test_the_user_who_called_sudo_may_name_a_file_of_theirs(ours: Path) -> None:
    file = settings(ours)
    os.chown(file, NOBODY, NOBODY)
    by_sudo = {"SUDO_UID": str(NOBODY)}
    assert said(ours, "--settings", file, env=by_sudo) == ""
    assert f"belongs to uid {NOBODY}" in said(ours, env=by_sudo), "one that is found is not named"
    assert f"belongs to uid {NOBODY}" in said(ours, "--settings", file, env={"SUDO_UID": "1"})


def test_pipes_and_the_empty_device_can_be_named(ours: Path) -> None:
    (ours / FILE).write_text("nosuch = 1\n")
    servingrepo = f"{sys.executable} -m servingrepo"
    for script in (
        f"{servingrepo} --settings <(echo wait=3) list",
        f"echo wait=3 | {servingrepo} --settings /dev/stdin list",
        f"{servingrepo} --settings /dev/null list",
    ):
        done = subprocess.run(["bash", "-c", script], cwd=ours, check=False, capture_output=True)
        assert done.returncode == 30, done.stderr


def test_the_group_of_the_owner_alone_may_write(ours: Path) -> None:
    """The umask of such users is 002 on Debian, Ubuntu and Red Hat."""
    others = [one for one in pwd.getpwall() if one.pw_gid == 0 and one.pw_uid != 0]
    alone = not others and not set(grp.getgrgid(0).gr_mem) - {"root"}
    file = settings(ours, 0o664)
    assert (said(ours) == "") is alone
    # An access list may let others write under the bits of that group (acl(5)).
    entries = [(1, 6, -1), (2, 6, NOBODY), (4, 4, -1), (16, 6, -1), (32, 4, -1)]
    access_list = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", access_list)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert file.stat().st_mode & 0o777 == 0o664
    assert f"others may write to {file}" in said(ours)


def test_what_cannot_be_read_is_not_passed_over(ours: Path, theirs: Path) -> None:
    settings(ours, 0o600)
    # The interpreter may lie where only root can read: what is needed is imported before the user changes.
    code = f"""
import os, sys, tomllib
from servingrepo.cli.main import run
run(["list"])
os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(run(["list"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ours, capture_output=True, text=True, check=False
    )
    assert done.returncode == 10, done
    assert "Permission denied" in done.stderr


# which file is in use -----------------------------------------------------------------------------


def test_the_file_in_use_is_named(ours: Path, root: Path) -> None:
    def in_json(*arguments: str | Path, cwd: Path) -> object:
        return command(*arguments, "list", "--json", cwd=cwd).json["settings"]

    file = settings(ours)
    assert in_json(cwd=ours) == str(file), "in the object of an error too"
    assert in_json("--root", root, cwd=root) is None
    of_root = settings(root)
    assert in_json("--root", root, cwd=root.parent.parent) == str(of_root)
    assert in_json("--settings", "/dev/null", "--root", root, cwd=ours) == "/dev/null"
    at = ("--root", root, "list")
    assert f"settings: {file}\n" in command(*at, "-v", cwd=ours).err
    assert f"settings: {file}\n" in command("-v", *at, cwd=ours).err
    assert (
        "settings: none\n" in command("-v", "--root", root.parent / "x", "list", cwd=Path("/")).err
    )
    assert "settings" not in command(*at, cwd=ours).err
