"""The REST API, without sockets: a method, a path and a body in, a status code and a body out.

After model_servers/http_server.cc, http_rest_api_handler.cc, http_rest_api_util.cc and
util/net_http/server/internal/evhttp_server.cc, with the answers of libevent itself.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from servingrepo.embedded import examples, inference
from servingrepo.embedded.calls import (
    SIGNATURE_DEF,
    count_request,
    find,
    get_metadata,
    get_status,
    infer,
)
from servingrepo.embedded.core import ServerCore
from servingrepo.embedded.inference import DEFAULT_SIGNATURE, Options
from servingrepo.embedded.json_examples import fill_examples
from servingrepo.embedded.json_responses import (
    classifications_text,
    error_text,
    message_text,
    metadata_text,
    outputs_text,
    regressions_text,
)
from servingrepo.embedded.json_tensors import fill_predict
from servingrepo.embedded.metrics import Metrics
from servingrepo.embedded.status import Code, Status, invalid
from servingrepo.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RestApi", "RestReply", "RestRequest", "respond"]

METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
INT64 = 2**63
_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<part>metadata))?", re.IGNORECASE
)
# The URIs that evhttp_uri_parse accepts (libevent's http.c): after two slashes it expects a host, //host/path.
_CHARACTER = r"[\w.~!$&'()*+,;=-]|%[0-9a-f]{2}"
_TARGET = re.compile(
    rf"(?:[a-z][a-z0-9+.-]*:)?"
    rf"(?://(?:(?:{_CHARACTER}|:)*@)?(?:\[[0-9a-f:.]*\]|(?:{_CHARACTER})*)(?::[0-9]*)?(?=[/?#]|$))?"
    rf"(?!//)(?P<rest>(?P<path>(?:{_CHARACTER}|[:@/])*)"
    rf"(?:\?(?:{_CHARACTER}|[:@/?])*)?(?:#(?:{_CHARACTER}|[:@/?])*)?)",
    re.ASCII | re.IGNORECASE,
)
_ORIGIN = re.compile("https?://")
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
OTHER_ERROR = 500
_PAGES = {400: "Bad Request", 404: "Not Found", 501: "Not Implemented"}
_CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)


class RestApi(msgspec.Struct, frozen=True, kw_only=True):
    """The REST API. `timeout_ms` 0 is no limit; without `metrics_path` there is no page of metrics."""

    core: ServerCore
    options: Options
    metrics: Metrics
    timeout_ms: int = 0
    cors: bool = False
    metrics_path: str = ""


class RestRequest(msgspec.Struct, frozen=True):
    """An HTTP request; `target` is the path with its query, as sent."""

    method: str
    target: str
    body: bytes = b""
    origin: str = ""


class RestReply(msgspec.Struct, frozen=True):
    """An HTTP answer; after `closes` the connection is closed."""

    code: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    closes: bool = False


class _Address(msgspec.Struct, frozen=True):
    """The parts of a path under /v1/."""

    name: str = ""
    version: int | None = None
    label: str | None = None
    method: str = ""
    part: str = ""


# A version beyond int64: the real server loses the error's text, and the body is empty.
_NO_NUMBER = Status(Code.INVALID_ARGUMENT)


def respond(api: RestApi, request: RestRequest) -> RestReply:
    """Answer one request."""
    if request.method not in METHODS:
        return _page(501)
    target = _TARGET.fullmatch(request.target)
    if target is None:
        return _page(400)
    request = msgspec.structs.replace(request, target=target["rest"])
    if api.metrics_path and target["path"] == api.metrics_path:
        return _metrics_page(api, request.target)
    if not _API.fullmatch(request.target):
        return _page(404)
    return _api_reply(api, request)


def _api_reply(api: RestApi, request: RestRequest) -> RestReply:
    begun = time.monotonic()
    address = _Address()
    headers: tuple[tuple[str, str], ...] = ()
    answer: str | Status = ""
    if request.method == "OPTIONS":
        if not _ORIGIN.search(request.origin):
            text = "Origin header is missing in CORS preflight"
            answer = Status(Code.FAILED_PRECONDITION, text)
        text = ""
    else:
        headers = (("Content-Type", "application/json"),)
        address, answer = _answer(api, request)
        text = answer if isinstance(answer, str) else ""
        if isinstance(answer, Status) and answer is not _NO_NUMBER:
            text = error_text(answer)
    code = answer.code if isinstance(answer, Status) else Code.OK
    count_request(api.metrics, (address.name, address.method, "REST"), answer, since=begun)
    return RestReply(
        _HTTP.get(code, OTHER_ERROR),
        headers + (_CORS if api.cors else ()),
        text.encode(errors="surrogateescape"),
    )


def _answer(api: RestApi, request: RestRequest) -> tuple[_Address, str | Status]:
    found = _address(request)
    address = found or _Address()
    if found is None:
        text = f"Malformed request: {request.method} {request.target}"
        return address, invalid(text)
    if address.version is not None and address.version >= INT64:
        return address, _NO_NUMBER
    try:
        return address, _answer_address(api, address, request)
    except RecursionError:
        # Lists nested a thousand deep: the real server refuses a tensor of that rank.
        return address, invalid("JSON value is nested too deep")


def _address(request: RestRequest) -> _Address | None:
    match request.method:
        case "POST":
            match = _INFERENCE.fullmatch(request.target)
        case "GET":
            match = _STATUS.fullmatch(request.target)
        case _:
            match = None
    if match is None:
        return None
    parts = match.groupdict()
    return _Address(
        name=_decoded(parts["name"] or ""),
        version=None if parts["version"] is None else _number(parts["version"]),
        label=None if parts["label"] is None else _decoded(parts["label"]),
        method=parts.get("method") or "",
        part=parts.get("part") or "",
    )


def _answer_address(api: RestApi, address: _Address, request: RestRequest) -> str | Status:
    # The real server matches the words of a path in any case, and then compares them exactly.
    match request.method, address.method, address.part:
        case "POST", "predict", _:
            return _predict(api, address, request.body)
        case "POST", "classify", _:
            asked = classification_pb2.ClassificationRequest()
            answer = _ask_examples(api, address, request.body, asked, examples.classify)
            return answer if isinstance(answer, Status) else classifications_text(answer.result)
        case "POST", "regress", _:
            asked = regression_pb2.RegressionRequest()
            answer = _ask_examples(api, address, request.body, asked, examples.regress)
            return answer if isinstance(answer, Status) else regressions_text(answer.result)
        case "POST", _, _:
            return invalid(f"Malformed request: {request.method} {request.target}")
        case _, _, "metadata":
            return _metadata(api, address)
        case _:
            return _model_status(api, address)


def _predict(api: RestApi, address: _Address, body: bytes) -> str | Status:
    request = predict_pb2.PredictRequest()
    _fill_spec(request.model_spec, address)
    form = fill_predict(body, request, partial(_inputs, api.core, request.model_spec))
    if isinstance(form, Status):
        return form
    response = _infer(api, request, inference.predict, "Predict")
    return response if isinstance(response, Status) else outputs_text(response.outputs, form)


def _ask_examples(
    api: RestApi, address: _Address, body: bytes, request: Any, run: Any
) -> Any | Status:
    """Answer a classify or regress."""
    _fill_spec(request.model_spec, address)
    filled = fill_examples(body, request)
    return _infer(api, request, run, address.method.capitalize()) if filled.ok else filled


def _infer(api: RestApi, request: Any, run: Any, name: str) -> Any | Status:
    return infer(
        api.core,
        request.model_spec,
        lambda model: run(model, request),
        options=api.options,
        timeout_ms=api.timeout_ms,
        metrics=api.metrics,
        api=name,
    )


def _inputs(core: ServerCore, spec: Any, signature_name: str) -> Mapping[str, Any] | Status:
    found = find(core, spec)
    if isinstance(found, Status):
        return found
    with found as handle:
        key = signature_name or DEFAULT_SIGNATURE
        signature = handle.servable.signatures.get(key)
    if signature is None:
        text = f'Serving signature name: "{key}" not found in signature def'
        return invalid(text)
    return dict(signature.inputs)


def _model_status(api: RestApi, address: _Address) -> str | Status:
    if not address.name:
        return invalid("Missing model name in request.")
    request = get_model_status_pb2.GetModelStatusRequest()
    _fill_spec(request.model_spec, address)
    response = get_status(api.core, request)
    return response if isinstance(response, Status) else message_text(response)


def _metadata(api: RestApi, address: _Address) -> str | Status:
    if not address.name:
        return invalid("Missing model name in request.")
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_DEF])
    _fill_spec(request.model_spec, address)
    response = get_metadata(api.core, request)
    return response if isinstance(response, Status) else metadata_text(response)


def _fill_spec(spec: Any, address: _Address) -> None:
    spec.name = address.name
    if address.version is not None:
        spec.version.value = address.version
    if address.label is not None:
        spec.version_label = address.label


def _metrics_page(api: RestApi, target: str) -> RestReply:
    headers = (("Content-Type", "text/plain"),)
    if target != api.metrics_path:
        text = f"Unexpected path: {target}. Should be {api.metrics_path}"
        return RestReply(400, headers, text.encode())
    return RestReply(200, headers, api.metrics.page().encode(errors="replace"))


def _page(code: int) -> RestReply:
    """Return libevent's own error page (evhttp_send_error)."""
    reason = _PAGES[code]
    text = (
        f"<HTML><HEAD>\n<TITLE>{code} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n"
        "</BODY></HTML>\n"
    )
    return RestReply(code, (("Content-Type", "text/html"),), text.encode(), closes=True)


def _decoded(text: str) -> str:
    return unquote_to_bytes(text).decode(errors="replace")


def _number(digits: str) -> int:
    # Python refuses to read thousands of digits, and such a number is too big anyway.
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) < len(str(INT64)) + 1 else INT64
