"""HTTP/1.x for the REST side, with the standard library: sockets and threads.

After util/net_http/server/internal/{evhttp_server,evhttp_request}.cc (libevent). Each connection has a thread, and
`--rest_api_num_threads` limits the requests at a time.
"""

from __future__ import annotations

import logging
import socket
import threading
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from servingrepo.embedded.rest import RestReply, RestRequest, respond

if TYPE_CHECKING:
    from servingrepo.embedded.rest import RestApi

__all__ = ["serve_http"]

logger = logging.getLogger(__name__)

IDLE_SECONDS = 50  # HTTP_READ_TIMEOUT, libevent's http-internal.h
MAX_LINE = 65_536
BLOCK = 1 << 20
MAX_UNPACKED = 10 << 20  # ZLib::kMaxUncompressedBytes
GZIP = 16  # gzip's format in zlib
CLIENT_CLOSED_REQUEST = 499


def serve_http(api: RestApi, host: str, port: int, *, threads: int) -> ThreadingTCPServer:
    """Answer requests in threads until the returned server is closed.

    Raises:
        OSError: The server cannot listen on the address.
    """
    slots = threading.BoundedSemaphore(threads)
    handler = partial(_Connection, api, slots)
    listener = _Listener6 if ":" in host else _Listener
    server = listener((host.strip("[]"), port), handler)
    # A long interval, because the server ends with its process, not through this loop.
    threading.Thread(target=server.serve_forever, args=(3600,), name="http", daemon=True).start()
    return server


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        """Log connections that end early as debug messages only."""
        logger.debug("connection of %s ended early", client_address)


class _Listener6(_Listener):
    address_family = socket.AF_INET6


class _BodyError(Exception):
    """The body cannot be read to its end."""


class _Connection(BaseHTTPRequestHandler):
    """One connection and the requests that come over it."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    wbufsize = -1  # buffered: an answer is sent in one piece
    disable_nagle_algorithm = True

    def __init__(self, api: RestApi, slots: threading.BoundedSemaphore, *given: Any) -> None:
        self._api = api
        self._slots = slots
        super().__init__(*given)

    def __getattr__(self, name: str) -> Any:
        # The base class calls do_GET and its like: one function answers all methods.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        try:
            body = self._body()
        except (_BodyError, ValueError) as error:
            self.close_connection = True
            self._send(RestReply(400, (("Content-Type", "text/plain"),), f"{error}\n".encode()))
            return
        # Not self.path: Python removes leading slashes from it, and libevent does not.
        target = self.requestline.split()[1]
        request = RestRequest(self.command, target, body, self.headers.get("Origin", ""))
        with self._slots:
            try:
                reply = respond(self._api, request)
            except Exception:
                logger.exception("this is a bug of servingrepo")
                reply = RestReply(500, closes=True)
        self._send(reply)

    def _send(self, reply: RestReply) -> None:
        reason = "Client Closed Request" if reply.code == CLIENT_CLOSED_REQUEST else None
        self.send_response_only(reply.code, reason)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.closes or self.close_connection:
            # Sets close_connection.
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0":
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._chunks()
        else:
            body = self._read(int(self.headers.get("Content-Length") or 0))
        return _unpacked(body) if "gzip" in self.headers.get("Content-Encoding", "") else body

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self._line().partition(b";")[0], 16):
            parts.append(self._read(size))
            self._line()
        while self._line():
            pass
        return b"".join(parts)

    def _line(self) -> bytes:
        line = self.rfile.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise _BodyError("the body ends early")
        return line.strip()

    def _read(self, size: int) -> bytes:
        if size < 0:
            raise _BodyError("the body has a negative length")
        parts = []
        while size:
            # The client may announce a body and not send it, so memory is taken as it comes.
            part = self.rfile.read(min(size, BLOCK))
            if not part:
                raise _BodyError("the body ends early")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def handle_expect_100(self) -> bool:
        """Ask for the body at once: `wfile` is buffered."""
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Log requests as debug messages only: the real server logs none."""
        logger.debug(format, *args)


def _unpacked(body: bytes) -> bytes:
    """Unpack a body. A bad or too large one counts as no body, as in the real server (gzip_zlib.cc)."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | GZIP)
    try:
        unpacked = unpacking.decompress(body, MAX_UNPACKED + 1)
    except zlib.error:
        return b""
    whole = unpacking.eof and not unpacking.unused_data
    return unpacked if whole and len(unpacked) <= MAX_UNPACKED else b""
