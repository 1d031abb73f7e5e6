"""Trees, configs and compose files for the tests of doctor, and what it finds there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import servingrepo
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.verbs.doctor import Examination
    from servingrepo.verbs.doctor_rules import Finding

COMPOSE = """
services:
  app:
    image: example/app
  serving:
    image: tensorflow/serving:2.19.1
    init: true
    command:
      - --model_config_file=/models/models.config
      - --allow_version_labels_for_unavailable_models=true
      - --max_num_load_retries=0
      - --num_load_threads=1
    volumes:
      - ./models:/models:ro
"""
"""How a server should be started: doctor has nothing against it."""


def export(path: Path, **options: Any) -> Path:
    """Write a small SavedModel with variables."""
    return write_export(path, variables=True, **options)


def models(root: Path, *, config: bool = True) -> Path:
    """Return the models directory of a root with two good versions of `half`, of which 2 is pinned."""
    shelf = root / "models"
    for version in (1, 2):
        export(shelf / "half" / str(version), offset=float(version))
    if config:
        configure(shelf, entry("half", "specific { versions: 2 }"))
    return shelf


def entry(
    name: str, policy: str = "", *, base_path: str = "", labels: str = "", more: str = ""
) -> str:
    """Return an entry of a config."""
    pins = f" model_version_policy {{ {policy} }}" if policy else ""
    platform = (
        "" if "model_platform" in more or "model_type" in more else ' model_platform: "tensorflow"'
    )
    return (
        f'  config {{ name: "{name}" base_path: "{base_path or f"/models/{name}"}"{platform}{pins} {labels} '
        f"{more} }}\n"
    )


def configure(shelf: Path, *entries: str) -> Path:
    """Write models.config."""
    shelf.mkdir(parents=True, exist_ok=True)
    file = shelf / "models.config"
    file.write_text(f"model_config_list {{\n{''.join(entries)}}}\n")
    return file


def compose(root: Path, text: str = COMPOSE, *, without: str = "", more: str = "") -> Path:
    """Write a compose file, without the lines that have a text, and with more of the service at its end."""
    lines = [line for line in text.splitlines() if not without or without not in line]
    file = root / "docker-compose.yml"
    file.write_text("\n".join(lines) + f"\n{more}")
    return file


def examine(place: Path, **options: Any) -> Examination:
    """Let doctor examine a place."""
    return servingrepo.doctor(place, **options)


def slugs(found: Examination) -> list[str]:
    """Return the slugs of what is wrong, notes left out, each once."""
    return list(dict.fromkeys(one.slug for one in found.findings if one.severity != "note"))


def the(found: Examination, slug: str) -> Finding:
    """Return the one finding of a rule."""
    (one,) = (each for each in found.findings if each.slug == slug)
    return one
