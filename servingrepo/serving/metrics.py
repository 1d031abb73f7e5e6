"""What a server counts of its requests, from its Prometheus page.

TensorFlow Serving counts Predict, Classify and Regress over gRPC, and every call of the REST API, by model and
status (util/prometheus_exporter.cc); a series appears with its first request. The page needs --rest_api_port and
--monitoring_config_file.
"""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import EndpointUnreachable

if TYPE_CHECKING:
    from servingrepo.serving.states import Endpoint

__all__ = ["Requests", "count_requests"]

PAGE = "/monitoring/prometheus/metrics"
_POINT = re.compile(
    r'^:tensorflow:serving:request_count\{model_name="(?P<model>[^"]*)",status="(?P<status>[^"]*)"\} '
    r"(?P<count>\d+)",
    re.MULTILINE,
)
_OK = 200


class Requests(msgspec.Struct, frozen=True):
    """How many requests for a model a server has answered, and how many of them with an error."""

    all: int = 0
    errors: int = 0

    def since(self, before: Requests) -> Requests:
        """Return what came since then; a server that was restarted in between counts from nothing."""
        if self.all < before.all:
            return self
        return Requests(self.all - before.all, self.errors - before.errors)

    def plus(self, other: Requests) -> Requests:
        """Return both together."""
        return Requests(self.all + other.all, self.errors + other.errors)

    @property
    def rate(self) -> float:
        """The part of them that are errors; 0 of none."""
        return self.errors / self.all if self.all else 0.0


def count_requests(endpoint: Endpoint, model: str, *, port: str, timeout: float) -> Requests:
    """Read a server's counters of one model.

    Args:
        endpoint: Where it listens for gRPC.
        model: The model.
        port: Its REST port, or one relative to the gRPC port, such as +1.
        timeout: In seconds.

    Raises:
        EndpointUnreachable: The page is not there.
    """
    number = endpoint.port + int(port) if port[:1] in {"+", "-"} else int(port)
    where = f"http://{endpoint.host}:{number}{PAGE}"
    connection = http.client.HTTPConnection(endpoint.host.strip("[]"), number, timeout=timeout)
    try:
        connection.request("GET", PAGE)
        reply = connection.getresponse()
        page = reply.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise _no_page(where, str(error)) from error
    finally:
        connection.close()
    if reply.status != _OK:
        raise _no_page(where, f"HTTP {reply.status}")
    found = Requests()
    for point in _POINT.finditer(page):
        if point["model"] == model:
            count = int(point["count"])
            found = found.plus(Requests(count, 0 if point["status"] == "OK" else count))
    return found


def _no_page(where: str, why: str) -> EndpointUnreachable:
    return EndpointUnreachable(
        f"no metrics at {where}: {why}",
        hint="the server needs --rest_api_port and --monitoring_config_file with prometheus_config { enable: true }",
    )
