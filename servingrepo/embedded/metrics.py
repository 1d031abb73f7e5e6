"""Counters and histograms under the real server's names, and their page for Prometheus.

After util/prometheus_exporter.cc, servables/tensorflow/util.cc, saved_model_warmup_util.cc and TensorFlow's
cc/saved_model/loader.cc and core/lib/monitoring. The page shows used metrics only. As in the real server, no metric
has the state of a model.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from servingrepo.embedded.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.embedded.runtime import Runtime, Session

__all__ = ["DEFAULT_PATH", "MeasuredRuntime", "Metrics"]

DEFAULT_PATH = "/monitoring/prometheus/metrics"


def _exponential(scale: float, growth: float, number: int) -> tuple[float, ...]:
    limits = [scale]
    while len(limits) < number:
        limits.append(limits[-1] * growth)
    return tuple(limits)


# Up to about 20 minutes, in microseconds.
_LATENCY = _exponential(10, 1.8, 33)


class Kind(msgspec.Struct, frozen=True):
    """A metric: the names of its labels, and the limits of its buckets if it is a histogram."""

    labels: tuple[str, ...]
    limits: tuple[float, ...] = ()


METRICS: dict[str, Kind] = {
    "/tensorflow/cc/saved_model/load_attempt_count": Kind(("model_path", "status")),
    "/tensorflow/cc/saved_model/load_latency": Kind(("model_path",)),
    "/tensorflow/core/saved_model/read/api": Kind(("api_label",)),
    "/tensorflow/serving/model_warmup_latency": Kind(("model_path", "status"), _LATENCY),
    "/tensorflow/serving/model_warmup_records_read": Kind(("model_path", "status")),
    "/tensorflow/serving/request_count": Kind(("model_name", "status")),
    "/tensorflow/serving/request_example_count_total": Kind(("model",)),
    "/tensorflow/serving/request_example_counts": Kind(("model",), _exponential(1, 2, 15)),
    "/tensorflow/serving/request_latency": Kind(("model_name", "API", "entrypoint"), _LATENCY),
    "/tensorflow/serving/runtime_latency": Kind(("model_name", "API", "runtime"), _LATENCY),
}

Labels = tuple[str, ...]


class Metrics:
    """The counts since the start. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, int]] = {}
        self._histograms: dict[str, dict[Labels, tuple[list[int], list[float]]]] = {}

    def count(self, name: str, labels: Labels, by: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            points = self._counts.setdefault(name, {})
            points[labels] = points.get(labels, 0) + by

    def observe(
        self, name: str, labels: Labels, value: float = 0, *, since: float | None = None
    ) -> None:
        """Add a value to a histogram, or the microseconds since a time of the monotonic clock."""
        if since is not None:
            value = microseconds(since)
        limits = METRICS[name].limits
        with self._lock:
            points = self._histograms.setdefault(name, {})
            buckets, total = points.setdefault(labels, ([0] * (len(limits) + 1), [0.0]))
            buckets[bisect_right(limits, value)] += 1
            total[0] += value

    def first_value(self, name: str) -> int:
        """Return a counter's value at its first labels; 0 for other metrics (GetMetrics)."""
        with self._lock:
            points = self._counts.get(name)
            return points[min(points)] if points else 0

    def page(self) -> str:
        """Return everything in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name in sorted(METRICS):
                kind = METRICS[name]
                shown = re.sub(r"[^a-zA-Z0-9_]", ":", name)
                if name in self._counts:
                    lines.append(f"# TYPE {shown} counter")
                    lines += [
                        f"{shown}{{{_labels(kind, labels)}}} {value}"
                        for labels, value in sorted(self._counts[name].items())
                    ]
                if name in self._histograms:
                    lines.append(f"# TYPE {shown} histogram")
                    for labels, (buckets, total) in sorted(self._histograms[name].items()):
                        lines += _histogram(shown, kind, labels, buckets, total[0])
        return "\n".join(lines) + "\n"


class MeasuredRuntime:
    """A runtime that counts each attempt to load."""

    def __init__(self, runtime: Runtime, metrics: Metrics) -> None:
        self._runtime = runtime
        self._metrics = metrics

    def load(self, path: str, tags: Sequence[str]) -> Session | Status:
        """Load with the other runtime."""
        begun = time.monotonic()
        self._metrics.count("/tensorflow/core/saved_model/read/api", ("cc_load",))
        result = self._runtime.load(path, tags)
        status = "fail" if isinstance(result, Status) else "success"
        self._metrics.count("/tensorflow/cc/saved_model/load_attempt_count", (path, status))
        # A counter of microseconds, failures included.
        self._metrics.count(
            "/tensorflow/cc/saved_model/load_latency", (path,), by=microseconds(begun)
        )
        return result


def microseconds(since: float) -> int:
    """Return the microseconds since a time of the monotonic clock."""
    return round((time.monotonic() - since) * 1e6)


def _histogram(
    shown: str, kind: Kind, labels: Labels, buckets: Sequence[int], total: float
) -> list[str]:
    text = _labels(kind, labels)
    lines = []
    count = 0
    limits = [*(f"{limit:g}" for limit in kind.limits), "+Inf"]
    for limit, number in zip(limits, buckets, strict=True):
        count += number
        lines.append(f'{shown}_bucket{{{text},le="{limit}"}} {count}')
    return [*lines, f"{shown}_sum{{{text}}} {total:g}", f"{shown}_count{{{text}}} {count}"]


def _labels(kind: Kind, values: Labels) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(kind.labels, values, strict=True)
    )


def _escaped(value: str) -> str:
    # The real server does not escape line ends, which breaks the page for all metrics.
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
