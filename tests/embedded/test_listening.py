"""REST, metrics, health and TLS of a server process, over real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import signal
import socket
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from servingrepo.errors import RequestRefused
from servingrepo.protos import model_management_pb2, service_modules
from tests.embedded.server_process import (
    READY,
    STEP,
    Server,
    config_of,
    predict,
    publish,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def rest(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=STEP)) as line:
        data = json.dumps(body) if isinstance(body, dict) else body
        line.request(method, path, data, headers, encode_chunked="Transfer-Encoding" in headers)
        reply = line.getresponse()
        text = reply.read()
        if reply.getheader("Content-Type") == "application/json" and text:
            return reply.status, json.loads(text)
        return reply.status, text.decode()


def converse(server: Server, *pieces: bytes) -> bytes:
    """Send bytes as they are; return all that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=STEP) as line:
        received = b""
        for piece in pieces:
            line.sendall(piece)
        while data := line.recv(65_536):
            received += data
        return received


@pytest.mark.tf
def test_rest_predicts_and_metrics_count(serve: Callable[..., Server], tmp_path: Path) -> None:
    publish(tmp_path, "m/1", slope=0.5, offset=2)
    (tmp_path / "monitoring").write_text("prometheus_config { enable: true }")
    server = serve("m", flags=(f"--monitoring_config_file={tmp_path / 'monitoring'}",), rest=True)
    server.wait_until_ready()
    server.wait_for(f"Exporting HTTP/REST API at:127.0.0.1:{server.rest_port} ...")

    body = {"instances": [4.0]}
    assert rest(server, "POST", "/v1/models/m:predict", body) == (200, {"predictions": [4.0]})
    chunks = (one for one in (b'{"inp', b'uts": [4]}'))
    chunked = {"Transfer-Encoding": "chunked"}
    assert rest(server, "POST", "/v1/models/m:predict", chunks, **chunked)[1] == {"outputs": [4.0]}
    packed = gzip.compress(b'{"inputs": [4]}')
    zipped = {"Content-Encoding": "gzip"}
    assert rest(server, "POST", "/v1/models/m:predict", packed, **zipped)[1] == {"outputs": [4.0]}
    assert rest(server, "POST", "/v1/models/m:predict", b"no gzip", **zipped)[0] == 400
    _, metadata = rest(server, "GET", "/v1/models/m/metadata")
    assert metadata["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    with server.client() as client:
        assert predict(client, "m", 4) == (4, 1)
        with pytest.raises(RequestRefused):
            predict(client, "n", 4)

    code, page = rest(server, "GET", "/monitoring/prometheus/metrics")
    assert code == 200
    path = tmp_path / "m" / "1"
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 5',
        ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1',
        ':tensorflow:serving:request_count{model_name="n",status="NOT_FOUND"} 1',
        ':tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="GRPC"} 1',
        ':tensorflow:serving:request_latency_count{model_name="m",API="predict",entrypoint="REST"} 3',
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"} 4',
        ':tensorflow:core:saved_model:read:api{api_label="cc_load"} 1',
        f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{path}",status="success"}} 1',
    ):
        assert line in page.splitlines()
    micros = re.search(r':load_latency\{model_path="[^"]+"\} (\d+)', page)
    assert micros is not None
    assert 0 < int(micros[1]) < 60_000_000


@pytest.mark.tf
def test_reload_tells_by_how_much_a_metric_grew(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    publish(tmp_path, "m/1")
    server = serve()
    server.wait_until_ready()
    request = model_management_pb2.ReloadConfigRequest(config=config_of(tmp_path, "m"))
    names = ["/tensorflow/cc/saved_model/load_attempt_count", "/nope"]
    request.metric_names.extend(names)
    _, model = service_modules()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        reply = model.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=STEP)
    assert {one.name: one.int64_value_increase for one in reply.metric} == {
        names[0]: 1,
        names[1]: 0,
    }


def test_http_1_0_clients_are_answered_and_let_go(serve: Callable[..., Server]) -> None:
    """As a health check in bash does: one line, no headers, and reading until the end."""
    server = serve(rest=True)
    server.wait_until_ready()
    reply = converse(server, b"GET /v1/models/m HTTP/1.0\r\n\r\n")
    assert b" 404 " in reply.splitlines()[0]
    assert reply.endswith(b'{\n    "error": "Could not find any versions of model m"\n}')


