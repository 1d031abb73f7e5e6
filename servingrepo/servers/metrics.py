"""A server's counts of requests and errors, from its Prometheus page.

TensorFlow Serving counts Predict, Classify and Regress over gRPC, and every REST call, by model and status
(util/prometheus_exporter.cc). A series appears with its first request. The page needs --rest_api_port and
--monitoring_config_file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import msgspec

from servingrepo.errors import EndpointUnreachable, UsageError

if TYPE_CHECKING:
    from servingrepo.servers.states import Endpoint

__all__ = ["Requests", "count_requests", "page_of"]

PAGE = "/monitoring/prometheus/metrics"
_POINT = re.compile(
    r'^:tensorflow:serving:request_count\{model_name="(?P<model>[^"]*)",status="(?P<status>[^"]*)"\} '
    r"(?P<count>\d+)",
    re.MULTILINE,
)
_OK = 200


class Requests(msgspec.Struct, frozen=True):
    """The number of requests for a model that a server answered, and how many of these failed.

    `exhausted` counts the requests that a full server refused (RESOURCE_EXHAUSTED). They say nothing about a version,
    so `all` and `errors` do not contain them.
    """

    all: int = 0
    errors: int = 0
    exhausted: int = 0

    def since(self, before: Requests) -> Requests:
        """Return the requests since `before`. A server that restarted meanwhile counts from zero."""
        if self.all < before.all or self.exhausted < before.exhausted:
            return self
        return Requests(
            self.all - before.all, self.errors - before.errors, self.exhausted - before.exhausted
        )

    def plus(self, other: Requests) -> Requests:
        """Return the sum of both."""
        return Requests(
            self.all + other.all, self.errors + other.errors, self.exhausted + other.exhausted
        )

    def __str__(self) -> str:
        """Say how many failed of how many."""
        said = f"{self.errors} of {self.all} requests failed"
        return f"{said}, {self.exhausted} more met a full server" if self.exhausted else said


def count_requests(
    endpoint: Endpoint, model: str, *, port: str = "", url: str = "", timeout: float
) -> Requests:
    """Read a server's counters of one model.

    Args:
        endpoint: Its gRPC endpoint; over https its authority, client certificate and headers are used here too.
        model: The model.
        port: Its REST port, or one relative to the gRPC port, such as +1, for plain HTTP as the server speaks it.
        url: The URL of the page instead, as `page_of` reads it.
        timeout: In seconds.

    Raises:
        EndpointUnreachable: The page is not there.
    """
    from http.client import HTTPException  # with ssl and email: most changes watch no stage

    if url:
        page = page_of(url, endpoint)
    else:
        number = endpoint.port + int(port) if port[:1] in {"+", "-"} else int(port)
        page = SplitResult("http", f"{endpoint.host}:{number}", PAGE, "", "")
    try:
        status, text = _get(page, endpoint, headers=bool(url), timeout=timeout)
    except (OSError, HTTPException) as error:
        raise _no_page(page.geturl(), str(error)) from error
    if status != _OK:
        raise _no_page(page.geturl(), f"HTTP {status}")
    found = Requests()
    for point in _POINT.finditer(text):
        if point["model"] == model:
            count, said = int(point["count"]), point["status"]
            answered = Requests(count, 0 if said == "OK" else count)
            full = said == "RESOURCE_EXHAUSTED"
            found = found.plus(Requests(exhausted=count) if full else answered)
    return found


def page_of(url: str, endpoint: Endpoint) -> SplitResult:
    """Return the URL of an endpoint's page: {host} and {port} stand for those of the endpoint.

    The default path is that of TensorFlow Serving.

    Raises:
        UsageError: It is not such a URL.
        SettingsError: The endpoint's headers would go there without encryption.
    """
    filled = url.replace("{host}", endpoint.host).replace("{port}", str(endpoint.port))
    try:
        page = urlsplit(filled)
        whole = page.scheme in {"http", "https"} and page.hostname and page.port != 0
    except ValueError:
        whole = False
    if not whole or "{" in filled or page.username or not filled.isascii():
        raise UsageError(
            f"not a URL of a metrics page: {url!r}",
            hint="give http:// or https://, with {host} and {port} for those of each endpoint: "
            "https://{host}:8443",
        )
    if page.scheme == "http":
        endpoint.security.refuse_in_clear(page.hostname or "", page.geturl())
    return page if page.path.strip("/") else page._replace(path=PAGE)


def _get(
    page: SplitResult, endpoint: Endpoint, *, headers: bool, timeout: float
) -> tuple[int, str]:
    """Get a page; return its status and text."""
    import socket
    from http.client import HTTPConnection

    host = page.hostname or ""
    # An address of a name: certificates and proxies know the name only.
    named = endpoint.name if endpoint.name and host == endpoint.host.strip("[]") else host
    port = page.port or (443 if page.scheme == "https" else 80)
    connection = HTTPConnection(named, port, timeout=timeout)
    try:
        plain = socket.create_connection((host, port), timeout=timeout)
        connection.sock = plain
        if page.scheme == "https":
            context = endpoint.security.context()
            connection.sock = context.wrap_socket(plain, server_hostname=named)
        wanted = page._replace(scheme="", netloc="", fragment="").geturl()
        given = dict(endpoint.security.headers if headers else ())
        connection.request("GET", wanted, headers=given)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    finally:
        connection.close()


def _no_page(where: str, why: str) -> EndpointUnreachable:
    return EndpointUnreachable(
        f"no metrics at {where}: {why}",
        hint="the server needs --rest_api_port and --monitoring_config_file with prometheus_config { enable: true }; "
        "over https the proxy's certificate must be trusted: --tls-ca",
    )
