"""Answers of the REST API by address, on a real core and without sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.embedded.inference import Options
from servingrepo.embedded.metrics import Metrics
from servingrepo.embedded.rest import RestApi, RestReply, RestRequest, respond
from servingrepo.protos import meta_graph_pb2, types_pb2

if TYPE_CHECKING:
    from tests.embedded.conftest import Bench

OK_STATUS = {"error_code": "OK", "error_message": ""}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def api(bench: Bench, metrics: Metrics) -> RestApi:
    bench.put("m/3")
    assert bench.reload("m").ok
    return RestApi(
        core=bench.core, options=Options(), metrics=metrics, metrics_path="/monitoring/page"
    )


def ask(api: RestApi, line: str, body: bytes = b"", origin: str = "") -> RestReply:
    method, target = line.split(" ")
    return respond(api, RestRequest(method, target, body, origin))


def error(reply: RestReply) -> str:
    return str(json.loads(reply.body)["error"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/m",
        "/v1/models/m/versions/3",
        "/v1/models/m/versions/0003",
        "/v1/models/m/labels/any",
        "/V1/MODELS/%6d",
        # What libevent takes for a host is no part of the path.
        "http://host:8501/v1/models/m",
        "//host/v1/models/m",
        "//user@[::1]:80/v1/models/m",
        "///v1/models/m",
        # A word in another case matches and then is not the word: this is the status, not the metadata.
        "/v1/models/m/METADATA",
    ],
)
def test_status_of_a_model(api: RestApi, path: str) -> None:
    reply = ask(api, f"GET {path}")
    assert reply.code == 200
    assert reply.headers == (("Content-Type", "application/json"),)
    one = {"version": "3", "state": "AVAILABLE", "status": OK_STATUS}
    assert json.loads(reply.body) == {"model_version_status": [one]}


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("GET /v1/models", 400, "Missing model name in request."),
        ("GET /v1/models/versions/3", 400, "Missing model name in request."),
        (
            "GET /v1/models/metadata/metadata",
            404,
            "Servable not found for request: Latest(metadata)",
        ),
        ("GET /v1/models/", 400, "Malformed request: GET /v1/models/"),
        ("GET /v1/models/m/", 400, "Malformed request: GET /v1/models/m/"),
        ("GET /v1/models/m:predict", 400, "Malformed request: GET /v1/models/m:predict"),
        ("GET /v1/models/m/versions/-1", 400, "Malformed request: GET /v1/models/m/versions/-1"),
        ("POST /v1/models/m", 400, "Malformed request: POST /v1/models/m"),
        ("POST /v1/models/m:PREDICT", 400, "Malformed request: POST /v1/models/m:PREDICT"),
        ("POST /v1/models/m/metadata", 400, "Malformed request: POST /v1/models/m/metadata"),
        ("PUT /v1/models/m", 400, "Malformed request: PUT /v1/models/m"),
        ("HEAD /v1/models/m", 400, "Malformed request: HEAD /v1/models/m"),
        ("GET /v1/", 400, "Malformed request: GET /v1/"),
        # The query belongs to the name.
        ("GET /v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("GET /v1/models/a%2Fb%zz", 0, ""),
        ("GET /v1/models/a%2Fb", 404, "Could not find any versions of model a/b"),
        ("GET /v1/models/m/versions/4", 404, "Could not find version 4 of model m"),
        (
            "GET /v1/models/m/versions/4/metadata",
            404,
            "Servable not found for request: Specific(m, 4)",
        ),
        ("POST /v1/models/m/labels/a%20b:predict", 400, "Unrecognized servable version label: a b"),
    ],
)
def test_addresses_that_lead_nowhere(api: RestApi, line: str, code: int, text: str) -> None:
    reply = ask(api, line, b'{"instances": [1]}')
    if not code:
        # Not a URI: libevent answers that, with a page.
        assert (reply.code, reply.closes) == (400, True)
        assert reply.body.startswith(b"<HTML>")
        return
    assert (reply.code, error(reply)) == (code, text)


@pytest.mark.parametrize("rest", ["", "/metadata", ":predict"])
@pytest.mark.parametrize("number", [str(2**63), "9" * 5000])
def test_version_beyond_int64_is_400_with_an_empty_body(
    api: RestApi, metrics: Metrics, rest: str, number: str
) -> None:
    method = "POST" if rest == ":predict" else "GET"
    reply = ask(api, f"{method} /v1/models/m/versions/{number}{rest}", b"{}")
    assert (reply.code, reply.body) == (400, b"")
    assert 'request_count{model_name="m",status="INVALID_ARGUMENT"} 1' in metrics.page()
    assert ask(api, f"GET /v1/models/m/versions/{2**63 - 1}").code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/health/ready",
        "/v1",
        "/x/v1/models/m",
        "/v1x/",
        "//v1/models/m",
        "//v1",
        "http://v1",
    ],
)
def test_paths_outside_v1_get_libevents_page(api: RestApi, metrics: Metrics, path: str) -> None:
    reply = ask(api, f"GET {path}")
    assert reply.code == 404
    assert reply.body == (
        b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
    )
    assert metrics.page() == "\n"


@pytest.mark.parametrize("target", ["//a:b/v1/models/m", "//a b", "//[x]/v1/models/m", "/v1/[m]"])
def test_targets_that_are_no_uri_get_libevents_page(api: RestApi, target: str) -> None:
    assert respond(api, RestRequest("GET", target)).code == 400


def test_methods_that_libevent_does_not_know(api: RestApi) -> None:
    assert ask(api, "BREW /v1/models/m").code == 501
    assert ask(api, "TRACE /v1/models/m").code == 501


def test_preflight_needs_an_origin(api: RestApi) -> None:
    assert ask(api, "OPTIONS /v1/models/m:predict").code == 400
    reply = ask(api, "OPTIONS /v1/models/m:predict", origin="https://example.org")
    assert (reply.code, reply.body, reply.headers) == (200, b"", ())


def test_cors_headers_only_when_asked_for(api: RestApi) -> None:
    cors = RestApi(core=api.core, options=api.options, metrics=api.metrics, cors=True)
    for line, code in (("GET /v1/models/m", 200), ("GET /v1/models/x", 404)):
        assert len(ask(api, line).headers) == 1
        reply = ask(cors, line)
        assert reply.code == code
        assert dict(reply.headers) == {
            "Content-Type": "application/json",
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": "Content-Type",
        }


def test_predict_checks_body_then_model_then_signature(api: RestApi) -> None:
    def answer(name: str, body: bytes) -> tuple[int, str]:
        reply = ask(api, f"POST /v1/models/{name}:predict", body)
        return reply.code, error(reply)

    assert answer("nobody", b"")[1] == "JSON Parse error: The document is empty"
    assert answer("nobody", b"{}") == (404, "Servable not found for request: Latest(nobody)")
    missing = 'Serving signature name: "serving_default" not found in signature def'
    assert answer("m", b"{}") == (400, missing)
    missing = 'Serving signature name: "x" not found in signature def'
    assert answer("m", b'{"signature_name": "x"}') == (400, missing)


def test_predict_passes_codes_of_the_runtime_on(api: RestApi, bench: Bench) -> None:
    signature = meta_graph_pb2.SignatureDef()
    signature.inputs["x"].dtype = types_pb2.DT_FLOAT
    signature.outputs["y"].name = "y:0"
    bench.runtime.sessions[-1].signatures["serving_default"] = signature
    reply = ask(api, "POST /v1/models/m:predict", b'{"instances": [1]}')
    assert reply.code == 501
    deep = b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert ask(api, "POST /v1/models/m:predict", deep).code == 400


def test_metrics_page_and_its_neighbours(api: RestApi) -> None:
    page = ask(api, "GET /monitoring/page")
    assert (page.code, page.headers) == (200, (("Content-Type", "text/plain"),))
    other = ask(api, "GET /monitoring/page?x")
    assert (other.code, other.body) == (
        400,
        b"Unexpected path: /monitoring/page?x. Should be /monitoring/page",
    )
    assert ask(api, "GET /monitoring/prometheus/metrics").code == 404


def test_requests_are_counted_under_the_requested_name(api: RestApi, metrics: Metrics) -> None:
    for line in ("GET /v1/models/m", "GET /v1/models/m", "GET /v1/models/a%22", "GET /v1/nonsense"):
        ask(api, line)
    lines = metrics.page().splitlines()
    assert lines[0] == "# TYPE :tensorflow:serving:request_count counter"
    assert lines[1:4] == [
        ':tensorflow:serving:request_count{model_name="",status="INVALID_ARGUMENT"} 1',
        ':tensorflow:serving:request_count{model_name="a\\"",status="NOT_FOUND"} 1',
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 2',
    ]
    labels = 'model_name="m",API="",entrypoint="REST"'
    assert f":tensorflow:serving:request_latency_count{{{labels}}} 2" in lines


def test_histogram_has_the_real_servers_buckets(metrics: Metrics) -> None:
    labels: Any = ("m", "Predict", "GRPC")
    for value in (10, 9, 20, 1e30):
        metrics.observe("/tensorflow/serving/request_latency", labels, value)
    lines = metrics.page().splitlines()
    assert len(lines) == 1 + 34 + 2
    text = 'model_name="m",API="Predict",entrypoint="GRPC"'
    name = ":tensorflow:serving:request_latency"
    assert lines[1:4] == [
        f'{name}_bucket{{{text},le="10"}} 1',
        f'{name}_bucket{{{text},le="18"}} 2',
        f'{name}_bucket{{{text},le="32.4"}} 3',
    ]
    assert lines[-3:] == [
        f'{name}_bucket{{{text},le="+Inf"}} 4',
        f"{name}_sum{{{text}}} 1e+30",
        f"{name}_count{{{text}}} 4",
    ]