def test_connections_are_kept_open_for_the_next_request(serve: Callable[..., Server]) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    with closing(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=STEP)) as line:
        sockets = set()
        took = []
        for _ in range(20):
            begun = time.monotonic()
            line.request("POST", "/v1/models/m:predict", b"{}")
            line.getresponse().read()
            assert line.sock is not None
            sockets.add(line.sock.fileno())
            took.append(time.monotonic() - begun)
        assert len(sockets) == 1
        # Each answer in two packets would wait 40 ms for the client's acknowledgement.
        assert min(took) < 0.04


def test_large_bodies_are_asked_for(serve: Callable[..., Server]) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    head = (
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=STEP) as line:
        line.sendall(head)
        assert line.recv(1024).startswith(b"HTTP/1.1 100")
        line.sendall(b"{}")
        assert line.recv(1024).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"GET /v1/models/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_broken_requests_are_400_and_the_server_lives(
    serve: Callable[..., Server], request_text: bytes
) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    assert b"400" in converse(server, request_text)
    assert rest(server, "GET", "/v1/models/m")[0] == 404
    assert "bug" not in server.err.read_text()


def test_a_doubled_slash_is_not_taken_for_one(serve: Callable[..., Server]) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    for path, answer in (("//v1/models", b"<H1>Not Found"), ("/v1//models", b"Malformed request")):
        asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert answer in converse(server, asked.encode())


MEGABYTE = 1 << 20
MOST_UNPACKED = 10 * MEGABYTE
MOST_MEMORY = 150 * MEGABYTE


def packed(start: bytes, filling: bytes, size: int) -> bytes:
    """Pack so many bytes into a few."""
    packing = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    parts = [packing.compress(start)]
    left = size - len(start)
    while left:
        block = (filling * MEGABYTE)[: min(left, MEGABYTE)]
        parts.append(packing.compress(block))
        left -= len(block)
    return b"".join((*parts, packing.flush()))


