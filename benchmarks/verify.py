"""How fast every byte is verified, against b3sum, signatures, TensorFlow and reading; and `show` of a large graph.

Two models: one GiB in 64 variables, and 20,000 small files beside 20,000 small variables. Everything is in the
page cache, and the sides take turns. `verify` is of the published version, whose record vouches for its tensors;
`deep` compares them again. What others need to install: `pip install --group bench`, and Debian's package b3sum.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

GIB = 1 << 30
VARIABLES = 64
SMALL = 20_000
GRAPH = 100_000_000

OVER_HASHING = 1.5
START = 0.1
"""Seconds of a command that are not the hashing: less is counted against b3sum."""
OVER_SIGNATURES = {"1 GiB": 5.0, "20,000 small": 4.0}
OVER_TENSORFLOW = 8.0
OF_READING = 0.4
OVER_CLI = 10.0
LIMIT_MB = 120.0

READ_CHECKPOINT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
"""


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=5)
    with timing.workplace(options.dir) as folder:
        measured: dict[str, Any] = {"rounds": options.rounds}
        targets: list[timing.Target] = []
        for name, make in (("1 GiB", make_large), ("20,000 small", make_small)):
            export = folder / "export" / name.replace(" ", "_").replace(",", "")
            aside(make, export)
            found = measure(export, options.rounds, folder)
            measured[name] = found
            targets += judge(name, found)
        measured["show"] = show = measure_show(options.rounds, folder)
        ratio = OVER_CLI / show["saved_model_cli_over_show"]
        targets.append(
            timing.Target("show of 100 MB: 10 x its time / saved_model_cli's", ratio, 1.0)
        )
        timing.report("verify", measured, targets, folder=folder)


def judge(name: str, found: dict[str, Any]) -> Iterator[timing.Target]:
    """Yield the targets, each so that 1.0 or less is good."""
    times = OVER_SIGNATURES[name]
    ratio = times / found["model_signing_over_verify"]
    yield timing.Target(f"{name}: {times:g} x verify / model_signing verify", ratio, 1.0)
    ratio = OVER_TENSORFLOW / found["tensorflow_over_verify"]
    yield timing.Target(f"{name}: 8 x verify / TensorFlow reads the checkpoint", ratio, 1.0)
    if name == "1 GiB":
        over = found["verify_less_its_start_over_b3sum"]
        yield timing.Target(f"{name}: (verify - 0.1 s) / b3sum", over, OVER_HASHING)
        ratio = OF_READING / found["of_plain_read_speed"]
        yield timing.Target(f"{name}: 40 % of reading on two cores / verifying", ratio, 1.0)
    yield timing.Target(f"{name}: peak memory, MB", found["verify_peak_mb"], LIMIT_MB)


