"""What is installed is what requirements/ locks, and that fits pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import LOCKS

PROJECT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
NAMES = [lock.name for lock in LOCKS]
PYTHONS = {lock.name: ("3.11", "3.12", "3.13") if lock.pythons else ("3.11",) for lock in LOCKS}

PIN = re.compile(r"[a-z0-9][a-z0-9-]*==[^ =;]+( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def group(name: str) -> list[str]:
    """Return a dependency group with what it includes."""
    found: list[str] = []
    for one in PYPROJECT["dependency-groups"][name]:
        found += group(one["include-group"]) if isinstance(one, dict) else [one]
    return found


def wanted(name: str) -> list[Requirement]:
    """Return what pyproject.toml asks for of a file's packages."""
    needed = PYPROJECT["project"]["dependencies"]
    if name == "dev":
        return [Requirement(one) for one in [*needed, *group("dev")]]
    if name in {"image", "tensorflow"}:
        parts = [Requirement(one) for one in needed]
        return [one for one in parts if (one.name == "tensorflow") is (name == "tensorflow")]
    return [Requirement(one) for one in group(name)]


def lines(name: str) -> list[str]:
    text = (PROJECT / "requirements" / f"{name}.txt").read_text()
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def pinned(name: str, python: str) -> dict[str, str]:
    """Return the version of each package that pip installs from a file on Linux with a Python."""
    environment: dict[str, Any] = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
    }
    found: dict[str, str] = {}
    for line in lines(name):
        if not line.startswith(" "):
            pin = Requirement(line.removesuffix("\\"))
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in found, f"{name}.txt pins {pin.name} twice on {python}"
                found[pin.name] = str(pin.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_lock_holds_every_dependency_within_its_bounds(name: str) -> None:
    for python in PYTHONS[name]:
        found = pinned(name, python)
        for one in wanted(name):
            if one.marker is None or one.marker.evaluate({"python_version": python}):
                version = found.get(canonicalize_name(one.name))
                assert version is not None, f"{name}.txt has no {one.name}: make lock"
                assert one.specifier.contains(version), (
                    f"{name}.txt: {one.name} {version}: make lock"
                )


@pytest.mark.parametrize("name", NAMES)
def test_lock_has_hashed_pins_and_names_no_index(name: str) -> None:
    hashed = True
    for line in lines(name):
        if line.startswith(" "):
            assert HASH.fullmatch(line), line
            hashed = True
        else:
            assert hashed, f"the pin before {line} has no hash"
            assert PIN.fullmatch(line), line
            hashed = False
    assert hashed


@pytest.mark.parametrize("name", ["build", "image", "tensorflow", "bench", "fuzz", "mlflow"])
def test_what_shares_an_environment_has_one_version(name: str) -> None:
    for python in PYTHONS[name]:
        developed = pinned("dev", python)
        for package, version in pinned(name, python).items():
            assert developed.get(package, version) == version, package


def test_build_is_locked_with_what_it_requires() -> None:
    assert group("build") == PYPROJECT["build-system"]["requires"]


def test_every_file_of_requirements_is_one_that_make_lock_writes() -> None:
    assert {path.stem for path in (PROJECT / "requirements").iterdir()} == set(NAMES)