def peak(server: Server) -> int:
    """Return the most memory that a server ever had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("start", "filling", "size", "code", "said"),
    [
        (b'{"inputs": [4]}', b" ", MOST_UNPACKED, 404, "Servable not found"),
        (b'{"inputs": [4]}', b" ", MOST_UNPACKED + 1, 400, "The document is empty"),
        (b'{"inputs": [4]}', b" ", 400 * MEGABYTE, 400, "The document is empty"),
        (b'{"inputs": ', b"[", MOST_UNPACKED, 400, "nested too deep"),
        (b'{"inputs": ', b'{"":', MOST_UNPACKED, 400, "nested too deep"),
    ],
)
def test_body_that_unpacks_to_much_takes_little(
    serve: Callable[..., Server], start: bytes, filling: bytes, size: int, code: int, said: str
) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    before = peak(server)
    body = packed(start, filling, size)
    assert len(body) < MEGABYTE
    zipped = {"Content-Encoding": "gzip"}
    got, error = rest(server, "POST", "/v1/models/m:predict", body, **zipped)
    assert got == code
    assert said in error["error"]
    assert peak(server) - before < MOST_MEMORY


def test_compressed_message_is_refused_and_takes_little(serve: Callable[..., Server]) -> None:
    server = serve()
    server.wait_until_ready()
    before = peak(server)
    with grpc.insecure_channel(
        f"127.0.0.1:{server.port}", options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        predict: Any = channel.unary_unary(  # type: ignore[call-arg]
            "/tensorflow.serving.PredictionService/Predict"
        )
        with pytest.raises(grpc.RpcError) as refused:
            predict(bytes(200 * MEGABYTE), compression=grpc.Compression.Gzip, timeout=READY)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert peak(server) - before < MOST_MEMORY


@pytest.mark.parametrize("size", [10**9, 10**15, 10**30])
def test_announced_body_that_never_comes_takes_little(
    serve: Callable[..., Server], size: int
) -> None:
    server = serve(rest=True)
    server.wait_until_ready()
    before = peak(server)
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=STEP) as line:
        line.sendall(head.encode())
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1024).startswith(b"HTTP/1.1 400")
    assert peak(server) - before < MOST_MEMORY


def test_rest_on_the_port_of_grpc_is_left_out(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = Server(tmp_path, flags=())
    server.process.kill()
    server.process.wait()
    server = serve(flags=(f"--rest_api_port={server.port}", f"--port={server.port}"))
    server.wait_for("server_options.http_port cannot be same as grpc_port", "listening on")
    assert server.process.poll() is None


def test_grpc_works_when_the_rest_port_is_taken(serve: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = serve(flags=(f"--rest_api_port={port}",))
        server.wait_until_ready()
        server.wait_for(f"Failed to start HTTP Server at 127.0.0.1:{port}")
        with server.client() as client:
            assert client.status("m", timeout=STEP) == ()


def test_monitoring_config_that_cannot_be_read_ends_the_server(
    serve: Callable[..., Server],
) -> None:
    server = serve(flags=("--monitoring_config_file=/nope",), rest=True)
    assert server.process.wait(READY) == 255
    assert server.out.read_text().endswith(
        "Failed to start server. Error: NOT_FOUND: /nope; No such file or directory\n"
    )


def test_metrics_need_a_config_and_use_its_path(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "monitoring"
    file.write_text('prometheus_config { enable: true path: "/m" }')
    server = serve(flags=(f"--monitoring_config_file={file}",), rest=True)
    server.wait_until_ready()
    assert rest(server, "GET", "/m") == (200, "\n")
    assert rest(server, "GET", "/monitoring/prometheus/metrics")[0] == 404


@pytest.mark.parametrize("text", ["prometheus_config {}", 'prometheus_config { path: "/m" }'])
def test_metrics_are_off_unless_enabled(
    serve: Callable[..., Server], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "monitoring"
    file.write_text(text)
    server = serve(flags=(f"--monitoring_config_file={file}",), rest=True)
    server.wait_until_ready()
    assert rest(server, "GET", "/m")[0] == 404
    assert rest(server, "GET", "/monitoring/prometheus/metrics")[0] == 404


@pytest.mark.tf
def test_tags_choose_the_meta_graph(serve: Callable[..., Server], tmp_path: Path) -> None:
    publish(tmp_path, "m/1", tags=["serve", "gpu"])
    server = serve("m", flags=("--saved_model_tags=gpu,serve",), rest=True)
    server.wait_until_ready()
    assert rest(server, "POST", "/v1/models/m:predict", {"inputs": [4]}) == (200, {"outputs": [4]})


@pytest.mark.tf
def test_tensor_content_is_for_grpc_only(serve: Callable[..., Server], tmp_path: Path) -> None:
    publish(tmp_path, "m/1")
    server = serve("m", flags=("--enable_serialization_as_tensor_content",), rest=True)
    server.wait_until_ready()
    assert rest(server, "POST", "/v1/models/m:predict", {"inputs": [4]}) == (200, {"outputs": [4]})


@pytest.mark.tf
def test_rest_inference_ends_after_its_timeout(
    serve: Callable[..., Server], tmp_path: Path, conformance: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").symlink_to(conformance / "corpus" / "slow")
    server = serve("s", flags=("--rest_api_timeout_in_ms=300",), rest=True)
    server.wait_until_ready()
    begun = time.monotonic()
    code, _ = rest(server, "POST", "/v1/models/s:predict", {"inputs": {"seconds": 20.0}})
    assert code == 504
    assert time.monotonic() - begun < 5
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == -signal.SIGTERM


class TestHealth:
    def check(self, server: Server, request: bytes) -> bytes | str:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            try:
                answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)(
                    request, timeout=STEP
                )
            except grpc.RpcError as error:
                return str(error.code().name)
            return answer

    def test_health_is_serving_for_the_three_names(self, serve: Callable[..., Server]) -> None:
        server = serve(flags=("--enable_grpc_healthcheck_service",))
        server.wait_until_ready()
        for name in (b"", b"ModelService", b"PredictionService"):
            request = b"\x0a" + bytes([len(name)]) + name
            assert self.check(server, request) == b"\x08\x01"
        assert self.check(server, b"") == b"\x08\x01"
        name = b"tensorflow.serving.ModelService"
        assert self.check(server, b"\x0a" + bytes([len(name)]) + name) == "NOT_FOUND"
        assert self.check(server, b"\x0a\x05x") == "INVALID_ARGUMENT"

    def test_watch_stays_open(self, serve: Callable[..., Server]) -> None:
        server = serve(flags=("--enable_grpc_healthcheck_service",))
        server.wait_until_ready()
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)
            assert next(watch(b"", timeout=STEP)) == b"\x08\x01"
            unknown = watch(b"\x0a\x01x", timeout=0.5)
            assert next(unknown) == b"\x08\x03"
            with pytest.raises(grpc.RpcError) as ended:
                next(unknown)
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def test_health_is_absent_without_the_flag(self, serve: Callable[..., Server]) -> None:
        server = serve()
        server.wait_until_ready()
        assert self.check(server, b"") == "UNIMPLEMENTED"
