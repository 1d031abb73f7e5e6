"""Images on the daemon: it finds them, pulls them if allowed, and checks that they fit the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import EngineUnavailable, ServerTimeout
from servingrepo.servers.engines.docker_daemon import is_silence, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.docker_daemon import Daemon

__all__ = ["GRPC_PORT", "ImageFacts", "find_image"]

GRPC_PORT = "8500/tcp"


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image on the daemon.

    Attributes:
        name: The user's name for it.
        id: Its id, which names its content.
        digest: Its digest in the registry; empty for an image from this machine.
        architecture: Its architecture; empty if it has none.
        exposes_grpc: Whether it exposes the gRPC port of TensorFlow Serving.
    """

    name: str
    id: str
    digest: str
    architecture: str
    exposes_grpc: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.digest or self.id})"

    @property
    def doubt(self) -> str:
        """The reason to doubt that it is a TensorFlow Serving; empty without doubt."""
        why = f"the image {self.name} exposes no port 8500: it is most likely no TensorFlow Serving"
        return "" if self.exposes_grpc else why


def find_image(
    daemon: Daemon, name: str, *, pull: bool, platform: str | None, deadline: Deadline
) -> ImageFacts:
    """Return an image that can run on the daemon's machine.

    Raises:
        EngineUnavailable: The image is missing, cannot be pulled, or is for another machine.
        ServerTimeout: The pull did not end by the deadline.
    """
    from docker.errors import ImageNotFound

    daemon.allow(deadline.left)
    try:
        attributes = daemon.client.api.inspect_image(name)
    except ImageNotFound as error:
        if not pull:
            raise EngineUnavailable(
                f"the image {name} is not on the Docker daemon at {daemon.url}",
                hint=f"docker pull {name}, or give --pull",
            ) from error
        _pull(daemon, name, platform=platform, deadline=deadline)
        attributes = daemon.client.api.inspect_image(name)
    facts = _facts(name, attributes)
    _check_platform(daemon, facts, platform)
    return facts


def _check_platform(daemon: Daemon, facts: ImageFacts, platform: str | None) -> None:
    """Check that the image is for the machine, or for the user's platform.

    Raises:
        EngineUnavailable: It is not.
    """
    if not facts.architecture:
        return
    if platform is not None:
        # linux/arm64/v8: the variant does not matter.
        wanted = platform.split("/")[1] if "/" in platform else platform
        if wanted not in {facts.architecture, "linux"}:
            raise EngineUnavailable(
                f"the image {facts.name} is for {facts.architecture}, not for {platform}",
                hint=f"docker pull --platform {platform} {facts.name}, or leave --platform out",
            )
    elif facts.architecture != daemon.architecture:
        raise EngineUnavailable(
            f"the image {facts.name} is for {facts.architecture}, but the Docker daemon runs on "
            f"{daemon.architecture}",
            hint=f"use an image for {daemon.architecture}, or --engine embedded; where emulation is set up, "
            f"--platform linux/{facts.architecture} tries it",
        )


def _pull(daemon: Daemon, name: str, *, platform: str | None, deadline: Deadline) -> None:
    from docker.errors import APIError
    from requests.exceptions import RequestException

    too_long = ServerTimeout(
        f"the image {name} was not pulled within {deadline.seconds:.3g} s",
        hint=f"docker pull {name} first, or give it longer with --timeout SECONDS; does the registry answer?",
    )
    try:
        for event in _pull_events(daemon, name, platform=platform, seconds=deadline.left):
            if "error" in event:
                raise _cannot_pull(name, event["error"], daemon)
            if deadline.passed:
                raise too_long
    except APIError as error:
        raise _cannot_pull(name, text_of(error), daemon) from error
    except RequestException as error:
        if is_silence(error):
            raise too_long from error
        raise


def _pull_events(
    daemon: Daemon, name: str, *, platform: str | None, seconds: float
) -> Iterator[dict[str, Any]]:
    """Pull an image and yield the daemon's events. `seconds` is the time-out of each.

    The SDK's own pull has no time-out. The daemon stops the pull with the end of the connection.
    """
    from docker.auth import get_config_header, resolve_repository_name
    from docker.errors import create_api_error_from_http_exception
    from requests.exceptions import HTTPError

    api = daemon.client.api
    # The daemon takes a name without a tag for all tags.
    named = name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"
    credentials = get_config_header(api, resolve_repository_name(name)[0])
    with api.post(
        f"{api.base_url}/v{api.api_version}/images/create",
        params={"fromImage": named, **({"platform": platform} if platform else {})},
        headers={"X-Registry-Auth": credentials} if credentials else {},
        stream=True,
        timeout=max(1.0, seconds),
    ) as answer:
        try:
            answer.raise_for_status()
        except HTTPError as error:
            create_api_error_from_http_exception(error)
        for line in answer.iter_lines():
            if line.strip():
                yield json.loads(line)


def _cannot_pull(name: str, text: str, daemon: Daemon) -> EngineUnavailable:
    why, hint = "cannot be pulled", "is the name right, and does the daemon reach the registry?"
    if "no matching manifest" in text:
        why = f"does not exist for {daemon.architecture}"
        hint = f"use an image for {daemon.architecture}, or --engine embedded"
    return EngineUnavailable(f"the image {name} {why}: {text}", hint=hint)


def _facts(name: str, attributes: dict[str, Any]) -> ImageFacts:
    digests = attributes.get("RepoDigests") or []
    exposed = (attributes.get("Config") or {}).get("ExposedPorts") or {}
    return ImageFacts(
        name=name,
        id=attributes["Id"],
        digest=digests[0].partition("@")[2] if digests else "",
        architecture=attributes.get("Architecture", ""),
        exposes_grpc=GRPC_PORT in exposed,
    )
