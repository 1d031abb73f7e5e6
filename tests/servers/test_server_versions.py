"""Versions of TensorFlow from image tags and servers' output, and their order."""

from __future__ import annotations

import pytest

from servingrepo.servers.engines.server_versions import of_image, of_server, too_new


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("tensorflow/serving:2.19.1", (2, 19)),
        ("tensorflow/serving:2.8.0-gpu", (2, 8)),
        ("registry.example:5000/tf:2.10", (2, 10)),
        ("tensorflow/serving:2.19.1@sha256:00", (2, 19)),
        ("tensorflow/serving:latest", None),
        ("tensorflow/serving", None),
        ("127.0.0.1:5000/serving", None),
        ("sha256:2190", None),
    ],
)
def test_version_of_an_image_is_that_of_its_tag(
    image: str, version: tuple[int, int] | None
) -> None:
    assert of_image(image) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("TensorFlow ModelServer: 2.19.1-rc1+sha.f; TensorFlow Library: 2.18.0", (2, 18)),
        ("TensorFlow ModelServer: 2.8.0", (2, 8)),
        ("TensorFlow 2.21.0", (2, 21)),
        ("unknown version, image tensorflow/serving:2.8.0", None),
    ],
)
def test_version_of_a_server_is_its_librarys(text: str, version: tuple[int, int] | None) -> None:
    assert of_server(text) == version


@pytest.mark.parametrize(
    ("tensorflow", "server", "noted"),
    [
        ("2.19.1", (2, 18), True),
        ("2.10.0", (2, 9), True),
        ("2.9.0", (2, 10), False),
        ("2.19.3", (2, 19), False),
        ("", (2, 19), False),
        ("unknown", (2, 19), False),
        ("2.19.1", None, False),
    ],
)
def test_export_newer_than_the_server_is_noted(
    tensorflow: str, server: tuple[int, int] | None, noted: bool
) -> None:
    assert bool(too_new(tensorflow, server)) == noted
