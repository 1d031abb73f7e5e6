"""The server as a process: real gRPC, and TensorFlow in tests that are marked `tf`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from servingrepo.errors import RequestRefused
from servingrepo.protos import predict_pb2, saved_model_pb2, types_pb2
from servingrepo.savedmodel.signatures import INIT_OP_KEY
from servingrepo.testing.exports import write_export
from tests.embedded.server_process import (
    MODULE,
    READY,
    STEP,
    Server,
    config_of,
    eventually,
    free_port,
    is_open,
    predict,
    publish,
    states,
)
from tests.support import new_repository, running_server

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.tf
def test_server_switches_and_keeps_old_version_if_new_breaks(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    publish(tmp_path, "m/1", slope=0.5, offset=2)
    server = serve("m", flags=(f"--tensorflow_log={tmp_path / 'tf.log'}",))
    server.wait_until_ready()
    with server.client() as client:
        assert predict(client, "m", 4) == (4, 1)
        assert list(client.metadata("m", timeout=STEP).signatures) == ["serving_default"]

        publish(tmp_path, "m/2", slope=1, offset=0)
        eventually(lambda: states(client, "m") == {2: "AVAILABLE", 1: "END"})
        assert predict(client, "m", 4) == (4, 2)

        publish(tmp_path, "n/7", slope=0, offset=9)
        client.reload(config_of(tmp_path, "m", "n"), timeout=STEP)
        assert predict(client, "n", 4) == (9, 7)

        publish(tmp_path, "m/3", tags=["other"])
        eventually(lambda: states(client, "m").get(3) == "END")
        (failed,) = client.status("m", 3, timeout=STEP)
        assert failed.error.startswith("Could not find meta graph def matching supplied tags")
        assert predict(client, "m", 4) == (4, 2)

        client.reload(config_of(tmp_path, "n"), timeout=STEP)
        eventually(lambda: "AVAILABLE" not in states(client, "m").values())
        with pytest.raises(RequestRefused, match="Servable not found for request"):
            predict(client, "m", 4)

    log = server.err.read_text()
    for line in (
        "config applied: m, n",
        "loading version 2 of model m",
        "version 2 of model m is available",
        "version 1 of model m is unloaded",
        "version 3 of model m failed and will not be tried again",
        "  tensorflow: ",
        f"listening on 127.0.0.1:{server.port}",
    ):
        assert line in log
    # TensorFlow's chatter of the loads that went well is in its own log only.
    assert "Reading SavedModel from" in (tmp_path / "tf.log").read_text()
    assert "Reading SavedModel from" not in log.partition("will not be tried again")[0]

    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == -signal.SIGTERM
    assert time.monotonic() - begun < 1.0


@pytest.mark.tf
def test_run_server_becomes_the_server_itself(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    with running_server(repo, log=tmp_path / "log") as (_, process):
        assert b"servingrepo.embedded" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGTERM)
        assert process.wait(STEP) == -signal.SIGTERM


@pytest.mark.tf
def test_server_with_a_broken_model_ends_with_255(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    write_export(tmp_path / "m" / "1", tags=["other"])
    server = serve("m")
    assert server.process.wait(READY) == 255
    assert server.out.read_text().startswith(
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
        "{{{name: m version: 1} due to error: NOT_FOUND: Could not find meta graph def matching "
        "supplied tags: { serve }."
    )
    assert "  tensorflow: " in server.err.read_text()


@pytest.mark.tf
def test_sigterm_does_not_wait_for_a_long_request(
    serve: Callable[..., Server], tmp_path: Path, conformance: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").symlink_to(conformance / "corpus" / "slow")
    server = serve("s")
    server.wait_until_ready()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "s"
    request.inputs["seconds"].dtype = types_pb2.DT_DOUBLE
    request.inputs["seconds"].double_val.append(20)
    with server.client() as client:
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                client.predict(request, timeout=30)
            except Exception as error:  # noqa: BLE001 - which one it is depends on the moment
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == -signal.SIGTERM
        assert time.monotonic() - begun < 1.0
        thread.join(10)
        assert len(failures) == 1


def test_server_without_models_cuts_long_texts_by_bytes(serve: Callable[..., Server]) -> None:
    server = serve()
    server.wait_until_ready()
    name = "ü" * 2000
    with server.client() as client:
        with pytest.raises(RequestRefused) as refused:
            client.metadata(name, timeout=STEP)
        raw = f"Servable not found for request: Latest({name})".encode()
        # The cut splits a character: the text is no UTF-8 any more, and grpc's client takes it for Latin-1.
        assert refused.value.text == (raw[:1024] + b"...TRUNCATED").decode("latin-1")
        exact = "x" * (1024 - len("Servable not found for request: Latest()"))
        with pytest.raises(RequestRefused) as uncut:
            client.metadata(exact, timeout=STEP)
        assert uncut.value.text == f"Servable not found for request: Latest({exact})"


def test_server_takes_messages_above_four_megabytes(serve: Callable[..., Server]) -> None:
    server = serve()
    server.wait_until_ready()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].tensor_content = bytes(8 << 20)
    with server.client() as client, pytest.raises(RequestRefused, match="Servable not found"):
        client.predict(request, timeout=STEP)


def test_port_in_use_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text(str(config_of(tmp_path, "missing")))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = subprocess.run(
            [*MODULE, f"--port={port}", f"--model_config_file={tmp_path / 'models.config'}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=READY,
        )
    assert ended.returncode == 255
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stdout
    assert "already in use" in ended.stdout


def test_two_servers_cannot_share_a_port(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    server.wait_until_ready()
    second = subprocess.run(
        [*MODULE, f"--port={server.port}", f"--model_config_file={server.config}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=READY,
    )
    assert second.returncode == 255
    assert str(server.port) in second.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [
        (["--version"], 0, "TensorFlow ModelServer: servingrepo "),
        (["--help"], 255, "usage: servingrepo run-server\n"),
        (["--port=x"], 255, "usage: servingrepo run-server\n"),
        (
            [],
            255,
            (
                "Failed to start server. Error: INVALID_ARGUMENT: Both server_options.model_base_path "
                "and server_options.model_config_file are empty!\n"
            ),
        ),
        (["--port=0"], 255, "Failed to start server. Error: INVALID_ARGUMENT: At least one of"),
        (
            ["--nope", "--model_config_file=/nope"],
            255,
            "unknown argument: --nope\nusage: servingrepo run-server\n",
        ),
        (
            ["--model_config_file=/nope"],
            255,
            "Failed to start server. Error: NOT_FOUND: /nope; No such file or directory\n",
        ),
        (
            ["--model_config_file=/nope", "--use_alts_credentials"],
            255,
            "Failed to start server. Error: UNIMPLEMENTED: the embedded server has no ALTS",
        ),
        (
            ["--model_config_file=/nope", "--use_alts_credentials", "--ssl_config_file=/x"],
            255,
            "Failed to start server. Error: INVALID_ARGUMENT: Either use_alts_credentials must be",
        ),
        (
            ["--model_config_file=/nope", "--batching_parameters_file=/x"],
            255,
            "Failed to start server. Error: INVALID_ARGUMENT: server_options.batching_parameters",
        ),
    ],
)
def test_exit_codes(arguments: list[str], code: int, out: str) -> None:
    port = [] if "--port=0" in arguments else [f"--port={free_port()}"]
    ended = subprocess.run(
        [*MODULE, *port, *arguments], capture_output=True, text=True, check=False, timeout=READY
    )
    assert ended.returncode == code
    assert ended.stdout.startswith(out)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", ["model_config_list\u00a0{}", "model_config_list {} # \0"])
def test_a_config_that_only_python_reads_ends_the_start(tmp_path: Path, text: str) -> None:
    config = tmp_path / "models.config"
    config.write_text(text)
    ended = subprocess.run(
        [*MODULE, f"--port={free_port()}", f"--model_config_file={config}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=READY,
    )
    assert ended.returncode == 255
    assert f"INVALID_ARGUMENT: Invalid protobuf file: '{config}'" in ended.stdout
    assert f"{config}:1:" in ended.stderr


def test_custom_config_aborts(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("custom_model_config {}")
    ended = subprocess.run(
        [
            *MODULE,
            f"--port={free_port()}",
            f"--model_config_file={tmp_path / 'models.config'}",
        ],
        capture_output=True,
        check=False,
        timeout=READY,
    )
    assert ended.returncode == -signal.SIGABRT


def test_each_flag_without_effect_is_warned_of_once(serve: Callable[..., Server]) -> None:
    server = serve(flags=("--prefer_tflite_model", "--enable_batching", "--enable_profiler=true"))
    server.wait_until_ready()
    log = server.err.read_text()
    assert log.count("--prefer_tflite_model is ignored") == 1
    assert log.count("--enable_batching is ignored") == 1
    assert "enable_profiler" not in log


def test_batching_warns_of_refusals_by_real_servers(
    serve: Callable[..., Server],
) -> None:
    server = serve(flags=("--enable_batching",))
    server.wait_until_ready()
    (said,) = (line for line in server.err.read_text().splitlines() if "--enable_batching" in line)
    assert all(each in said for each in ("scalar", "dimension 0", "max_batch_size"))


@pytest.mark.tf
def test_predict_of_the_init_op_is_out_of_range(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    publish(tmp_path, "m/1")
    file = tmp_path / "m" / "1" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = model.meta_graphs[0]
    graph.graph_def.node.add(name="NoOp", op="NoOp")
    graph.signature_def[INIT_OP_KEY].outputs[INIT_OP_KEY].name = "NoOp"
    file.write_bytes(model.SerializeToString())
    server = serve("m")
    server.wait_until_ready()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = INIT_OP_KEY
    with (
        server.client() as client,
        pytest.raises(RequestRefused, match="does not have output 0") as caught,
    ):
        client.predict(request, timeout=STEP)
    assert "OUT_OF_RANGE" in caught.value.message


def test_missing_base_path_waits_until_sigterm(
    serve: Callable[..., Server],
) -> None:
    server = serve("missing")
    server.wait_for("no model's versions are followed until this path can be read")
    assert not is_open(server.port)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == -signal.SIGTERM
    assert time.monotonic() - begun < 1.0


def test_server_follows_its_config_file_but_not_nonsense(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(flags=("--model_config_file_poll_wait_seconds=1",))
    server.wait_until_ready()
    server.config.write_text("nonsense {")
    server.wait_for("the config file is left alone: Invalid protobuf file")
    server.config.write_text(str(config_of(tmp_path, "missing")))
    server.wait_for("still waiting for a first version of each of: missing")


def test_server_listens_on_a_unix_socket_too(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve(flags=(f"--grpc_socket_path={path}",))
    server.wait_until_ready()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        grpc.channel_ready_future(channel).result(timeout=STEP)


PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([*sys.argv[1:], f"--exit_with_parent={os.getpid()}"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("model_config_list {}")
    port = free_port()
    command = [*MODULE, f"--port={port}", f"--model_config_file={tmp_path / 'models.config'}"]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            eventually(lambda: is_open(port), READY)
            parent.kill()
            parent.wait()
            eventually(lambda: not is_open(port), 2)
            eventually(lambda: has_ended(child), 2)
        finally:
            parent.kill()
            if not has_ended(child):
                os.kill(child, signal.SIGKILL)


def test_server_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ended = subprocess.run(
        [
            *MODULE,
            f"--port={free_port()}",
            "--model_config_file=/nope",
            f"--exit_with_parent={gone.pid}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=READY,
    )
    assert ended.returncode == 255
    assert "the process that started this server has ended" in ended.stderr


def has_ended(pid: int) -> bool:
    """Tell whether it is gone, or only waits to be collected by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_temporary_tensorflow_log_leaves_nothing_behind(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    server = serve()
    server.wait_until_ready()
    assert os.listdir(scratch) == []  # noqa: PTH208 - the names are the point
