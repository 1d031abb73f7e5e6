"""The version of TensorFlow in a server, and whether an export is newer."""

from __future__ import annotations

import re

import msgspec

from servingrepo.errors import UsageError

__all__ = [
    "UNKNOWN_SERVER",
    "ExpectedServer",
    "Version",
    "of_image",
    "of_server",
    "parse_server_version",
    "server_of_image",
    "too_new",
]

_NUMBER = r"(?P<major>[0-9]+)\.(?P<minor>[0-9]+)"
_IN_TAG = re.compile(rf":v?{_NUMBER}(?![^-.@]*/)")
_LIBRARY = re.compile(rf"TensorFlow Library: {_NUMBER}")
_SERVER = re.compile(rf"TensorFlow ModelServer: {_NUMBER}")
_INSTALLED = re.compile(rf"TensorFlow {_NUMBER}")
_TYPED = re.compile(rf"v?{_NUMBER}(\.[0-9]+)?([-.].*)?")
_ANYWHERE = re.compile(_NUMBER)

_OFFICIAL = "tensorflow/serving"

Version = tuple[int, int]


class ExpectedServer(msgspec.Struct, frozen=True, kw_only=True):
    """The server that a version is for, as far as it is known before any server starts.

    Attributes:
        version: Its TensorFlow; None if it is not known.
        certain: Whether it has exactly the operations of that TensorFlow, so that a missing operation is sure to
            fail. The official images for CPUs have; others may have operations of their own.
    """

    version: Version | None = None
    certain: bool = False


UNKNOWN_SERVER = ExpectedServer()


def server_of_image(image: str) -> ExpectedServer:
    """Return the server in an image, by the image's name."""
    plain = image.partition("@")[0].removeprefix("docker.io/")
    repository, _, tag = plain.rpartition(":")
    official = repository == _OFFICIAL and "gpu" not in tag
    return ExpectedServer(version=of_image(image), certain=official)


def of_image(image: str) -> Version | None:
    """Return the version that an image's tag names, as tensorflow/serving's do: 2.19.1, 2.19.1-gpu."""
    return _found(_IN_TAG.search(image.partition("@")[0]))


def parse_server_version(text: str) -> Version:
    """Parse a version of TensorFlow Serving as people write it: 2.19, 2.19.1, 2.19.1-gpu.

    Raises:
        UsageError: The text is no such version.
    """
    version = _found(_TYPED.fullmatch(text))
    if version is None:
        raise UsageError(
            f"not a version of TensorFlow Serving: {text!r}", hint="give one such as 2.19.1"
        )
    return version


def of_server(text: str) -> Version | None:
    """Return the version of TensorFlow that a server says it has.

    tensorflow_model_server --version prints it in two lines (main.cc). The embedded server's is that of the package.
    """
    return _found(_LIBRARY.search(text) or _SERVER.search(text) or _INSTALLED.match(text))


def too_new(tensorflow: str, server: Version | None) -> str:
    """Return a note if an export is newer than the server; empty if it is not, or if a version is not known.

    Args:
        tensorflow: The version of TensorFlow in the export.
        server: The version of TensorFlow in the server.
    """
    export = _found(_ANYWHERE.match(tensorflow))
    if export is None or server is None or export <= server:
        return ""
    return (
        f"the export is newer than the server: TensorFlow {tensorflow} wrote it, and the server has "
        f"{server[0]}.{server[1]}, which may lack operations that it uses"
    )


def _found(match: re.Match[str] | None) -> Version | None:
    return (int(match["major"]), int(match["minor"])) if match is not None else None
