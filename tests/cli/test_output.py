from __future__ import annotations

import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.modelconfig.paths import LABELS_FLAG, START_FLAGS
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT
from servingrepo.servers.engines.processes import free_port
from servingrepo.testing.exports import Served
from tests.cli import inside
from tests.cli.inside import refused
from tests.cli.processes import server_of, started, wait_until_gone
from tests.cli.trees import snapshot
from tests.support import command, ending, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

ESCAPE = "\x1b[31mred\x1b]0;title\x07"


def test_promote_quietly_prints_the_version_alone(root: Path, run: Path) -> None:
    done = command("--root", root, "promote", "-q", run, "--model", "ranker", "--no-smoke")
    assert (done.code, done.out, done.err) == (0, "3\n", "")
    again = command("--root", root, "-q", "promote", run, "--model", "ranker", "--no-smoke")
    assert (again.code, again.out, again.err) == (0, "3\n", "")


def test_quiet_commands_print_the_bare_result(root: Path) -> None:
    for arguments, out in (
        (["list"], "ranker\n"),
        (["show", "ranker"], "2\n1\n"),
        (["show", "ranker@served"], "2\n"),
        (["verify"], "ok\n"),
        (["status"], "ok\n"),
        (["config", "check"], "ok\n"),
        (["rollback", "ranker"], "1\n"),
        (["serve", "ranker@1"], "1\n"),
        (["recover"], "0\n"),
    ):
        done = command("--root", root, *arguments, "-q")
        assert (done.code, done.out, done.err) == (0, out, ""), arguments


