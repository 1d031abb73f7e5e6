"""The Docker fixtures."""

from tests.docker.fixtures import compose_plugin, docker_daemon, own_image, standin_image

__all__ = ["compose_plugin", "docker_daemon", "own_image", "standin_image"]
