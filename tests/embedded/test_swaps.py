"""Version swaps under constant load: no request fails, no answer is mixed up, memory stays flat.

`make test` does a few; `make swaps` (SERVINGREPO_SWAPS=100) does the hundred that the guarantee is about.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from servingrepo.protos import predict_pb2, types_pb2
from tests.embedded.server_process import (
    READY,
    STEP,
    Server,
    config_of,
    eventually,
    publish,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.servers.client import ServingClient

SWAPS = int(os.environ.get("SERVINGREPO_SWAPS", "6"))
CLIENTS_OF_A_KIND = 2
WARM_SWAPS = min(5, SWAPS // 2)
MEGABYTE = 1_000_000
GROWTH = 30 * MEGABYTE

pytestmark = [pytest.mark.tf, pytest.mark.timeout(60 + 10 * SWAPS)]


class Load:
    """Client threads that ask without pause: for the highest version, for version 1, for the label."""

    def __init__(self, server: Server) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.versions: set[int] = set()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(server, pin))
            for pin in ({}, {"version": 1}, {"label": "stable"})
            for _ in range(CLIENTS_OF_A_KIND)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, server: Server, pin: dict[str, Any]) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        if "version" in pin:
            request.model_spec.version.value = pin["version"]
        if "label" in pin:
            request.model_spec.version_label = pin["label"]
        request.inputs["x"].dtype = types_pb2.DT_FLOAT
        request.inputs["x"].tensor_shape.dim.add(size=1)
        request.inputs["x"].float_val.append(2.0)
        last = 0
        with server.client() as client:
            while not self._ended.is_set():
                try:
                    answer = client.predict(request, timeout=STEP)
                    version = answer.model_spec.version.value
                    value = answer.outputs["y"].float_val[0]
                except Exception as error:  # noqa: BLE001 - any failure is what this is about
                    said = f"{pin}: {error}"
                else:
                    # Version n answers 0.5 x + n; a client never goes back to an older version.
                    wrong = (
                        value != 1.0 + version
                        or version < last
                        or version != pin.get("version", version)
                    )
                    said = f"{pin}: {value} from version {version} after {last}" if wrong else ""
                    last = version
                with self._lock:
                    self.answered += 1
                    self.versions.add(last)
                    if said:
                        self.failures.append(said)


def memory(server: Server) -> int:
    """Return what the server's process has in memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def send(client: ServingClient, base: Path, *versions: int, stable: int) -> None:
    config = config_of(base, "m")
    entry = config.model_config_list.config[0]
    entry.model_version_policy.specific.versions.extend(versions)
    entry.version_labels["stable"] = stable
    client.reload(config, timeout=STEP)


def swap(client: ServingClient, base: Path, old: int, new: int) -> None:
    """Go from one version to the next as every rollout does, with version 1 beside both."""
    send(client, base, *sorted({1, old, new}), stable=old)
    eventually(lambda: states(client, "m").get(new) == "AVAILABLE", READY)
    send(client, base, *sorted({1, old, new}), stable=new)
    send(client, base, 1, new, stable=new)
    if old != 1:
        eventually(lambda: states(client, "m")[old] == "END", READY)


def test_swaps_under_load_fail_no_request_nor_grow(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    for version in range(1, SWAPS + 2):
        publish(tmp_path, f"m/{version}", slope=0.5, offset=float(version))
    server = serve("m")
    server.wait_until_ready()
    with server.client() as client:
        # The server starts with the highest version.
        send(client, tmp_path, 1, SWAPS + 1, stable=SWAPS + 1)
        eventually(lambda: states(client, "m").get(1) == "AVAILABLE", READY)
        send(client, tmp_path, 1, stable=1)
        eventually(lambda: states(client, "m")[SWAPS + 1] == "END", READY)
        begun = time.monotonic()
        sizes = []
        with Load(server) as load:
            for new in range(2, SWAPS + 2):
                swap(client, tmp_path, new - 1, new)
                sizes.append(memory(server))
        seconds = time.monotonic() - begun
    growth = sizes[-1] - sizes[WARM_SWAPS - 1]
    figures = {
        "swaps": SWAPS,
        "seconds": round(seconds, 1),
        "requests": load.answered,
        "memory_mb": [round(size / MEGABYTE) for size in sizes[:: max(1, len(sizes) // 10)]],
        "growth_mb": round(growth / MEGABYTE, 1),
    }
    print(figures)  # for `make swaps`
    assert load.failures == []
    assert load.versions >= set(range(1, SWAPS + 2))
    assert growth < GROWTH, figures