def test_status_says_why_no_server_was_asked(root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    new_repository(empty)
    asked = command("--root", empty, "status", "--endpoint", "127.0.0.1:1")
    assert "servers: not asked (there is no model to ask about)" in asked.out
    assert "servers: not asked (no --endpoint)" in command("--root", root, "status").out


def test_init_says_with_which_flags_servers_start(tmp_path: Path) -> None:
    done = command("--root", tmp_path, "init")
    start = (f"--model_config_file={DEFAULT_SERVER_ROOT}/models.config", *START_FLAGS)
    assert all(flag in done.out for flag in start), done.out
    again = command("--root", tmp_path, "init", "--json")
    assert again.json["result"]["start_with"] == list(start)


def test_labels_are_said_to_need_a_flag(root: Path) -> None:
    before = command("--root", root, "config", "check")
    assert LABELS_FLAG not in before.out
    for label in ("stable", "stable"):
        done = command("--root", root, "label", "set", "ranker@2", label)
        assert f"server without {LABELS_FLAG} ends at its next start" in done.out
    check = command("--root", root, "config", "check")
    assert f"server without {LABELS_FLAG} ends at its next start" in check.out
    assert command("--root", root, "config", "check", "--json").json["result"]["servers_need"] == [
        LABELS_FLAG
    ]
    removed = command("--root", root, "label", "remove", "ranker", "stable")
    assert LABELS_FLAG not in removed.out


def test_results_go_to_stdout_and_errors_to_stderr(root: Path) -> None:
    good = command("--root", root, "show", "ranker")
    assert good.err == ""
    assert good.out.startswith("ranker: 2 is served")
    bad = command("--root", root, "show", "ranker@9")
    assert bad.out == ""
    assert bad.err == "error: there is no version 9 of ranker\nhint: versions: 1, 2\n"


def test_notes_beside_the_result_go_to_stderr(tmp_path: Path) -> None:
    new_repository(tmp_path)
    done = command("--root", tmp_path, "list")
    assert (done.code, done.out) == (0, "")
    assert "no models yet" in done.err
    assert command("--root", tmp_path, "list", "-q").err == ""


def test_a_table_is_aligned_with_numbers_to_the_right(root: Path, tmp_path: Path) -> None:
    repo = servingrepo.open(root)
    repo.promote(run_with(tmp_path / "x", offset=9.0), model="b", version=12345, smoke=False)
    head, *rows = command("--root", root, "list").out.splitlines()
    assert head.split() == [
        "MODEL",
        "SERVED",
        "VERSIONS",
        "LABELS",
        "BAD",
        "HELD",
        "UNMANAGED",
        "TRASH",
    ]
    assert [row.split()[:3] for row in rows] == [["b", "12345", "12345"], ["ranker", "2", "1,"]]
    end = head.index("SERVED") + len("SERVED")
    assert [row[:end].rstrip()[-1] for row in rows] == ["5", "2"]
    assert all(len(row[:end].rstrip()) == end for row in rows)
    assert all(row == row.rstrip() for row in (head, *rows))


def test_what_others_wrote_cannot_steer_the_terminal(root: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / f"r{ESCAPE}", offset=5.0, signatures=[Served(key=f"s{ESCAPE}")])
    extra = root / "models" / "ranker" / "2" / f"x{ESCAPE}"
    promote = ("promote", run, "--model", "ranker", "--no-smoke", "--allow-breaking")
    said = [
        command("scan", run),
        command("--root", root, *promote, "-m", ESCAPE),
        command("--root", root, "show", "ranker"),
        command("--root", root, "show", "ranker@3"),
        command("--root", root, "history"),
        command("--root", root, "hold", "ranker", "-m", f"{ESCAPE}\nsecond line"),
        command("--root", root, "show", "ranker"),
        command("--root", root, "status"),
        command("scan", tmp_path / f"nothing{ESCAPE}"),
        command("--root", tmp_path / f"nothing{ESCAPE}", "list"),
        command(f"no{ESCAPE}"),
        command("show", f"--no{ESCAPE}"),
    ]
    extra.write_text("x")
    said.append(command("--root", root, "verify"))
    (root / "models" / "models.config").write_text(f"# {ESCAPE}\nmodel_config_list {{}}\n")
    said += [command("--root", root, "config", "show"), command("--root", root, "config", "check")]
    for done in said:
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
    for shown in (said[0], said[2], said[3], said[4], said[8], said[9], said[10], said[12]):
        assert "red" in shown.out + shown.err
    assert "second line" not in [line.strip() for line in said[6].out.splitlines()]


@pytest.mark.parametrize("more", [[], ["--json"], ["--help"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(more: list[str], root: Path) -> None:
    arguments = [sys.executable, "-m", "servingrepo", "--root", str(root), *more, "show", "ranker"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            arguments, stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


def test_a_full_disk_below_stdout_is_an_error_and_no_traceback(root: Path) -> None:
    for more in ([], ["--json"]):
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            done = subprocess.run(
                [sys.executable, "-m", "servingrepo", "--root", str(root), "list", *more],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert "Traceback" not in done.stderr
        assert f"cannot write the result to stdout: {os.strerror(errno.ENOSPC)}" in done.stderr
        assert done.returncode == 50


def on_a_terminal(*arguments: str | Path) -> str:
    """Run a command whose stdout and stderr are a terminal; return what it shows."""
    near, far = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "servingrepo", *map(str, arguments)],
        stdout=far,
        stderr=far,
        stdin=subprocess.DEVNULL,
    ):
        os.close(far)
        shown = b""
        while True:
            try:
                part = os.read(near, 65536)
            except OSError:  # how Linux says that the other side was closed
                break
            if not part:
                break
            shown += part
    os.close(near)
    return shown.decode()


def test_colour_is_only_for_terminals(root: Path) -> None:
    assert "\x1b[31m" in on_a_terminal("--root", root, "show", "ranker@9")
    assert "\x1b" not in command("--root", root, "show", "ranker@9").err


def test_a_long_copy_shows_progress_only_on_a_terminal(root: Path, tmp_path: Path) -> None:
    arguments = ["--root", str(root), "promote", "--model", "ranker", "--no-smoke"]
    first = run_with(tmp_path / "first", offset=5.0, payload_bytes=20_000_000)
    second = run_with(tmp_path / "second", offset=6.0, payload_bytes=20_000_000)
    third = run_with(tmp_path / "third", offset=7.0, payload_bytes=20_000_000)
    shown = on_a_terminal(*arguments, first)
    assert "copying" in shown
    assert "100%" in shown
    assert "copying" not in on_a_terminal(*arguments, second, "-q")
    quiet = command(*arguments, third)
    assert "copying" not in quiet.out + quiet.err


def test_a_promotion_shows_progress_while_it_reads_events(root: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=5.0)
    (run / "logs").mkdir()
    with (run / "logs/events.out.tfevents.1000000000.h.1.0.v2").open("wb") as file:
        file.truncate(20_000_000)
    arguments = ["--root", str(root), "promote", "--model", "ranker", "--no-smoke", str(run)]
    shown = on_a_terminal(*arguments, "--dry-run")
    assert "reading" in shown
    assert "100%" in shown
    shown = on_a_terminal(*arguments)
    assert "copying" in shown
    assert "100%" in shown
    quiet = command(*arguments)
    assert "copying" not in quiet.out + quiet.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
@pytest.mark.parametrize("failpoint", ["staged", "proven", "c1.before-rename"])
def test_a_signal_ends_a_promotion_at_once_and_leaves_nothing(
    number: signal.Signals, code: int, failpoint: str, root: Path, run: Path
) -> None:
    before = snapshot(root, burnt="ranker")
    promote = ["--root", str(root), "promote", str(run), "--model", "ranker", "--no-smoke"]
    with ending(started(*promote, failpoint=failpoint, folder=root.parent)) as process:
        process.send_signal(number)
        start = time.monotonic()
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - start < 5
    assert process.returncode == code
    assert out == ""
    assert f"error: stopped by {number.name}" in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert snapshot(root, burnt="ranker") == before
    again = command(*promote, "-q")
    assert again.out == "4\n", "the number is burnt"


def test_a_signal_during_the_copy_of_a_big_file_does_not_wait_for_its_end(
    root: Path, run: Path
) -> None:
    if shutil.disk_usage(root).free < 5 << 30:
        pytest.skip("less than 5 GiB are free here")
    big = run / "saved_model" / "assets.extra" / "big.bin"
    big.parent.mkdir()
    with big.open("wb") as sparse:
        sparse.truncate(4 << 30)
    before = snapshot(root, burnt="ranker")
    promote = ["--root", str(root), "promote", str(run), "--model", "ranker", "--no-smoke"]
    with ending(
        started(*promote, failpoint="copy.before-write", folder=root.parent, seconds=0)
    ) as process:
        time.sleep(0.2)
        process.terminate()
        start = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - start < 3
    assert process.returncode == 143
    assert snapshot(root, burnt="ranker") == before


def test_a_signal_in_json_is_an_answer_too(root: Path, run: Path) -> None:
    promote = [
        "--root",
        str(root),
        "promote",
        str(run),
        "--model",
        "ranker",
        "--no-smoke",
        "--json",
    ]
    with ending(started(*promote, failpoint="staged", folder=root.parent)) as process:
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert err == ""
    assert '"slug":"stopped"' in out
    assert process.returncode == 143


@pytest.mark.tf
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_while_the_server_loads_takes_the_server_with_it(
    number: signal.Signals, root: Path, run: Path
) -> None:
    before = snapshot(root, burnt="ranker")
    with ending(
        subprocess.Popen(
            [
                *(sys.executable, "-m", "servingrepo", "--root", root, "promote", run),
                *("--model", "ranker", "--engine", "embedded"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    ) as process:
        server = server_of(process)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in err
    wait_until_gone(server)
    assert snapshot(root, burnt="ranker") == before


def test_rollback_says_from_and_to_and_what_is_live_and_what_is_next(root: Path) -> None:
    done = command("--root", root, "rollback", "ranker", "--dry-run")
    assert done.out.splitlines()[0] == "dry run, nothing was changed: ranker: 2 > 1"
    done = command("--root", root, "rollback", "ranker", "-m", "scores are off")
    lines = [line.split() for line in done.out.splitlines()]
    assert done.code == 0
    assert done.out.splitlines()[0] == "ranker: 2 > 1"
    assert ["live", "not", "checked:"] in [line[:3] for line in lines]
    assert ["marked", "bad", "2:"] in [line[:3] for line in lines]
    assert "servingrepo mark-bad ranker@2 --clear" in done.out
    assert lines[-1] == ["next", "servingrepo", "status", "ranker"]
    assert "scores are off" in command("--root", root, "history").out
    nothing = command("--root", root, "rollback", "ranker")
    assert nothing.code == 38
    assert "hint: " in nothing.err


@pytest.mark.tf
def test_rollback_with_an_endpoint_says_what_answers_there(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number in (1, 2):
        run = run_with(tmp_path / f"run{number}", offset=float(number))
        repo.promote(run, model="ranker", smoke=False)
    with live_server(repo, log=tmp_path / "server.log") as endpoint:
        done = command("--root", repo.root, "rollback", "ranker", "--endpoint", str(endpoint))
        assert done.code == 0, done.err
        assert done.out.splitlines()[0] == "ranker: 2 > 1"
        assert f"live         {endpoint}: ranker@1 answers" in done.out
        next_line = done.out.splitlines()[-1].split(maxsplit=1)[1]
        assert next_line == f"servingrepo status ranker --endpoint {endpoint}"
        status = command("--root", repo.root, *next_line.split()[1:])
        assert status.code == 0


@pytest.mark.parametrize("repository", ["here", "none"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "run9"),
        ("verify", "ranker", "run9"),
        ("verify", "my run"),
        ("verify", "run9.tar.gz"),
        ("smoke", "run9"),
        ("diff", "ranker", "run9"),
        ("contract", "ranker", "--check", "run9"),
    ],
)
def test_a_path_that_was_taken_for_a_name_is_said_with_how_to_write_it(
    arguments: tuple[str, ...],
    repository: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("run9", "my run", "run9.tar.gz"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    at = root if repository == "here" else tmp_path
    done = inside.command("--root", at, *arguments)
    refused(done, done.code, f"hint: a path needs a slash: ./{arguments[-1]} is here; ")
    assert done.code in {11, 30, 32}
    (tmp_path / arguments[-1]).rmdir()
    assert "slash" not in inside.command("--root", at, *arguments).err


def test_what_was_mistyped_is_answered_with_what_is_there(root: Path, run: Path) -> None:
    def said(*arguments: str | Path) -> str:
        return inside.command("--root", root, *arguments).err

    assert "Did you mean rollback?" in said("rolback", "ranker")
    assert "Did you mean remove?" in said("label", "remov", "ranker", "stable")
    assert "Did you mean" not in said("frobnicate")
    typo = run.with_name("rnu3")
    assert f"hint: did you mean {run}?\n" in said("promote", typo, "--model", "ranker")
    assert "hint: check the path\n" in said("promote", run / "nothing-like-it", "--model", "m")
    gone = run / "a" / "b"
    assert f"hint: check the path: {gone.parent} cannot be read" in said("scan", gone)


def test_a_root_inside_of_a_repository_is_answered_with_the_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "models" / "ranker")
    refused(
        inside.command("rollback", "ranker"),
        30,
        f"error: {root}/models/ranker is not a servingrepo repository\n",
        f"hint: the repository {root} is above it: give --root {root}\n",
    )
    monkeypatch.chdir(tmp_path)
    hint = "hint: name another directory with --root or SERVINGREPO_ROOT; servingrepo --root"
    refused(inside.command("list"), 30, f"error: {tmp_path} is not a", f"{hint} {tmp_path} init")


def test_who_named_a_root_that_is_none_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    done = command("list", env={"SERVINGREPO_ROOT": str(gone)}, cwd=tmp_path)
    refused(
        done, 30, f"error: {gone} does not exist\n", "hint: SERVINGREPO_ROOT says so; name another"
    )
    (tmp_path / "servingrepo.toml").write_text('root = "gone"\n')
    done = command("list", cwd=tmp_path)
    refused(
        done, 30, f"error: {gone} does not exist\n", "hint: servingrepo.toml says so; name another"
    )


@pytest.mark.parametrize(("wanted", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_are_left_out_where_no_color_is_set(
    wanted: dict[str, str], root: Path, *, coloured: bool
) -> None:
    leader, follower = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-m", "servingrepo", "--root", root, "rollback", "rankr"],
        env={**plain, **wanted},
        stderr=follower,
        check=False,
    )
    os.close(follower)
    said = os.read(leader, 65_536).decode()
    os.close(leader)
    assert "there is no model rankr" in said
    assert ("\x1b[" in said) is coloured


def test_a_rollback_with_a_server_that_is_gone_says_how_to_go_on_without_it(root: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    done = inside.command("--root", root, "rollback", "ranker", "--endpoint", at)
    refused(done, 65, at, "no server was changed", "leave out a server that is down")
    assert inside.command("--root", root, "rollback", "ranker").code == 0
