"""TLS, client certificates and headers of a connection to a server. It does not import gRPC.

For problems with TLS, gRPC reports a failed connection only ("Socket closed"). So this file tries PEM files before
they are used, and finds the reason for a failed connection.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import EndpointUnreachable, SettingsError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

__all__ = ["PLAIN", "THIS_MACHINE", "Security", "TlsMismatch", "address_of", "explain"]

# gRPC's rules for metadata (PROTOCOL-HTTP2.md). Its own error for a bad header does not name it.
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
BINARY_SUFFIX = "-bin"
_KNOCK_SECONDS = 1.0
THIS_MACHINE = {"localhost", "ip6-localhost", "ip6-loopback"}


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """The security of a connection: PEM texts, and headers for every call.

    It uses TLS if `tls` or any of the three texts is set. Without `ca`, gRPC's own list of authorities counts.
    `certificate` and `key` are for servers that check their clients. Without TLS, headers go to this machine only,
    unless `insecure_headers` allows more: others on the network could read them.

    Raises:
        SettingsError: Half of a pair is missing, or gRPC cannot send a header.
    """

    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    insecure_headers: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError(
                "a client certificate and its key go together, and only one of them was given",
                hint="give both, or neither if the server does not ask for a certificate",
            )
        problems = [
            repr(name)
            for name, value in self.headers
            if not _HEADER_NAME.fullmatch(name)
            or name.startswith("grpc-")
            or name.endswith(BINARY_SUFFIX)
            or not _HEADER_VALUE.fullmatch(value)
        ]
        if problems:
            raise SettingsError(
                "gRPC cannot send these headers",
                hint="names are lower case without -bin or grpc-, values are printable ASCII",
                problems=problems,
            )

    def __repr__(self) -> str:
        # No key and no token may reach a log.
        return f"Security(uses_tls={self.uses_tls})"

    @classmethod
    def read(
        cls,
        *,
        tls: bool = False,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        headers: Iterable[tuple[str, str]] = (),
        insecure_headers: bool = False,
    ) -> Security:
        """Read the PEM files, and check that they are usable.

        Raises:
            SettingsError: A file cannot be read or used, or a value is not allowed.
        """
        read = cls(
            tls=tls,
            ca=_read_pem(ca),
            certificate=_read_pem(certificate),
            key=_read_pem(key),
            headers=tuple((name.lower(), value) for name, value in headers),
            insecure_headers=insecure_headers,
        )
        if ca is not None and read.ca is not None:
            _try_authorities(ca, read.ca)
        if certificate is not None and key is not None:
            _try_pair(certificate, key)
        return read

    @property
    def uses_tls(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or self.ca is not None or self.certificate is not None

    def refuse_in_clear(self, host: str, where: str) -> None:
        """Refuse to send headers without encryption to another machine.

        Args:
            host: The receiver, over a connection without encryption.
            where: Its name in the message.

        Raises:
            SettingsError: There are headers, and `insecure_headers` is not set.
        """
        if self.headers and not self.insecure_headers and not _is_here(host):
            names = ", ".join(dict.fromkeys(name for name, _ in self.headers))
            raise SettingsError(
                f"headers ({names}) would go to {where} without encryption: others on the network could read them",
                hint="encrypt the connection (--tls, --tls-ca FILE, https://), or allow that: --insecure-header",
            )

    def context(self) -> ssl.SSLContext:
        """Return the same security for TLS without gRPC, as for a metrics page.

        Python's ssl reads a client's certificate from files only, so it is in a file for a moment, which only its
        owner can read.
        """
        import ssl

        found = ssl.create_default_context(cadata=self.ca.decode("ascii") if self.ca else None)
        if self.certificate is not None and self.key is not None:
            from tempfile import NamedTemporaryFile

            with NamedTemporaryFile() as pair:
                pair.write(self.certificate + b"\n" + self.key)
                pair.flush()
                found.load_cert_chain(pair.name)
        return found


class TlsMismatch(EndpointUnreachable):
    """Something listens at the endpoint, and client and server do not agree on TLS or on a certificate."""


PLAIN = Security()
"""No encryption, no headers."""


def explain(host: str, port: int, security: Security, text: str) -> tuple[str, str] | None:
    """Explain a failed connection, if TLS or the lack of it is the reason. Only gRPC's text says so.

    Args:
        host: The host.
        port: The port; 0 for a socket file.
        security: The client's security.
        text: gRPC's message.

    Returns:
        What happened and what to do, or None for another reason.
    """
    closed = "Socket closed" in text or "reset by peer" in text
    if not security.uses_tls:
        if closed and port and _speaks_tls(host.strip("[]"), port):
            return (
                "the server speaks TLS and the client did not",
                "give --tls-ca FILE with the authority of the server's certificate",
            )
        return None
    if "WRONG_VERSION_NUMBER" in text:
        return (
            "the server speaks no TLS and the client did",
            "leave out --tls and --tls-…, or start the server with --ssl_config_file",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = re.search(r"CERTIFICATE_VERIFY_FAILED: ([^:]*)", text)
        said = f": {reason[1]}" if reason else ""
        return (
            f"the server's certificate is not trusted{said}",
            "--tls-ca must hold the authority that signed the server's certificate",
        )
    if "Hostname Verification" in text or "Peer name" in text:
        return (
            f"the server's certificate is for another name than {host}",
            "use a name or address that the certificate lists (subjectAltName) in --endpoint",
        )
    if closed:
        asked = "did not accept the client's certificate" if security.certificate else ""
        return (
            f"the server {asked or 'asks for a client certificate, or ended the connection'}",
            "give --tls-cert and --tls-key, signed by an authority that the server trusts (its custom_ca)",
        )
    return None


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine, without DNS: loopback, or a socket file."""
    if host in THIS_MACHINE or host.startswith("unix:"):
        return True
    address = address_of(host)
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return address is not None and (mapped or address).is_loopback


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host is, in brackets or without; None for a name."""
    import ipaddress  # not at the top, because few calls have headers

    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _read_pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}", hint="give a readable file in PEM format"
        ) from error
    if b"-----BEGIN " not in data:
        raise SettingsError(
            f"not a PEM file: {path}", hint="give the text form, with its BEGIN and END lines"
        )
    return data


def _try_authorities(path: Path, data: bytes) -> None:
    import ssl  # costs 10 ms, and most calls need none

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"{path} holds no certificate that can be read",
            hint="give the certificate of the authority that signed the server's, in PEM format",
        ) from error


class _Encrypted(Exception):
    """A key that needs a password."""


def _try_pair(certificate: Path, key: Path) -> None:
    import ssl

    def refuse() -> str:
        raise _Encrypted

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=refuse)
    except _Encrypted as error:
        raise SettingsError(
            f"the key is encrypted: {key}", hint="give it without a password: openssl pkey -in …"
        ) from error
    except (ssl.SSLError, ValueError) as error:
        wrong = "do not belong together" if "MISMATCH" in str(error) else "cannot be used"
        raise SettingsError(
            f"the client certificate {certificate} and the key {key} {wrong}",
            hint="--tls-cert is the certificate in PEM format, --tls-key the private key it was made with",
        ) from error


def _speaks_tls(host: str, port: int) -> bool:
    """Tell whether a port answers a TLS handshake."""
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # This sends nothing, so the server's identity does not matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout=_KNOCK_SECONDS) as plain,
        context.wrap_socket(plain),
    ):
        return True
    return False
