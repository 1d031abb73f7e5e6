"""Resolve what development, tests and images install, and write it to requirements/: `make lock`.

    python tools/lock.py [--upgrade]

Each file has exact versions, for Python 3.11 to 3.13 alike, with the hashes of all files of each, so that pip takes
nothing else from any index; no index is named in it. Those for the producers of tests/producers are for Python 3.11
alone. Without --upgrade, pins that still fit pyproject.toml stay as they are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent
OLDEST_PYTHON = "3.11"


@dataclass(frozen=True)
class Lock:
    """One file of requirements/: its inputs, and how they are resolved."""

    name: str
    inputs: tuple[str, ...]
    shared: tuple[str, ...] = ("*",)
    """Packages that have the version of dev.txt, for they lie on one another in an environment; `*` is all."""
    without: tuple[str, ...] = ()
    pythons: bool = True
    """Holds for newer Pythons as well."""

    @property
    def file(self) -> str:
        """The file's name from the project's folder."""
        return f"requirements/{self.name}.txt"


_PRODUCED = ("keras", "numpy", "tensorflow")
LOCKS = (
    Lock("dev", ("pyproject.toml", "--group", "dev"), shared=()),
    Lock("build", ("--group", "build")),
    # Of TensorFlow images keep a few files, so that they do not install what TensorFlow requires.
    Lock("image", ("pyproject.toml",), without=("tensorflow",)),
    Lock("tensorflow", ("--no-deps", "-")),
    Lock("bench", ("--group", "bench")),
    Lock("fuzz", ("--group", "fuzz")),
    Lock("estimator", ("--group", "estimator"), shared=(), pythons=False),
    Lock("mlflow", ("--group", "mlflow"), pythons=False),
    # These ask for older releases than dev.txt has of some packages, which then lie above those.
    Lock("packed", ("--group", "packed"), shared=_PRODUCED, pythons=False),
    Lock("tfx", ("--no-deps", "--group", "tfx"), shared=(), pythons=False),
    Lock("tfx-needs", ("--group", "tfx-needs"), shared=_PRODUCED, pythons=False),
)


def pins(text: str) -> dict[str, list[str]]:
    """Return the lines of a lock without hashes, by package: one that is forked by markers has several."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line[:1].isalnum():
            found.setdefault(line.partition("==")[0], []).append(line.removesuffix("\\").strip())
    return found


def resolve(lock: Lock, *, scratch: Path, options: list[str]) -> None:
    """Write one file."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-annotate",
    ]
    command += ["--python-version", OLDEST_PYTHON, "--custom-compile-command", "make lock"]
    command += ["--universal"] if lock.pythons else ["--python-platform", "linux"]
    if lock.shared:
        developed = pins((PROJECT / LOCKS[0].file).read_text())
        names = developed if lock.shared == ("*",) else lock.shared
        constraints = scratch / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for name in names for line in developed[name]))
        command += ["--constraints", str(constraints)]
    if lock.without:
        excluded = scratch / "excluded.txt"
        excluded.write_text("".join(f"{name}\n" for name in lock.without))
        command += ["--excludes", str(excluded)]
    command += ["--output-file", lock.file, *lock.inputs, *options]
    subprocess.run(  # nosec B603 # our own resolver, with our own arguments
        command, cwd=PROJECT, input="tensorflow\n", text=True, check=True
    )


def main() -> None:
    """Write all of them."""
    (PROJECT / "requirements").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for lock in LOCKS:
            resolve(lock, scratch=Path(folder), options=sys.argv[1:])


if __name__ == "__main__":
    main()
