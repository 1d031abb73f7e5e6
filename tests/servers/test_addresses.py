from __future__ import annotations

import socket
from typing import Any

from servingrepo.servers.addresses import resolved
from servingrepo.servers.states import Endpoint

V4, V6 = socket.AF_INET, socket.AF_INET6
NAMES: dict[str, list[tuple[int, str]]] = {
    "many": [(V4, "10.0.0.2"), (V4, "10.0.0.1"), (V4, "10.0.0.2"), (V6, "fd00::1")],
    "dual": [(V4, "10.0.0.1"), (V6, "fd00::1")],
    "six": [(V6, "fd00::1"), (V6, "fd00::2")],
}


def lookup(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
    if host not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(family, socket.SOCK_STREAM, 6, "", (at, port)) for family, at in NAMES[host]]


def shown(*texts: str) -> list[str]:
    return [str(one) for one in resolved(map(Endpoint.parse, texts), lookup=lookup)]


def test_a_name_with_several_addresses_means_each_of_them() -> None:
    assert shown("many:8500") == ["10.0.0.1:8500", "10.0.0.2:8500"]
    assert shown("six:8500") == ["[fd00::1]:8500", "[fd00::2]:8500"]
    assert {one.name for one in resolved([Endpoint("many", 1)], lookup=lookup)} == {"many"}


def test_name_with_one_address_per_family_stays() -> None:
    assert shown("dual:8500", "nowhere:8500") == ["dual:8500", "nowhere:8500"]


def test_addresses_and_this_machine_are_not_looked_up() -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked up")

    given = [Endpoint("127.0.0.1", 1), Endpoint("[::1]", 2), Endpoint("localhost", 3)]
    assert resolved(given, lookup=never) == tuple(given)


def test_an_endpoint_that_is_given_twice_counts_once() -> None:
    assert shown("many:1", "10.0.0.1:1") == ["10.0.0.1:1", "10.0.0.2:1"]
