"""TLS of the embedded server and of its clients: a child process, real sockets, real certificates."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from servingrepo.errors import EndpointUnreachable, RequestRefused, SettingsError
from servingrepo.protos import predict_pb2, types_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.security import PLAIN, Security
from servingrepo.servers.states import Endpoint
from tests.embedded.server_process import READY, STEP, Server, is_open, publish
from tests.embedded.test_listening import rest
from tests.servers.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


class TestTls:
    def test_tls_is_spoken_and_nothing_else(
        self, serve: Callable[..., Server], authority: Authority
    ) -> None:
        server = serve(
            flags=(f"--ssl_config_file={authority.ssl_config(verify=False)}",), rest=True
        )
        server.wait_until_ready()
        server.wait_for("TLS is for gRPC only")
        with server.client(authority.security(headers=[("X-Token", "secret")])) as client:
            assert client.status("m", timeout=STEP) == ()
        for security in (PLAIN, Security(tls=True)):
            with server.client(security) as client, pytest.raises(EndpointUnreachable):
                client.status("m", timeout=STEP)
        assert rest(server, "GET", "/v1/models/m")[0] == 404

    def test_clients_must_show_a_certificate_if_the_server_says_so(
        self, serve: Callable[..., Server], authority: Authority
    ) -> None:
        server = serve(flags=(f"--ssl_config_file={authority.ssl_config(verify=True)}",))
        server.wait_until_ready()
        with server.client(authority.security(certificate=True)) as client:
            assert client.status("m", timeout=STEP) == ()
        with server.client(authority.security()) as client, pytest.raises(EndpointUnreachable):
            client.status("m", timeout=STEP)

    @pytest.mark.tf
    def test_messages_above_4_megabytes_go_both_ways(
        self, serve: Callable[..., Server], authority: Authority, tmp_path: Path
    ) -> None:
        publish(tmp_path, "m/1", slope=0.5, offset=2.0)
        server = serve("m", flags=(f"--ssl_config_file={authority.ssl_config(verify=True)}",))
        server.wait_until_ready()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].dtype = types_pb2.DT_FLOAT
        request.inputs["x"].tensor_shape.dim.add(size=2_000_000)
        request.inputs["x"].float_val.append(2.0)
        request.inputs["x"].tensor_content = b"\0\0\0\x40" * 2_000_000
        with server.client(authority.security(certificate=True)) as client:
            answer = client.predict(request, timeout=READY).outputs["y"].float_val
        assert (len(answer), set(answer)) == (2_000_000, {3.0})

    def test_settings_that_cannot_be_read_abort(self, serve: Callable[..., Server]) -> None:
        server = serve(flags=("--ssl_config_file=/nope",))
        assert server.process.wait(READY) == -signal.SIGABRT
        assert "--ssl_config_file cannot be read: NOT_FOUND: /nope" in server.err.read_text()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('server_key: "x" server_cert: "y"', "Failed to BuildAndStart gRPC server"),
            ('server_key: "x" server_cert: "y" client_verify: true', "without a custom_ca"),
        ],
    )
    def test_settings_that_make_no_sense_end_the_server(
        self, serve: Callable[..., Server], tmp_path: Path, text: str, expected: str
    ) -> None:
        (tmp_path / "ssl").write_text(text)
        server = serve(flags=(f"--ssl_config_file={tmp_path / 'ssl'}",))
        assert server.process.wait(READY) == 255
        assert expected in server.out.read_text()
        assert not is_open(server.port)


class TestSecurity:
    def test_headers_arrive(self) -> None:
        seen: list[tuple[str, str]] = []

        class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
            def service(self, call: Any) -> None:
                seen.extend((str(one.key), str(one.value)) for one in call.invocation_metadata)

        server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        security = Security(headers=(("x-token", "secret"),))
        with (
            ServingClient(Endpoint("127.0.0.1", port, security)) as client,
            pytest.raises(RequestRefused),
        ):
            client.status("m", timeout=STEP)
        server.stop(None).wait()
        assert ("x-token", "secret") in seen

    def test_half_a_pair_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="go together"):
            Security(certificate=b"x")

    @pytest.mark.parametrize(
        "header", [("", "x"), ("A", "x"), ("a b", "x"), ("a-bin", "x"), ("grpc-x", "x"), ("a", "ü")]
    )
    def test_headers_that_grpc_cannot_send_are_refused_without_their_values(
        self, header: tuple[str, str]
    ) -> None:
        with pytest.raises(SettingsError) as refused:
            Security(headers=(header, ("fine", "secret")))
        assert refused.value.problems == (repr(header[0]),)

    def test_secrets_are_not_shown(self, authority: Authority) -> None:
        security = authority.security(certificate=True, headers=[("a", "secret")])
        assert repr(security) == "Security(uses_tls=True)"

    def test_files_that_are_no_pem_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"cannot read .*nope"):
            Security.read(ca=tmp_path / "nope")
        (tmp_path / "der").write_bytes(b"\x30\x82")
        with pytest.raises(SettingsError, match="not a PEM file"):
            Security.read(ca=tmp_path / "der")
