"""Roll-outs in stages: who gets the new version when, what is watched, and going back by itself."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import EndpointUnreachable, RequestRefused, SwitchFailed, UsageError
from servingrepo.fleet.rules import Rules
from servingrepo.fleet.stages import batch_size, check_rules
from servingrepo.protos import predict_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.metrics import PAGE, Requests, count_requests
from servingrepo.servers.security import Security
from servingrepo.servers.states import Endpoint
from tests.fleet.test_fleet import answering, at, fleet_of
from tests.fleet.test_switch import two_versions
from tests.servers.authority import Authority
from tests.support import ask, command, live_server, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack
    from pathlib import Path


def test_stages_get_the_new_version_one_after_the_other(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 5)
    names = [str(one) for one in at(found)]
    rules = Rules(first=(names[3],), batch="50%", gate=f"cat >> {tmp_path}/stages")
    done = repo.serve("half@2", endpoints=names, rules=rules, wait=10)
    told = (tmp_path / "stages").read_text().replace("}{", "}\n{").splitlines()
    stages = [sorted(json.loads(line)["endpoints"]) for line in told]
    assert stages == [[names[3]], sorted([names[3], *names[:2]])]
    assert json.loads(told[0])["rest"] == [one for one in names if one != names[3]]
    assert {answering(one) for one in at(found)} == {2}
    assert all(one.follows for one in done.endpoints)


def test_a_gate_that_says_no_puts_all_back(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 3)
    names = [str(one) for one in at(found)]
    done = command(
        *("--root", repo.root, "serve", "half@2", "--first", names[1]),
        *("--gate", "echo click rate fell; exit 1"),
        *(part for name in names for part in ("--endpoint", name)),
    )
    assert done.code == SwitchFailed.exit_code
    assert "click rate fell" in done.err
    assert "back where it was" in done.err
    assert [answering(one) for one in at(found)] == [1, 1, 1]
    untouched = [len(one.reloads) for one in found]
    assert untouched[1] > untouched[0] == untouched[2], "those that had no turn never got it"
    assert not any(2 in _pinned(config) for config in found[0].reloads)


def _pinned(config: object) -> set[int]:
    entries = config.model_config_list.config  # type: ignore[attr-defined]
    return {version for one in entries for version in one.model_version_policy.specific.versions}


def test_a_version_that_goes_while_it_is_watched_is_put_back(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    breaking = threading.Timer(1.5, found[0].fails.add, [2])
    breaking.start()
    with pytest.raises(SwitchFailed, match="back where it was"):
        repo.serve(
            "half@2",
            endpoints=at(found),
            rules=Rules(first=(str(at(found)[0]),), watch=15),
            wait=10,
        )
    breaking.join()
    assert [answering(one) for one in at(found)] == [1, 1]


@pytest.mark.tf
def test_a_rollback_in_stages_lets_the_lower_version_answer_where_it_is_watched(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    repo.label_set("half@2", "stable")
    servers = [
        fleet.enter_context(live_server(repo, log=tmp_path / f"{name}.log")) for name in "ab"
    ]
    first, rest = servers
    seen = tmp_path / "seen"
    asks = f"servingrepo --root {repo.root} --json status half --endpoint {first} --endpoint {rest}"
    stages = ("--first", str(first), "--gate", f"{sys.executable} -m {asks} >> {seen}; {{}}")
    arguments = ["--root", str(repo.root), "rollback", "half", "--no-mark-bad"]
    arguments += ["--endpoint", str(first), "--endpoint", str(rest)]
    refused = command(*arguments, *stages[:-1], stages[-1].format("exit 3"))
    assert refused.code == SwitchFailed.exit_code, refused.err
    assert "back where it was: half serves 2" in refused.err
    (row,) = json.loads(seen.read_text())["error"]["details"]["status"]["models"]
    assert [one["available"] for one in row["endpoints"]] == [[1], [2]]
    assert [ask(one) for one in servers] == [(2, 3.0), (2, 3.0)]
    assert [ask(one, label="stable")[0] for one in servers] == [2, 2]
    assert repo.status(endpoints=servers, wait=5).ok
    done = command(*arguments, *stages[:-1], "exit 0")
    assert done.code == 0, done.err
    assert [ask(one) for one in servers] == [(1, 2.0), (1, 2.0)]
    assert [ask(one, label="stable")[0] for one in servers] == [1, 1]
    assert repo.status(endpoints=servers, wait=5).ok


def test_stages_that_cannot_be_are_refused_before_anything_changes(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    with pytest.raises(UsageError, match="take no part"):
        repo.serve("half@2", endpoints=at(found), rules=Rules(first=("other:1",)))
    with pytest.raises(UsageError, match="no version is left to watch"):
        repo.unserve("half", endpoints=at(found), rules=Rules(batch="1"))
    assert [answering(one) for one in at(found)] == [1, 1]
    refused = command("--root", repo.root, "serve", "half@1", "--batch", "some")
    assert refused.code == 2
    with pytest.raises(EndpointUnreachable, match="no metrics at http"):
        count_requests(at(found)[0], "half", port="+0", timeout=2)


def test_a_batch_is_a_part_or_a_number() -> None:
    assert [batch_size("25%", 8), batch_size("25%", 3), batch_size("2", 9)] == [2, 1, 2]
    for text in ("0", "x", "%", "-1"):
        with pytest.raises(UsageError):
            batch_size(text, 4)


def two_ports() -> int:
    """Return a free port with a free one above it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except (OSError, OverflowError):
                continue


