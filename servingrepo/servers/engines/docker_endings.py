"""Why a container ended before it served: from its exit code, its log, and what the daemon says of its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import EngineUnavailable, LoadFailed, ServerDied, ServingRepoError
from servingrepo.servers.engines.processes import why_it_ended

if TYPE_CHECKING:
    from servingrepo.servers.engines.docker_images import ImageFacts

__all__ = ["IMAGE_HINT", "KILLED", "why_container_ended"]

KILLED = 137
IMAGE_HINT = "give an image with tensorflow/serving's entrypoint, ports and flags"
_NOT_RUNNABLE = (126, 127)


def why_container_ended(
    code: int,
    *,
    out_of_memory: bool,
    log: str,
    what: str,
    image: ImageFacts,
    memory: str | None,
    architecture: str,
) -> ServingRepoError:
    """Return the error for a container that ended.

    Args:
        code: Its exit code.
        out_of_memory: Whether the daemon saw one of its processes killed for lack of memory.
        log: The end of its log.
        what: The model and version that it was for.
        image: What it was made from.
        memory: How much it was allowed.
        architecture: What the daemon's machine runs.
    """
    if out_of_memory:
        return ServerDied(
            f"the container ran out of memory while serving {what} (exit code {code})"
            + (f": it may have {memory}" if memory else ""),
            hint="give it more with --memory, or serve a smaller model",
        )
    if code == KILLED:
        return ServerDied(
            f"the container of {what} was killed (exit code {code}): by somebody, or because the machine ran out "
            "of memory",
            hint="look at the machine's memory and its kernel log, then try again",
        )
    if "exec format error" in log.lower():
        return EngineUnavailable(
            f"the image {image.name} is for {image.architecture or 'another machine'}, which the Docker daemon's "
            f"machine ({architecture}) cannot run (exit code {code})",
            hint=f"use an image for {architecture}, or set up emulation there",
        )
    if code in _NOT_RUNNABLE:
        return EngineUnavailable(
            f"the image {image.name} could not run its entrypoint (exit code {code})",
            hint=IMAGE_HINT,
        )
    error = why_it_ended(code, log, what)
    if not isinstance(error, LoadFailed) and (code == 0 or image.doubt):
        return EngineUnavailable(
            f"the container of {image.name} ended with code {code} without serving anything",
            hint=IMAGE_HINT,
            problems=[image.doubt] if image.doubt else (),
        )
    return error
