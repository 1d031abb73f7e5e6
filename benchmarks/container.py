"""How long a smoke test in a container takes, against the bare `docker run` that it cannot do without.

The targets are the issue's: a whole `servingrepo smoke --engine docker` takes at most 1.15 times as long as
`docker run` until the version is AVAILABLE and `docker rm -f`; a broken model is refused after at most 1.5 times
what the bare container takes to exit. Both sides run the same image on the same daemon, in pairs that take turns
at who is first. The image has tensorflow/serving's entrypoint and flags: SERVINGREPO_BENCHMARK_IMAGE names it,
else it is the tests' stand-in.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

from benchmarks import timing
from servingrepo.errors import LoadFailed, ServingRepoError
from servingrepo.modelconfig import EMPTY, pin, render
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT_GOOD = 1.15
LIMIT_BROKEN = 1.5
POLL_SECONDS = 0.02
LOAD_SECONDS = 120

Pairs = list[tuple[float, float]]


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=7)
    image = os.environ.get("SERVINGREPO_BENCHMARK_IMAGE") or stand_in()
    with timing.workplace(options.dir) as folder:
        # Whoever runs the server in the container can read them.
        folder.chmod(0o755)
        good, broken = folder / "good", folder / "broken"
        write_export(good / "saved_model")
        # Found only by loading it: the checkpoint lacks what the graph restores.
        write_export(broken / "saved_model", variables=True)
        break_variables(broken / "saved_model")
        config = folder / "config" / "models.config"
        config.parent.mkdir()
        config.write_text(render(pin(EMPTY, name="model", base_path="/models/model", versions=[1])))
        passed = in_pairs(
            lambda: smoke(good, image, folder, code=0),
            lambda: bare(good, config, image, good=True),
            options.rounds,
        )
        refused = in_pairs(
            lambda: refusal(broken, image, folder),
            lambda: bare(broken, config, image, good=False),
            options.rounds,
        )
        targets = [
            target("smoke / (docker run to AVAILABLE and docker rm -f)", passed, LIMIT_GOOD),
            target("broken model refused / docker run to its exit", refused, LIMIT_BROKEN),
        ]
        measured = {
            "image": image,
            "pairs": options.rounds,
            "good": summary(passed),
            "broken": summary(refused),
        }
        timing.report("container", measured, targets, folder=folder)


def stand_in() -> str:
    """Return the tests' stand-in for tensorflow/serving."""
    from tests.docker import images

    return images.build(images.STANDIN)


def in_pairs(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Pairs:
    """Time both in turns, once without counting."""
    pairs: Pairs = []
    for number in range(rounds + 1):
        if number % 2:
            mine = ours()
            pairs.append((mine, theirs()))
        else:
            bare_one = theirs()
            pairs.append((ours(), bare_one))
    return pairs[1:]


def target(what: str, pairs: Pairs, limit: float) -> timing.Target:
    ratios = [ours / theirs for ours, theirs in pairs]
    return timing.Target(f"{what}, median of pairs", statistics.median(ratios), limit)


def summary(pairs: Pairs) -> dict[str, object]:
    return {
        "servingrepo_median_seconds": statistics.median(ours for ours, _ in pairs),
        "bare_median_seconds": statistics.median(theirs for _, theirs in pairs),
        "ratios": sorted(ours / theirs for ours, theirs in pairs),
    }


def smoke(run: Path, image: str, folder: Path, *, code: int) -> float:
    """Time the whole command."""
    command = timing.servingrepo("smoke", f"{run}/", "--engine", "docker", "--image", image)
    return timed(command, folder, code=code)


def refusal(run: Path, image: str, folder: Path) -> float:
    """Time the engine's part in a process of its own: the command itself finds this fault without a server."""
    script = (
        "import sys; from pathlib import Path\n"
        "from servingrepo.errors import LoadFailed\n"
        "from servingrepo.deadline import Deadline\n"
        "from servingrepo.servers.engines.docker import DockerEngine\n"
        "try:\n"
        "    with DockerEngine(image=sys.argv[2]).serve(model='model', version=1, export=Path(sys.argv[1]),\n"
        "        deadline=Deadline.after(120)): pass\n"
        f"except LoadFailed: sys.exit({LoadFailed.exit_code})\n"
    )
    interpreter = timing.servingrepo()[0]
    python = str(interpreter).removesuffix("servingrepo") + "python"
    command: timing.Command = [python, "-c", script, run / "saved_model", image]
    return timed(command, folder, code=LoadFailed.exit_code)


def timed(command: timing.Command, folder: Path, *, code: int) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)),
        env=timing.environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != code:
        raise SystemExit(f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def bare(run: Path, config: Path, image: str, *, good: bool) -> float:
    """Time docker alone: run, until the version is AVAILABLE or the container has ended, and rm -f."""
    name = f"servingrepo-benchmark-{uuid.uuid4().hex[:8]}"
    begun = time.perf_counter()
    docker(
        *("run", "--detach", "--init", "--name", name, "--publish", "127.0.0.1::8500"),
        *("--volume", f"{run}/saved_model:/models/model/1:ro"),
        *("--volume", f"{config.parent}:/servingrepo:ro", image),
        *("--model_config_file=/servingrepo/models.config", "--max_num_load_retries=0"),
    )
    try:
        if not good:
            code = docker("wait", name)
            if code == "0":
                raise SystemExit("the broken model was served")
            return time.perf_counter() - begun
        address = docker("port", name, "8500/tcp")
        endpoint = Endpoint("127.0.0.1", int(address.rpartition(":")[2]))
        while not is_available(endpoint):
            if time.perf_counter() - begun > LOAD_SECONDS:
                raise SystemExit(docker("logs", name))
            time.sleep(POLL_SECONDS)
    finally:
        docker("rm", "--force", name)
    return time.perf_counter() - begun


def is_available(endpoint: Endpoint) -> bool:
    try:
        with ServingClient(endpoint) as client:
            return [one.state for one in client.status("model", timeout=1.0)] == ["AVAILABLE"]
    except ServingRepoError:
        return False


def break_variables(export: Path) -> None:
    """Cut off the checkpoint's data."""
    for shard in (export / "variables").glob("variables.data-*"):
        shard.write_bytes(b"")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"docker {arguments[0]}: {done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