@contextmanager
def asking(endpoints: list[Endpoint], *, badly: Endpoint | None = None) -> Iterator[None]:
    """Send requests all the time, to one of the endpoints such as fail."""
    stop = threading.Event()

    def run(endpoint: Endpoint) -> None:
        bad = predict_pb2.PredictRequest()
        bad.model_spec.name = "half"
        with ServingClient(endpoint) as client:
            while not stop.wait(0.05):
                if endpoint != badly:
                    ask(endpoint)
                    continue
                with pytest.raises(RequestRefused):
                    client.predict(bad, timeout=5)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in endpoints]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


@pytest.mark.tf
def test_errors_in_the_metrics_of_a_stage_put_it_back_and_none_let_it_go_on(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    monitoring = tmp_path / "monitoring.txt"
    monitoring.write_text("prometheus_config { enable: true }\n")
    servers = []
    for name in ("a", "b"):
        port = two_ports()
        flags = (f"--rest_api_port={port + 1}", f"--monitoring_config_file={monitoring}")
        log = tmp_path / f"{name}.log"
        servers.append(fleet.enter_context(running_server(repo, *flags, log=log, port=port))[0])
    rules = Rules(first=(str(servers[0]),), watch=2, metrics_port="+1", min_requests=5)
    with asking(servers, badly=servers[0]):
        with pytest.raises(SwitchFailed, match="fails too often") as failed:
            repo.serve("half@2", endpoints=servers, rules=rules, wait=30)
        assert str(servers[0]) in failed.value.problems[0]
    assert [ask(one) for one in servers] == [(1, 2.0), (1, 2.0)]
    with asking(servers):
        done = repo.serve("half@2", endpoints=servers, rules=rules, wait=30)
    assert "requests failed" in done.endpoints[0].outcome
    assert "0 of " in done.endpoints[0].outcome
    assert [ask(one) for one in servers] == [(2, 3.0), (2, 3.0)]


@contextmanager
def https_page(folder: Path, lines: dict[str, str]) -> Iterator[int]:
    """Serve a metrics page as a TLS proxy does that wants a client certificate and a token; give its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = self.headers.get("authorization") == "Bearer t" and self.path == PAGE
            body = lines["page"].encode()
            self.send_response(200 if told else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_metrics_behind_a_tls_proxy_are_read_with_the_endpoints_own_certificates_and_headers(
    tmp_path: Path, fleet: ExitStack
) -> None:
    authority = Authority(tmp_path / "ca")
    point = ':tensorflow:serving:request_count{model_name="half",status="%s"} %d\n'
    lines = {"page": point % ("OK", 7) + point % ("INTERNAL", 2)}
    port = fleet.enter_context(https_page(authority.folder, lines))
    url = f"https://{{host}}:{port}"
    at_it = partial(Endpoint, "127.0.0.1", 8500)
    right = authority.security(certificate=True, headers=[("Authorization", "Bearer t")])
    assert count_requests(at_it(right), "half", url=url, timeout=5) == Requests(9, 2)
    for wrong, said in (
        (authority.security(certificate=True), "HTTP 401"),
        (authority.security(headers=[("authorization", "Bearer t")]), ""),
        (Security(tls=True), ""),  # the TLS library says why
    ):
        with pytest.raises(EndpointUnreachable, match=f"no metrics at https://127.*{said}"):
            count_requests(at_it(wrong), "half", url=url, timeout=5)
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 2)
    # The gRPC side of these servers speaks no TLS; each endpoint has the security that its page wants.
    for url_or_port in ("ftp://{host}", "https://{where}", "https://", "https://a:x"):
        with pytest.raises(UsageError, match="not a URL"):
            check_rules(Rules(metrics_url=url_or_port))
    refused = command(
        *("--root", repo.root, "serve", "half@2", "--endpoint", str(at(found)[0])),
        *("--metrics-url", f"https://{{host}}:{port}", "--watch-for", "0"),
    )
    assert refused.code == SwitchFailed.exit_code
    assert f"no metrics at https://127.0.0.1:{port}{PAGE}" in refused.err
    assert [answering(one) for one in at(found)] == [1, 1]