def measure(export: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Time whole processes in turns, then reading and verifying within one process, in turns."""
    key, signature = sign(export, folder)
    verify_signature: timing.Command = [
        Path(sys.executable).with_name("model_signing"),
        "verify",
        "key",
        "--public_key",
        key,
        "--signature",
        signature,
        export,
    ]
    root = publish(export, folder)
    verify: timing.Command = timing.servingrepo("--root", root, "verify", "-q", "model@1")
    data = sorted(export.glob("variables/variables.data-*"))
    commands: dict[str, timing.Command] = {
        "verify": verify,
        "deep": [*verify, "--deep"],
        "b3sum": [need_b3sum(), "--no-names", *data],
        "model_signing": verify_signature,
        "tensorflow": [sys.executable, "-c", READ_CHECKPOINT, export / "variables" / "variables"],
    }
    runs = timing.in_turns(commands, rounds=rounds, folder=folder)
    reading, plainly, verifying = aside(in_process, export, rounds)
    ratios = {
        f"{name}_over_verify": timing.middle(
            [
                one.seconds / ours.seconds
                for one, ours in zip(runs[name], runs["verify"], strict=True)
            ]
        )
        for name in ("model_signing", "tensorflow", "deep")
    }
    hashing = [
        (ours.seconds - START) / one.seconds
        for one, ours in zip(runs["b3sum"], runs["verify"], strict=True)
    ]
    size = sum(one.stat().st_size for one in export.rglob("*") if one.is_file())
    return {
        "bytes": size,
        "seconds": {name: timing.median(each) for name, each in runs.items()},
        "verify_processor_seconds": timing.middle([one.processor for one in runs["verify"]]),
        "verify_peak_mb": max(one.peak for one in runs["verify"]) / 1e6,
        **ratios,
        "verify_less_its_start_over_b3sum": timing.middle(hashing),
        "read_on_two_cores_seconds": timing.middle(reading),
        "read_plainly_seconds": timing.middle(plainly),
        "verify_in_process_seconds": timing.middle(verifying),
        "of_plain_read_speed": timing.middle(
            [read / verified for read, verified in zip(reading, verifying, strict=True)]
        ),
        "of_reading_in_one_thread": timing.middle(
            [read / verified for read, verified in zip(plainly, verifying, strict=True)]
        ),
    }


def publish(export: Path, folder: Path) -> Path:
    """Promote an export into a repository of its own, and return its root."""
    root = folder / f"{export.name}-repository"
    timing.run(timing.servingrepo("--root", root, "init"), folder=folder)
    promote: timing.Command = ["promote", export, "--model", "model", "--no-smoke"]
    timing.run(timing.servingrepo("--root", root, *promote), folder=folder)
    return root


def need_b3sum() -> str:
    """Return where b3sum is."""
    found = shutil.which("b3sum")
    if found is None:
        raise SystemExit("b3sum is not there: apt-get install b3sum")
    return found


def sign(export: Path, folder: Path) -> tuple[Path, Path]:
    """Make a key and sign an export with model_signing; return the public key and the signature."""
    private, public = folder / "private.pem", folder / "public.pem"
    signature = folder / f"{export.name}.sig"
    curve = "openssl ecparam -name prime256v1 -genkey -noout"
    private.write_bytes(subprocess.run(curve.split(), check=True, capture_output=True).stdout)
    point = ["openssl", "ec", "-in", str(private), "-pubout"]
    public.write_bytes(subprocess.run(point, check=True, capture_output=True).stdout)
    tool = Path(sys.executable).with_name("model_signing")
    if not tool.exists():
        raise SystemExit(f"{tool} is not there: pip install --group bench")
    options = ["--private_key", str(private), "--signature", str(signature), str(export)]
    subprocess.run([str(tool), "sign", "key", *options], check=True, capture_output=True)
    return public, signature


def in_process(export: Path, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Time reading every byte with two threads, with one, and verifying every byte, in turns."""
    from servingrepo.repository.verification import verify_path

    files = sorted((one for one in export.rglob("*") if one.is_file()), key=lambda one: one.name)
    reading, plainly, verifying = [], [], []
    for number in range(rounds + 1):
        read = seconds(lambda: read_all(files))
        plain = seconds(lambda: read_plainly(files))
        verified = seconds(lambda: verify_path(export))
        if number:
            reading.append(read)
            plainly.append(plain)
            verifying.append(verified)
    return reading, plainly, verifying


def aside(work: Callable[..., T], *arguments: Any) -> T:
    """Do work in a process of its own: a child's peak memory counts what its parent had when it was started."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(files: Sequence[Path]) -> None:
    """Read every byte with two threads, half of each file to each."""

    def half(which: int) -> None:
        buffer = bytearray(timing.MIB)
        for file in files:
            descriptor = os.open(file, os.O_RDONLY)
            size = os.fstat(descriptor).st_size
            at, end = (0, size // 2) if which == 0 else (size // 2, size)
            while at < end:
                at += os.preadv(descriptor, [memoryview(buffer)[: end - at]], at)
            os.close(descriptor)

    threads = [threading.Thread(target=half, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read_plainly(files: Sequence[Path]) -> None:
    """Read every byte as a script would: one file after the other, a MiB at a time."""
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(timing.MIB):
                pass


def measure_show(rounds: int, folder: Path) -> dict[str, Any]:
    """Time `show` of a published version with a graph of 100 MB, `scan` of the export, and saved_model_cli."""
    export, root = folder / "graph", folder / "repository"
    aside(make_graph, export)
    timing.run(timing.servingrepo("--root", root, "init"), folder=folder)
    promote: timing.Command = ["promote", export, "--model", "model", "--no-smoke"]
    timing.run(timing.servingrepo("--root", root, *promote), folder=folder)
    cli = Path(sys.executable).with_name("saved_model_cli")
    commands: dict[str, timing.Command] = {
        "show": timing.servingrepo("--root", root, "show", "model@1"),
        "scan": timing.servingrepo("scan", export),
        "saved_model_cli": [cli, "show", "--all", "--dir", export],
    }
    runs = timing.in_turns(commands, rounds=rounds, folder=folder)
    middle = {name: timing.median(each) for name, each in runs.items()}
    return {
        "graph_bytes": (export / "saved_model.pb").stat().st_size,
        "seconds": middle,
        "peak_mb": {name: max(one.peak for one in each) / 1e6 for name, each in runs.items()},
        "saved_model_cli_over_show": statistics.median(
            cli.seconds / show.seconds
            for cli, show in zip(runs["saved_model_cli"], runs["show"], strict=True)
        ),
        "saved_model_cli_over_scan": middle["saved_model_cli"] / middle["scan"],
    }


def make_large(path: Path) -> Path:
    """Write a SavedModel of 64 variables that are one GiB together."""
    size = GIB // VARIABLES
    return make_export(path, ((f"layer_{number:02}", size) for number in range(VARIABLES)))


def make_small(path: Path) -> Path:
    """Write a SavedModel of 20,000 variables and 20,000 files of a kilobyte each."""
    make_export(path, ((f"layer_{number:05}/kernel", 1024) for number in range(SMALL)))
    for number in range(SMALL):
        file = path / "assets.extra" / f"{number % 100:02}" / f"{number:05}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(1024))
    return path


def make_export(path: Path, variables: Iterator[tuple[str, int]]) -> Path:
    from servingrepo.testing.bundles import write_tensors
    from servingrepo.testing.exports import write_export

    write_export(path, variables=True)
    scalars = [("offset", bytes(4)), ("slope", bytes(4))]
    tensors = ((name, os.urandom(size)) for name, size in variables)
    write_tensors(
        path / "variables" / "variables", (one for each in (scalars, tensors) for one in each)
    )
    return path


def make_graph(path: Path) -> Path:
    """Write a SavedModel whose graph has 100 MB: 100,000 nodes of constants."""
    from servingrepo.protos import saved_model_pb2
    from servingrepo.testing.exports import write_export

    write_export(path)
    file = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = message.meta_graphs[0].graph_def
    count = 100_000
    for number in range(count):
        node = graph.node.add(name=f"layer_{number}/weights", op="Const")
        node.attr["dtype"].type = 1
        tensor = node.attr["value"].tensor
        tensor.dtype = 1
        tensor.tensor_content = os.urandom(GRAPH // count // 4 * 4)
        tensor.tensor_shape.dim.add(size=GRAPH // count // 4)
    file.write_bytes(message.SerializeToString())
    return path


if __name__ == "__main__":
    main()
