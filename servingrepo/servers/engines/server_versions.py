"""Versions of TensorFlow: which one a server has, and whether an export is newer."""

from __future__ import annotations

import re

from servingrepo.errors import UsageError

__all__ = ["Version", "of_image", "of_server", "parse_server_version", "too_new"]

_NUMBER = r"(?P<major>[0-9]+)\.(?P<minor>[0-9]+)"
_IN_TAG = re.compile(rf":v?{_NUMBER}(?![^-.@]*/)")
_LIBRARY = re.compile(rf"TensorFlow Library: {_NUMBER}")
_SERVER = re.compile(rf"TensorFlow ModelServer: {_NUMBER}")
_INSTALLED = re.compile(rf"TensorFlow {_NUMBER}")
_TYPED = re.compile(rf"v?{_NUMBER}(\.[0-9]+)?([-.].*)?")
_ANYWHERE = re.compile(_NUMBER)

Version = tuple[int, int]


def of_image(image: str) -> Version | None:
    """Return the version that an image's tag names, as tensorflow/serving's do: 2.19.1, 2.19.1-gpu."""
    return _found(_IN_TAG.search(image.partition("@")[0]))


def parse_server_version(text: str) -> Version:
    """Read a TensorFlow Serving's version as people write it: 2.19, 2.19.1, 2.19.1-gpu.

    Raises:
        UsageError: It is none.
    """
    version = _found(_TYPED.fullmatch(text))
    if version is None:
        raise UsageError(
            f"not a version of TensorFlow Serving: {text!r}", hint="give one such as 2.19.1"
        )
    return version


def of_server(text: str) -> Version | None:
    """Return the version of TensorFlow that a server says it has.

    tensorflow_model_server --version says it in two lines (main.cc), the embedded server as the package is named.
    """
    return _found(_LIBRARY.search(text) or _SERVER.search(text) or _INSTALLED.match(text))


def too_new(tensorflow: str, server: Version | None) -> str:
    """Return a note if an export is newer than the server; empty if it is not, or nothing is known.

    Args:
        tensorflow: The TensorFlow that wrote the export, in its own words.
        server: The server's.
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
