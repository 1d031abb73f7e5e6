"""The binary and the remote engine, with our embedded server as tensorflow_model_server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EngineUnavailable,
    LoadFailed,
    ServerDied,
    ServerTimeout,
    UsageError,
)
from servingrepo.fleet.live import wait_gone
from servingrepo.repository.repository import need_version
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.binary import BinaryEngine
from servingrepo.servers.engines.choice import EngineChoice, choose_engine
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.servers.engines.processes import Beside
from servingrepo.servers.engines.remote import RemoteEngine
from tests.support import ask, command, live_server, new_repository, run_with, write_binary

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository

pytestmark = pytest.mark.tf


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return write_binary(tmp_path)


def running(marker: Path) -> list[int]:
    """Return the processes whose command line names a path."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and str(marker).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_promote_records_the_version_of_a_binary(tmp_path: Path, binary: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    done = repo.promote(
        run_with(tmp_path / "a", offset=2.0), model="half", engine=f"binary:{binary}"
    )
    assert done.proof is not None
    assert done.proof.engine == "binary"
    assert done.proof.server.startswith("TensorFlow ModelServer: ")
    assert [one.outcome for one in done.proof.report.verdicts] == ["passed"]


def test_auto_without_docker_uses_a_binary_on_path(tmp_path: Path, binary: Path) -> None:
    run = run_with(tmp_path / "a", offset=2.0)
    environment = {
        "PATH": f"{binary.parent}{os.pathsep}{os.environ['PATH']}",
        "DOCKER_HOST": "tcp://127.0.0.1:9",
    }
    done = command("smoke", f"{run}/", "--json", env=environment)
    assert done.json["result"]["engine"] == "binary"
    alone = command("smoke", f"{run}/", "--json", env={"DOCKER_HOST": "tcp://127.0.0.1:9"})
    assert alone.json["result"]["engine"] == "embedded"


def test_a_binary_that_is_no_server_is_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", offset=2.0)
    for engine, words in (("binary:/bin/true", "answer like"), (f"binary:{tmp_path}/no", "no ")):
        done = command("smoke", f"{run}/", "--engine", engine)
        assert done.code == EngineUnavailable.exit_code
        assert words in done.err


@pytest.mark.parametrize("engine", ["docker", "binary:/no/such/server"])
@pytest.mark.parametrize(
    "flag",
    [
        *("--port=9999", "--rest_api_port=1", "--grpc_socket_path=/tmp/s", "--model_name=m"),
        *("--model_config_file=x", "--model_base_path=/m", "--max_num_load_retries=9"),
        *("--allow_version_labels_for_unavailable_models", "--ssl_config_file=x"),
    ],
)
def test_flags_that_engines_set_are_refused_at_once(tmp_path: Path, engine: str, flag: str) -> None:
    more = ("--server-arg=--file_system_poll_wait_seconds=0", f"--server-arg={flag}")
    (tmp_path / "run").mkdir()  # nothing to serve in there, and that is not looked at
    done = command("smoke", f"{tmp_path}/run/", "--engine", engine, *more)
    assert done.code == UsageError.exit_code
    assert f"--server-arg cannot be {flag}:" in done.err
    with pytest.raises(UsageError):
        EngineChoice(name=engine, arguments=(flag,))
    with pytest.raises(UsageError):
        BinaryEngine(arguments=(flag,))


def test_unknown_server_flag_is_a_usage_error(tmp_path: Path, binary: Path) -> None:
    run = run_with(tmp_path / "a", offset=2.0)
    more = ("--engine", f"binary:{binary}", "--server-arg=--nosuch=1")
    done = command("smoke", f"{run}/", *more)
    assert done.code == UsageError.exit_code
    assert "unknown argument: --nosuch=1" in done.err
    assert running(tmp_path) == []
    assert command("smoke", f"{run}/", *more[:2], "--server-arg=--num_load_threads=2").code == 0


def test_unknown_engine_is_refused_with_all_names() -> None:
    with pytest.raises(UsageError) as refused:
        choose_engine(EngineChoice(name="kubernetes"))
    assert "embedded" in (refused.value.hint or "")


@pytest.mark.parametrize("kind", ["embedded", "binary"])
def test_the_server_dies_when_its_promoter_is_killed(
    tmp_path: Path, binary: Path, kind: str
) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    with tempfile.TemporaryDirectory(prefix="srt-") as folder:  # short enough for a socket in it
        see_it_die(
            repo, run, Path(folder), "embedded" if kind == "embedded" else f"binary:{binary}"
        )


