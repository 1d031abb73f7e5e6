"""Endpoints and states of servers as values. It does not import gRPC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from servingrepo.errors import UsageError
from servingrepo.servers.security import PLAIN, Security

__all__ = ["Endpoint", "ModelMetadata", "State", "VersionStatus", "hint_for_failed"]

State = str
"""UNKNOWN, START, LOADING, AVAILABLE, UNLOADING or END, as GetModelStatus names them."""

MAX_PORT = 65_535
_UNIX = "unix:"
# A name has no control characters, and no surrogates that stand for bytes that are not UTF-8 (PEP 383).
_HOST_PORT = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s\x00-\x1f\x7f\ud800-\udfff]+):(?P<port>[0-9]{1,5})"
)


class Endpoint(msgspec.Struct, frozen=True):
    """The address of a server's gRPC port, and the security of the connection: all that a client needs.

    If the host is one of several addresses of a DNS name, `name` is that name, as in the certificate.

    Raises:
        SettingsError: Headers would leave this machine without encryption.
    """

    host: str
    port: int
    security: Security = PLAIN
    name: str = ""

    def __post_init__(self) -> None:
        if not self.security.uses_tls:
            self.security.refuse_in_clear(self.host, str(self))

    @classmethod
    def parse(cls, text: str, security: Security = PLAIN) -> Endpoint:
        """Read HOST:PORT, with IPv6 addresses in brackets.

        Raises:
            UsageError: The text is something else.
            SettingsError: Headers would leave this machine without encryption.
        """
        match = _HOST_PORT.fullmatch(text)
        if match is None or not 0 < int(match["port"]) <= MAX_PORT:
            raise UsageError(
                f"not an endpoint: {text!r}",
                hint="give HOST:PORT of the server's gRPC port, such as localhost:8500",
            )
        return cls(host=match["host"], port=int(match["port"]), security=security)

    @classmethod
    def unix(cls, path: Path) -> Endpoint:
        """Return the endpoint of a socket file, as servers open with --grpc_socket_path."""
        return cls(host=f"{_UNIX}{path}", port=0)

    @property
    def socket(self) -> Path | None:
        """The socket file; None for a host and a port."""
        return None if self.port else Path(self.host.removeprefix(_UNIX))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class VersionStatus(msgspec.Struct, frozen=True):
    """A version's state from GetModelStatus; `error` is empty unless the version failed."""

    version: int
    state: State
    code: int
    error: str

    @property
    def failed(self) -> bool:
        """Whether it ended because it did not load: END alone is a normal unload."""
        return self.state == "END" and self.code != 0

    @property
    def damaged(self) -> bool:
        """Whether it did not load because its files are damaged: a restart does not help then."""
        return self.failed and (
            self.code in _DAMAGE_CODES or any(sign in self.error for sign in _DAMAGE_SIGNS)
        )


_DAMAGE_CODES = frozenset({15})
"""DATA_LOSS: a checksum differs (tensor_bundle.cc, block.cc)."""

_DAMAGE_SIGNS = (
    "Read less bytes than requested",
    "No such file or directory",
    "does not appear to contain a SavedModel",
)
"""Servers' errors for a file that is cut off or missing (posix_file_system.cc, saved_model_bundle_factory.cc)."""


def hint_for_failed(model: str, status: VersionStatus) -> str:
    """Return the hint for a version of ours that a live server could not load."""
    if status.damaged:
        return (
            f"its files are damaged: servingrepo verify {model}@{status.version} names them; serve another version, "
            "and promote its run again"
        )
    return (
        "a version that failed is never tried again by a running server: publish it under the next number, or "
        "restart the server"
    )


class ModelMetadata(msgspec.Struct, frozen=True):
    """The reply of GetModelMetadata: the version that answered and its SignatureDefs by key."""

    version: int
    signatures: dict[str, Any]
