"""Trees of models as people have them before they know servingrepo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.testing.exports import write_export
from tests.support import new_repository

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from servingrepo.api import OpenRepository


def versions(base: Path, *names: str | int) -> Path:
    """Write a version of each name below a base path: version N answers 0.5 * x + N."""
    for number, name in enumerate(names, start=1):
        write_export(base / str(name), offset=float(number), variables=True)
    return base


def entry(root: Path, name: str, rest: str = "", *, base_path: str | None = None) -> str:
    """Return an entry of models.config, as a person writes it."""
    path = base_path if base_path is not None else f"{root}/models/{name}"
    platform = "" if "model_platform" in rest else 'model_platform: "tensorflow"'
    return f'  config {{ name: "{name}" base_path: "{path}" {platform} {rest} }}\n'


def pins(*numbers: int) -> str:
    """Return a policy that pins versions."""
    listed = " ".join(f"versions: {one}" for one in numbers)
    return f"model_version_policy {{ specific {{ {listed} }} }}"


def write_config(root: Path, *entries: str) -> str:
    """Write a models.config by hand; return its text."""
    text = "# our models\nmodel_config_list {\n" + "".join(entries) + "}\n"
    (root / "models").mkdir(parents=True, exist_ok=True)
    (root / "models" / "models.config").write_text(text)
    return text


def taken(root: Path, *entries: str) -> OpenRepository:
    """Make a root with a models.config by hand a repository."""
    write_config(root, *entries)
    return new_repository(root)


def facts(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return what stat says of everything below the models directory, but of models.config."""
    return {
        path.relative_to(root).as_posix(): (one.st_ino, one.st_mode, one.st_mtime_ns, one.st_size)
        for path in _sorted((root / "models").rglob("*"))
        if path.name != "models.config"
        for one in (path.lstat(),)
    }


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths)
