"""Trouble that a server of a fleet may have in the middle of a switch: killed, hung, slow, busy with a request."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from servingrepo.errors import ServingRepoError
from servingrepo.protos import predict_pb2
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_CHUNK = 65_536


class Proxy:
    """A TCP proxy on loopback that passes everything on, each piece after `delay` seconds and of `size` bytes."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.delay, self.size = 0.0, _CHUNK
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake the thread that waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(self.size):
                time.sleep(self.delay)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def hung(process: subprocess.Popen[bytes], *, seconds: float) -> Iterator[None]:
    """Stop a server for so long, or until the block ends: SIGSTOP, then SIGCONT."""
    waking = threading.Timer(seconds, process.send_signal, [signal.SIGCONT])
    process.send_signal(signal.SIGSTOP)
    waking.start()
    try:
        yield
    finally:
        waking.cancel()
        process.send_signal(signal.SIGCONT)


@contextmanager
def stuttering(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a server and let it go on in turns."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(0.4)
            process.send_signal(signal.SIGCONT)
            ended.wait(0.2)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def slowed(proxy: Proxy, *, delay: float, size: int = _CHUNK) -> Iterator[None]:
    """Let a proxy delay, or trickle, what it passes on."""
    proxy.delay, proxy.size = delay, size
    try:
        yield
    finally:
        proxy.delay, proxy.size = 0.0, _CHUNK


@contextmanager
def busy(endpoint: Endpoint, *, seconds: float) -> Iterator[list[int]]:
    """Keep a request in flight for so long; give the list of the versions that answered, and wait for it."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["seconds"].dtype = 2
    request.inputs["seconds"].double_val.append(seconds)
    answered: list[int] = []

    def run() -> None:
        with ServingClient(endpoint) as client, suppress(ServingRepoError):
            reply = client.predict(request, timeout=seconds + 60)
            answered.append(reply.model_spec.version.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.5)  # until the server has it
    try:
        yield answered
    finally:
        thread.join(seconds + 60)
