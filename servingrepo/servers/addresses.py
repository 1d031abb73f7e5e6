"""DNS names of several servers, as an endpoint for each address: gRPC would use one address only.

A name with one IPv4 and one IPv6 address is one server, so the addresses of one family count.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.servers.security import THIS_MACHINE, address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from servingrepo.servers.states import Endpoint

__all__ = ["resolved"]


def resolved(
    endpoints: Iterable[Endpoint], *, lookup: Callable[..., Any] = socket.getaddrinfo
) -> tuple[Endpoint, ...]:
    """Return the endpoints, each once, with an endpoint for each address of a name that has several.

    A name with one address stays a name. So does a name that cannot be resolved: the client's call reports that.

    Args:
        endpoints: The given endpoints.
        lookup: A function like `socket.getaddrinfo`.
    """
    found: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        for address in _addresses(endpoint, lookup):
            found.setdefault(str(address), address)
    return tuple(found.values())


def _addresses(endpoint: Endpoint, lookup: Callable[..., Any]) -> Iterator[Endpoint]:
    host = endpoint.host
    if not endpoint.port or host in THIS_MACHINE or address_of(host) is not None:
        yield endpoint
        return
    try:
        answers = lookup(host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        answers = []
    families = [
        sorted({answer[4][0] for answer in answers if answer[0] == family})
        for family in (socket.AF_INET, socket.AF_INET6)
    ]
    most = max(families, key=len)
    if len(most) < 2:  # noqa: PLR2004 - one address means one server
        yield endpoint
        return
    for address in most:
        shown = f"[{address}]" if ":" in address else address
        yield msgspec.structs.replace(endpoint, host=shown, name=host)
