"""Which server a version is meant for, as far as that is known before any server starts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.servers.engines.server_versions import Version, of_image

if TYPE_CHECKING:
    from servingrepo.servers.engines.choice import Engine, EngineChoice

__all__ = ["UNKNOWN_TARGET", "Target", "target_of"]

_OFFICIAL = "tensorflow/serving"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server's TensorFlow, None where it is not known.

    `certain` says that the server has exactly the operations of that TensorFlow, so that what lacks there need
    not be tried: true of the official images for CPUs. Other images may have operations of their own.
    """

    version: Version | None = None
    certain: bool = False


UNKNOWN_TARGET = Target()


def target_of(engine: Engine | EngineChoice | None) -> Target:
    """Return the server that an engine will start, or that one would if it were asked to.

    Raises:
        EngineUnavailable: The engine's program or library is not installed.
    """
    from servingrepo.servers.engines.choice import EngineChoice

    if engine is None:
        return UNKNOWN_TARGET
    name = engine.name
    if isinstance(engine, EngineChoice):
        image = engine.image or ""
        if name == "docker" and not image:
            from servingrepo.servers.engines.docker import DEFAULT_IMAGE

            image = DEFAULT_IMAGE
        docker = name == "docker" or (name == "auto" and image != "")
    else:
        docker, image = name == "docker", getattr(engine, "image", "")
    if docker:
        return _of_image(image)
    if not isinstance(engine, EngineChoice):
        return Target(version=engine.expected_version())
    if name == "embedded":
        with suppress(EngineUnavailable):
            return Target(version=EmbeddedEngine().expected_version())
    return UNKNOWN_TARGET


def _of_image(image: str) -> Target:
    plain = image.partition("@")[0].removeprefix("docker.io/")
    repository, _, tag = plain.rpartition(":")
    official = repository == _OFFICIAL and "gpu" not in tag
    return Target(version=of_image(image), certain=official)
