"""The two images of the project, built without a network from what this machine has.

Job: `build(image)` returns an image's name, and builds it if its sources have changed. Wheels come from pip as
this machine has it configured, TensorFlow from the environment that runs the tests; both are kept in a cache.
The base image comes from the script `prepare` in this folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import Marker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT = Path(__file__).resolve().parents[2]
BASE = "servingrepo-test-base:bookworm"
BASE_PYTHON = "3.11"
BUILD_SECONDS = 600
KEPT_IMAGES = 4
_INSTALLED = ("image", "build")
"""The files of requirements/ that the images install. TensorFlow comes from the environment."""

# Read once: during a test the environment has no settings of servingrepo's.
_GIVEN_CACHE = os.environ.get("SERVINGREPO_TESTS_CACHE")

_COMMON = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/image.txt",
    "requirements/tensorflow.txt",
    "servingrepo",
    "compose/install.sh",
    "compose/tensorflow_parts.py",
)


@dataclass(frozen=True)
class Image:
    """One image: its name without a tag, its Dockerfile, and what its build context holds of the project."""

    name: str
    dockerfile: str
    sources: tuple[str, ...]
    libraries: bool


OWN = Image(
    "servingrepo-test-own",
    "compose/Dockerfile",
    (*_COMMON, "compose/Dockerfile"),
    libraries=False,
)
STANDIN = Image(
    "servingrepo-test-standin",
    "compose/standin/Dockerfile",
    (*_COMMON, "compose/standin"),
    libraries=True,
)


class CannotBuild(RuntimeError):
    """An image could not be built; the message has the end of what was said."""


def build(image: Image) -> str:
    """Return the name of the image of today's sources; build it if there is none. Safe among processes."""
    with _one_at_a_time():
        base = _tensorflow_image() if image.libraries else BASE
        content = context(image.sources)
        digest = hashlib.sha256(content)
        digest.update(image.dockerfile.encode() + _run("image", "inspect", "-f", "{{.Id}}", base))
        name = f"{image.name}:{digest.hexdigest()[:16]}"
        if not _exists(name):
            prepared = {"prepared/wheels": wheels(), "prepared/tensorflow": message_modules()}
            archive = context(image.sources, prepared)
            arguments = ("--file", image.dockerfile, "--build-arg", f"BASE={base}", "-")
            # With a name, so that it stays when what else the old builder left behind is removed.
            kept = ("--target", "dependencies", "--tag", f"{image.name}-dependencies")
            _build(*kept, *arguments, context=archive)
            _build("--tag", name, *arguments, context=archive)
            _forget_older(image.name)
        return name


def cache() -> Path:
    """Return the folder for what is worth keeping between runs; it is outside of the project."""
    general = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(_GIVEN_CACHE or Path(general, "servingrepo-tests"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tensorflow_image() -> str:
    """Return the base with TensorFlow's libraries: a gigabyte, so it is made once per TensorFlow."""
    version = importlib.metadata.version("tensorflow")
    name = f"servingrepo-test-tensorflow:{version}"
    if not _exists(name):
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            _copy_parts(Path(folder, "tensorflow"), "--libraries")
            dockerfile = f"FROM {BASE}\nCOPY tensorflow /opt/tensorflow\n"
            Path(folder, "Dockerfile").write_text(dockerfile)
            _run("build", "--quiet", "--network", "none", "--tag", name, folder)
    return name


def wheels() -> Path:
    """Return a folder with the locked wheels that the images install, for the base image's Python."""
    locked = "".join(_for_base(PROJECT / "requirements" / f"{name}.txt") for name in _INSTALLED)
    key = hashlib.sha256((locked + BASE_PYTHON).encode()).hexdigest()[:16]
    folder = cache() / f"wheels-{key}"
    if not folder.is_dir():
        unfinished = Path(tempfile.mkdtemp(dir=cache()))
        requirements = unfinished / "requirements.txt"
        requirements.write_text(locked)
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        options += ["--python-version", BASE_PYTHON, "--dest", str(unfinished)]
        pip = [sys.executable, "-m", "pip", "download"]
        _checked([*pip, *options, "--requirement", str(requirements)])
        requirements.unlink()
        unfinished.rename(folder)
    return folder


def _for_base(lock: Path) -> str:
    """Return a lock's pins for the base image's Python: pip goes by the markers of the one that runs it."""
    kept = []
    taken = True
    environment = {"python_version": BASE_PYTHON, "python_full_version": f"{BASE_PYTHON}.0"}
    for line in lock.read_text().splitlines(keepends=True):
        if line[:1].isalnum():
            pin, _, marker = line.partition(" ; ")
            condition = marker.removesuffix("\\\n").strip()
            taken = not condition or Marker(condition).evaluate({**environment})
            kept += [f"{pin} \\\n"] if taken and condition else [line] * taken
        elif taken:
            kept.append(line)
    return "".join(kept)


def message_modules() -> Path:
    folder = cache() / f"messages-{importlib.metadata.version('tensorflow')}"
    if not folder.is_dir():
        unfinished = Path(tempfile.mkdtemp(dir=cache()))
        _copy_parts(unfinished)
        unfinished.rename(folder)
    return folder


def _copy_parts(target: Path, *options: str) -> None:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise CannotBuild("TensorFlow is not installed in the environment that runs the tests")
    site_packages = Path(spec.origin).parents[1]
    script = PROJECT / "compose" / "tensorflow_parts.py"
    target.mkdir(parents=True, exist_ok=True)
    _checked([sys.executable, str(script), *options, str(site_packages), str(target)])


def context(sources: Iterable[str], extra: dict[str, Path] | None = None) -> bytes:
    """Return a build context as a tar archive: equal bytes for equal files."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name in sources:
            _add(archive, PROJECT / name, name)
        for name, folder in (extra or {}).items():
            _add(archive, folder, name)
    return output.getvalue()


def _add(archive: tarfile.TarFile, place: Path, name: str) -> None:
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            inner = name if file == place else f"{name}/{file.relative_to(place)}"
            entry = tarfile.TarInfo(inner)
            entry.size = file.stat().st_size
            entry.mode = 0o755 if os.access(file, os.X_OK) else 0o644
            with file.open("rb") as content:
                archive.addfile(entry, content)


def _build(*options: str, context: bytes) -> None:
    # No network: this is how the images are made where nothing can be pulled.
    _run("build", "--network", "none", *options, stdin=context)


def _forget_older(repository: str) -> None:
    """Remove images of earlier sources, but the last few: other tests may be running on them."""
    listed = _run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
    for name in listed.decode().split()[KEPT_IMAGES:]:
        subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)
    _run("image", "prune", "--force", "--filter", "label=servingrepo.stage=build")


def _exists(name: str) -> bool:
    command = ["docker", "image", "inspect", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*arguments: str, stdin: bytes = b"") -> bytes:
    return _checked(["docker", *arguments], stdin=stdin)


def _checked(command: list[str], *, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        command, input=stdin, capture_output=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").splitlines()[-30:]
        raise CannotBuild(f"{shutil.which(command[0])} {command[1:6]} failed:\n" + "\n".join(said))
    return done.stdout


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
