"""Images: there or not, pulled only when asked for, and made for this machine or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import EngineUnavailable, ServerTimeout

if TYPE_CHECKING:
    from servingrepo.serving.deadline import Deadline
    from servingrepo.serving.docker_daemon import Daemon


class ImageFacts(msgspec.Struct, frozen=True):
    """An image on the daemon: what was asked for, and what names its content for ever."""

    name: str
    id: str
    digest: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name} ({self.digest or self.id})"


def find_image(
    daemon: Daemon, name: str, *, pull: bool, platform: str | None, deadline: Deadline
) -> ImageFacts:
    """Return an image that can run there.

    Raises:
        EngineUnavailable: It is not there and may not be pulled, cannot be pulled, or is for another machine.
        ServerTimeout: The pull did not end by the deadline.
    """
    from docker.errors import ImageNotFound

    try:
        image = daemon.client.images.get(name)
    except ImageNotFound as error:
        if not pull:
            raise EngineUnavailable(
                f"the image {name} is not on the Docker daemon at {daemon.url}",
                hint=f"docker pull {name}, or promote with --pull",
            ) from error
        _pull(daemon, name, platform=platform, deadline=deadline)
        image = daemon.client.images.get(name)
    facts = _facts(name, image)
    if platform is None and facts.architecture not in {"", daemon.architecture}:
        raise EngineUnavailable(
            f"the image {name} is for {facts.architecture}, but the Docker daemon runs on "
            f"{daemon.architecture}",
            hint=f"use an image for {daemon.architecture}, or --engine embedded; where emulation is set up, "
            f"--platform linux/{facts.architecture} tries it",
        )
    return facts


def _pull(daemon: Daemon, name: str, *, platform: str | None, deadline: Deadline) -> None:
    from docker.errors import APIError

    try:
        for event in daemon.client.api.pull(name, stream=True, decode=True, platform=platform):
            if "error" in event:
                raise EngineUnavailable(
                    f"the image {name} cannot be pulled: {event['error']}",
                    hint="is the name right, and does the daemon reach the registry?",
                )
            if deadline.passed:
                raise ServerTimeout(
                    f"the image {name} was not pulled within {deadline.seconds:.3g} s",
                    hint=f"docker pull {name} first, or give it longer with --timeout SECONDS",
                )
    except APIError as error:
        raise EngineUnavailable(
            f"the image {name} cannot be pulled: {error.explanation or error}",
            hint="is the name right, and does the daemon reach the registry?",
        ) from error


def _facts(name: str, image: Any) -> ImageFacts:
    digests = image.attrs.get("RepoDigests") or []
    return ImageFacts(
        name=name,
        id=image.id,
        digest=digests[0].partition("@")[2] if digests else "",
        architecture=image.attrs.get("Architecture", ""),
    )
