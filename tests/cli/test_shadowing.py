"""Commands that are typed in a run whose files are called like modules of Python, of libraries and of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import pytest

from servingrepo.children import environment
from tests.cli.test_hung_mounts import mounted
from tests.support import Outcome, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.tf, pytest.mark.timeout(180)]

SCRIPT = Path(sys.executable).with_name("servingrepo")
LIBRARIES = (
    *("absl", "blake3", "click", "docker", "farmhash", "google", "google_crc32c", "grpc", "h5py"),
    *("keras", "msgspec", "numpy", "requests", "servingrepo", "tensorflow", "tensorflow_serving"),
    *("sitecustomize", "usercustomize", "yaml"),
)


def shadow(run: Path, *, but: frozenset[str] = frozenset()) -> Path:
    """Fill a run with modules that leave a mark when they are imported; return where."""
    mark = run.parent / "imported"
    text = f"with open({str(mark)!r}, 'a') as mark: mark.write(__name__ + '\\n')\n"
    for name in sys.stdlib_module_names - but:
        (run / f"{name}.py").write_text(text)
    for name in set(LIBRARIES) - but:
        (run / name).mkdir(exist_ok=True)
        (run / name / "__init__.py").write_text(text)
    return mark


def typed_in(run: Path, *command: str | Path) -> Outcome:
    done = subprocess.run(
        [str(one) for one in command],
        cwd=run,
        env={**os.environ, "SERVINGREPO_ROOT": str(run.parent / "serving")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_with(tmp_path / "run", offset=2.0)
    new_repository(tmp_path / "serving")
    return tmp_path / "run"


def by_a_script(run: Path) -> list[str | Path]:
    """Smoke-test with a tensorflow_model_server that is a Python program."""
    path = run.parent / "tensorflow_model_server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m servingrepo run-server "$@"\n')
    path.chmod(0o755)
    return ["smoke", ".", "--engine", f"binary:../{path.name}"]


def an_export(run: Path) -> list[str | Path]:
    """Export a model that Keras itself refuses, after all of its modules were imported."""
    with h5py.File(run / "model.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    return ["export", "model.h5", "--output", "made"]


COMMANDS: dict[str, tuple[int, Callable[[Path], list[str | Path]]]] = {
    "promote": (0, lambda _: ["promote", ".", "--model", "half", "--engine", "embedded"]),
    "smoke": (0, lambda _: ["smoke", ".", "--engine", "embedded"]),
    "a-script": (0, by_a_script),
    "export": (23, an_export),
    "run-server": (0, lambda _: ["run-server", "--version"]),
    "hooks": (0, lambda _: ["promote", ".", "--model", "half", "--no-smoke", "--before", "pwd"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_imported_from_where_a_command_is_typed(run: Path, name: str) -> None:
    code, arguments = COMMANDS[name]
    command = [SCRIPT, *arguments(run)]
    mark = shadow(run)
    done = typed_in(run, *command)
    assert not mark.exists(), mark.read_text()
    assert done.code == code, done.out + done.err


def test_nothing_is_imported_from_a_run_on_a_network_mount(run: Path, tmp_path: Path) -> None:
    mark = shadow(run)
    with mounted(run, tmp_path / "mnt"):
        done = typed_in(tmp_path / "mnt", SCRIPT, "scan", ".")
    assert not mark.exists(), mark.read_text()
    assert done.code == 0, done.err


def test_what_python_imports_after_it_found_us_is_not_from_the_run(run: Path) -> None:
    """`python -m` itself trusts its directory; that goes as far as Python has come before it runs our first line."""
    code = "import sys; sys.path[:] = []; print(*sys.modules)"
    early = subprocess.run(
        [sys.executable, "-c", f"import servingrepo, runpy, pkgutil; {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    mark = shadow(run, but=frozenset(early))
    done = typed_in(run, sys.executable, "-m", "servingrepo", "smoke", ".", "--engine", "embedded")
    assert not mark.exists(), mark.read_text()
    assert done.code == 0, done.err


def test_children_find_what_pythonpath_names_from_their_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "libraries", "/opt/more", ""]))
    assert environment()["PYTHONPATH"] == f"{tmp_path}/libraries{os.pathsep}/opt/more"
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in environment()
