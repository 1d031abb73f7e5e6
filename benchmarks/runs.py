"""How fast 100 MB of TensorBoard events are read, against TensorBoard's own reader, and a large run is scanned.

Each reader runs in a process of its own, which reads once a round, in turns with the other, and times the reading
alone, not its imports. The peer is tensorboard's EventAccumulator, which keeps every scalar, as we do. Both use one
thread, so they are compared by processor time, which other work on the machine hardly changes; the seconds on the
clock are reported too. Three rounds take some 160 s of processor time.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEGABYTE = 1_000_000
TAGS = ("epoch_loss", "epoch_accuracy", "learning_rate", "batch_loss")

OURS = """
import gc, sys, time
from pathlib import Path
from servingrepo.runs.measure import measure_run
import servingrepo.runs.tensorboard
for _ in sys.stdin:
    start, used = time.perf_counter(), time.process_time()
    found = measure_run(Path(sys.argv[1]))
    seconds = time.process_time() - used, time.perf_counter() - start
    print(*seconds, sum(one.count for one in found.measurements), flush=True)
    del found
    gc.collect()
"""

PEER = """
import gc, sys, time
import tensorflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for _ in sys.stdin:
    start, used = time.perf_counter(), time.process_time()
    found = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0, "images": 4})
    found.Reload()
    seconds = time.process_time() - used, time.perf_counter() - start
    tags = found.Tags()
    print(*seconds, sum(len(found.Scalars(tag)) for tag in tags["scalars"])
          + sum(len(found.Tensors(tag)) for tag in tags["tensors"] if tag in %r), flush=True)
    del found
    gc.collect()
"""


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=3)
    with timing.workplace(options.dir) as folder:
        measured: dict[str, dict[str, float]] = {}
        targets: list[timing.Target] = []
        for form in ("tensors", "simple values", "tensors and images"):
            place = folder / form.replace(" ", "_")
            scalars = write_events(place, form=form)
            ours, peer = [], []
            with reader(OURS, place) as own, reader(PEER % (TAGS,), place) as other:
                for _ in range(options.rounds):
                    ours.append(read(own, scalars))
                    peer.append(read(other, scalars))
            ratios = [theirs[0] / mine[0] for mine, theirs in zip(ours, peer, strict=True)]
            measured[form] = {
                "scalars": scalars,
                "ours_processor": timing.middle([one[0] for one in ours]),
                "ours_clock": timing.middle([one[1] for one in ours]),
                "TensorBoard_processor": timing.middle([one[0] for one in peer]),
                "TensorBoard_clock": timing.middle([one[1] for one in peer]),
                "times_faster": timing.middle(ratios),
            }
            targets.append(
                timing.Target(f"{form}: our time, of TensorBoard's", 1 / timing.middle(ratios), 0.1)
            )
        run = write_run(folder / "run")
        scans = timing.in_turns(
            {"scan": timing.servingrepo("scan", run, "-q")}, rounds=options.rounds, folder=folder
        )["scan"]
        measured["scan of 50,000 files, 10 GB, 200 event files"] = {
            "seconds": timing.median(scans),
            "processor_seconds": timing.middle([one.processor for one in scans]),
            "peak_bytes": max(one.peak for one in scans),
        }
        targets.append(timing.Target("scan, seconds", timing.median(scans), 2.0))
        timing.report("runs", {"seconds": measured}, targets, folder=folder)


@contextlib.contextmanager
def reader(script: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """Start one reader, which reads once for each line it is sent: what it imports is imported once."""
    with subprocess.Popen(
        [sys.executable, "-c", script, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        yield process


def read(process: subprocess.Popen[str], scalars: int) -> tuple[float, float]:
    """Let one reader read; return its processor and clock seconds. It must have found every scalar."""
    if process.stdin is None or process.stdout is None:
        raise SystemExit("a reader has no pipes")
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline().split()
    if not answer:
        raise SystemExit(f"a reader ended with {process.wait()}")
    processor, clock, found = answer
    if int(found) != scalars:
        raise SystemExit(f"{found} scalars were read, {scalars} are there")
    return float(processor), float(clock)


def write_events(place: Path, *, form: str) -> int:
    """Write 100 MB of events as a training loop does; return how many scalars they have."""
    from servingrepo.protos import event_pb2

    place.mkdir()
    suffix = "" if form == "simple values" else ".1.0.v2"
    size = step = 0
    now = time.time()
    image = os.urandom(200_000)
    with (place / f"events.out.tfevents.{int(now)}.host{suffix}").open("wb") as file:
        while size < 100 * MEGABYTE:
            step += 1
            for tag in TAGS:
                event = event_pb2.Event(wall_time=now + step / 10, step=step)
                value = event.summary.value.add(tag=tag)
                if form == "simple values":
                    value.simple_value = 1 / step
                else:
                    value.tensor.dtype = 1
                    value.tensor.tensor_shape.SetInParent()
                    value.tensor.tensor_content = struct.pack("<f", 1 / step)
                    value.metadata.plugin_data.plugin_name = "scalars"
                size += file.write(framed(event.SerializeToString()))
            if form == "tensors and images" and step % 100 == 0:
                event = event_pb2.Event(wall_time=now + step / 10, step=step)
                value = event.summary.value.add(tag="image")
                value.tensor.dtype = 7
                value.tensor.tensor_shape.dim.add(size=3)
                value.tensor.string_val.extend([b"64", b"64", image])
                value.metadata.plugin_data.plugin_name = "images"
                size += file.write(framed(event.SerializeToString()))
    return step * len(TAGS)


def write_run(run: Path) -> Path:
    """Write a large run: 10 GB of sparse weights, 200 event files, 50,000 files in all."""
    from servingrepo.protos import event_pb2
    from servingrepo.testing.exports import write_export

    write_export(run / "saved_model", variables=True)
    records = []
    for step in range(200):
        event = event_pb2.Event(wall_time=1e9 + step, step=step)
        event.summary.value.add(tag="loss").simple_value = 1 / (step + 1)
        records.append(framed(event.SerializeToString()))
    for number in range(200):
        folder = run / f"logs/worker{number}"
        folder.mkdir(parents=True)
        (folder / f"events.out.tfevents.1000000000.h.1.{number}.v2").write_bytes(b"".join(records))
    for number in range(100):
        folder = run / f"checkpoints/{number}"
        folder.mkdir(parents=True)
        for part in range(497):
            (folder / f"part-{part}.bin").touch()
    for number in range(10):
        with (run / f"checkpoints/ckpt-{number}.data-00000-of-00001").open("wb") as weights:
            weights.truncate(1_000_000_000)
        (run / f"checkpoints/ckpt-{number}.index").touch()
    return run


def framed(payload: bytes) -> bytes:
    from servingrepo.savedmodel.crc32c import crc32c, mask

    head = struct.pack("<Q", len(payload))
    return b"".join(
        (
            head,
            struct.pack("<I", mask(crc32c(head))),
            payload,
            struct.pack("<I", mask(crc32c(payload))),
        )
    )


if __name__ == "__main__":
    main()