def see_it_die(repo: OpenRepository, run: Path, marker: Path, engine: str) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import sys, time, pathlib, servingrepo\n"
                "from servingrepo.deadline import Deadline\n"
                "from servingrepo.verbs.engines import engine_for\n"
                "repo = servingrepo.open(sys.argv[1])\n"
                "engine = engine_for(repo.value, sys.argv[3])\n"
                "with engine.serve(model='half', version=1, export=pathlib.Path(sys.argv[2]),\n"
                "                  deadline=Deadline.after(60)) as running:\n"
                "    print(running.endpoint, flush=True)\n"
                "    time.sleep(60)\n"
            ),
            str(repo.root),
            str(run / "saved_model"),
            engine,
        ],
        env={**os.environ, "TMPDIR": str(marker)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline()
    assert running(marker)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 10
    while running(marker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not running(marker)
    assert [one.name.rpartition("-")[0] for one in marker.iterdir()] == ["servingrepo-server"]
    recovering = subprocess.run(
        [sys.executable, "-m", "servingrepo", "--root", str(repo.root), "recover"],
        env={**os.environ, "TMPDIR": str(marker)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "folder of its server removed" in recovering.stdout
    assert not list(marker.iterdir())


def test_promote_with_a_remote_server_that_sees_the_files(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    with live_server(repo, log=tmp_path / "log") as endpoint:
        done = repo.promote(
            run_with(tmp_path / "a", offset=2.0), model="half", engine=f"remote:{endpoint}"
        )
        assert done.proof is not None
        assert (done.proof.engine, done.proof.staged) == ("remote", True)
        assert "not known" in done.proof.server
        with ServingClient(endpoint) as client:
            wait_gone(client, "half", [1], deadline=Deadline.after(10))


def test_an_image_of_a_remote_server_is_recorded_as_declared(tmp_path: Path) -> None:
    """On the command line or in the environment: a settings file's image is that of containers."""
    repo = new_repository(tmp_path / "serving")
    (repo.root / "servingrepo.toml").write_text(
        '[models.half]\nimage = "tensorflow/serving:2.16.1"\n'
    )
    image = "tensorflow/serving:2.19.1"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        promote = ("--root", repo.root, "promote", "--no-serve", "--engine", f"remote:{endpoint}")
        for number, options in enumerate((("--image", image), ())):
            run = run_with(tmp_path / f"a{number}", offset=float(number))
            done = command(*promote, run, "--model", "half", *options)
            assert done.code == 0, done.err
    declared, silent = (need_version(repo.value, "half", number).proofs[0] for number in (1, 2))
    assert (declared.declared, declared.image) == (image, "")
    assert declared.server == f"{image}, as declared"
    assert (silent.declared, "not known" in silent.server) == ("", True)


def test_remote_server_is_free_after_good_and_bad_model(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    bad = run_with(tmp_path / "bad", offset=1.0, assets={"words.txt": b"a"}, variables=True)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        for number in range(3):
            run = run_with(tmp_path / f"a{number}", offset=float(number))
            done = repo.promote(run, model="half", engine=f"remote:{endpoint}", serve=False)
            assert done.proof is not None
        shard = next((bad / "saved_model" / "variables").glob("*.data-*"))
        shard.write_bytes(bytes(byte ^ 0xFF for byte in shard.read_bytes()))
        engine = RemoteEngine(
            endpoint=endpoint,
            models=repo.value.layout.models,
            server_root=repo.value.server_root,
        )
        staged = repo.value.layout.models / "broken" / "1"
        staged.parent.mkdir()
        (bad / "saved_model").rename(staged)
        with (
            pytest.raises(LoadFailed),
            engine.serve(model="broken", version=1, export=staged, deadline=Deadline.after(20)),
        ):
            pass
        with ServingClient(endpoint) as client:
            assert {one.state for one in client.status("broken", timeout=5)} <= {"END"}
        again = repo.promote(
            run_with(tmp_path / "z", offset=9.0),
            model="half",
            engine=f"remote:{endpoint}",
            serve=False,
        )
        assert again.proof is not None


def test_remote_server_with_our_model_stays_untouched(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(EngineUnavailable, match="serves half@1"):
            repo.promote(
                run_with(tmp_path / "b", offset=3.0), model="other", engine=f"remote:{endpoint}"
            )
        with ServingClient(endpoint) as client:
            assert client.metadata("half", timeout=5).version == 1
    assert not (tmp_path / "serving/models/other/1").exists()


def test_remote_server_without_the_staging_copy_is_refused(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    with live_server(repo, log=tmp_path / "log") as endpoint:
        elsewhere = RemoteEngine(
            endpoint=endpoint, models=repo.value.layout.models, server_root=str(tmp_path / "other")
        )
        with pytest.raises(ServerTimeout, match="does not see"):
            repo.promote(
                run_with(tmp_path / "a", offset=2.0), model="half", engine=elsewhere, timeout=2
            )
        outside = command("smoke", f"{tmp_path / 'a'}/", "--engine", f"remote:{endpoint}")
        assert outside.code == EngineUnavailable.exit_code
        assert "cannot see" in outside.err
    assert not (tmp_path / "serving/models/half/1").exists()


def test_server_that_needs_a_port_is_too_old(tmp_path: Path) -> None:
    """As TensorFlow Serving before 2.5; what it says is from its server.cc."""
    fake = tmp_path / "fake_old_server"
    said = "Failed to start server. Error: Invalid argument: server_options.grpc_port is not set."
    fake.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "TensorFlow ModelServer: 2.4.0" && exit 0\n'
        f'echo "{said}"; exit 255\n'
    )
    fake.chmod(0o755)
    done = command(
        "smoke", f"{run_with(tmp_path / 'a', offset=2.0)}/", "--engine", f"binary:{fake}"
    )
    assert done.code == EngineUnavailable.exit_code, done.err
    assert "since 2.5" in done.err


def test_a_binary_that_cannot_load_the_model_says_why(tmp_path: Path, binary: Path) -> None:
    run = run_with(tmp_path / "a", offset=2.0)
    graph = run / "saved_model" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-40])
    for engine in (BinaryEngine(path=str(binary)), EmbeddedEngine()):
        with (
            pytest.raises(LoadFailed, match="could not load half@1"),
            engine.serve(
                model="half",
                version=1,
                export=run / "saved_model",
                deadline=Deadline.after(60),
            ),
        ):
            pass


@pytest.mark.parametrize(
    ("words", "said"), [("", "it left no log lines"), ("out of cheese", "see its last log lines")]
)
def test_error_points_to_an_existing_log_only(words: str, said: str, tmp_path: Path) -> None:
    server = tmp_path / "tensorflow_model_server"
    version = "echo TensorFlow ModelServer: 2.19.1; echo TensorFlow Library: 2.19.1"
    server.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ {version}; exit 0; }}\nprintf "{words}"\nexit 3\n'
    )
    server.chmod(0o755)
    run = run_with(tmp_path / "a", offset=2.0)
    with (
        pytest.raises(ServerDied) as died,
        BinaryEngine(path=str(server)).serve(
            model="half", version=1, export=run / "saved_model", deadline=Deadline.after(30)
        ),
    ):
        pass
    assert said in (died.value.hint or "")
    assert died.value.log == words


def test_engines_serve_two_exports_side_by_side(tmp_path: Path, binary: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number, offset in enumerate((2.0, 3.0), start=1):
        repo.promote(
            run_with(tmp_path / f"a{number}", offset=offset), model="half", smoke=False, serve=False
        )
    layout = repo.value.layout
    with live_server(new_repository(tmp_path / "empty"), log=tmp_path / "log") as endpoint:
        remote = RemoteEngine(
            endpoint=endpoint, models=layout.models, server_root=str(layout.models)
        )
        for engine in (BinaryEngine(path=str(binary)), EmbeddedEngine(), remote):
            beside = Beside(model="half-served", version=1, export=layout.version("half", 1))
            with engine.serve(
                model="half",
                version=2,
                export=layout.version("half", 2),
                deadline=Deadline.after(60),
                beside=beside,
            ) as server:
                assert ask(server.endpoint) == (2, 3.0)
                assert ask(server.endpoint, model="half-served") == (1, 2.0)
        with ServingClient(endpoint) as client:
            for name in ("half", "half-served"):
                assert {one.state for one in client.status(name, timeout=5)} <= {"END"}
