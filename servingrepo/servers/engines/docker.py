"""The docker engine: a TensorFlow Serving container for one version, and no container afterwards.

The code path is one for every image that speaks the official image's language: entrypoint, ports and flags of
tensorflow/serving. This module says what a user can choose and in which order things happen; the container
itself is in docker_container.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from servingrepo.errors import EngineUnavailable, ServingRepoError, UsageError
from servingrepo.servers.engines.container_options import ContainerOptions
from servingrepo.servers.engines.docker_container import Container
from servingrepo.servers.engines.docker_daemon import connect, daemon_errors, own_networks
from servingrepo.servers.engines.docker_files import write_config
from servingrepo.servers.engines.docker_images import find_image
from servingrepo.servers.engines.docker_reaping import reap, reap_left
from servingrepo.servers.engines.processes import RunningServer
from servingrepo.servers.engines.server_arguments import refuse_unknown_flags
from servingrepo.servers.engines.server_versions import of_image
from servingrepo.servers.sockets import server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.server_versions import Version

__all__ = ["DEFAULT_IMAGE", "DockerEngine", "reap"]

DEFAULT_IMAGE = "tensorflow/serving:2.19.1"
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?([bkmg]b?)?", re.IGNORECASE)
_GPUS = re.compile(r"all|[1-9][0-9]*")


class DockerEngine(ContainerOptions, frozen=True, kw_only=True):
    """A container for one version, run as its options say."""

    image: str = DEFAULT_IMAGE

    @property
    def name(self) -> str:
        """What records call this engine."""
        return "docker"

    def expected_version(self) -> Version | None:
        """Return the TensorFlow that the image's tag names."""
        return of_image(self.image)

    @contextmanager
    def serve(
        self, *, model: str, version: int, export: Path, deadline: Deadline, txid: str = ""
    ) -> Iterator[RunningServer]:
        """Serve `export` in a container as that version of the model, for the block.

        Whatever ends the block, the container is removed, and its log and exit code are part of the error.
        Where this process is killed, the next one that uses Docker removes it, or `reap` does.

        Raises:
            EngineUnavailable: There is no daemon, image, or permission; the image is for another machine, or is
                no TensorFlow Serving.
            LoadFailed: The server refused the model; the message has its own words.
            ServerDied: The container ended otherwise, or somebody removed it.
            ServerTimeout: The model was not loaded by the deadline, or the daemon is silent.
            NoSpace: The daemon has no room for the copy.
            UsageError: An option cannot be used, or the server does not know one of the arguments.
        """
        self._check()
        with (
            connect(deadline=deadline) as daemon,
            server_folder() as folder,
        ):
            reap_left(daemon)
            image = find_image(
                daemon, self.image, pull=self.pull, platform=self.platform, deadline=deadline
            )
            config, socket = write_config(folder, model=model, version=version)
            box = Container(
                self,
                daemon,
                image,
                networks=own_networks(daemon),
                model=model,
                version=version,
                deadline=deadline,
                txid=txid,
            )
            try:
                with daemon_errors(daemon.url):
                    box.create(export, config, socket)
                    endpoint = box.start()
                    if self.arguments:
                        refuse_unknown_flags(box.printed())
                    yield RunningServer(
                        endpoint=endpoint,
                        engine=self.name,
                        server=box.server_version(),
                        image=str(image),
                    )
            except ServingRepoError as error:
                failure = box.explained(error)
                failure.problems = (*failure.problems, *box.remove())
                if failure is error:
                    raise
                raise failure from error
            except BaseException:
                box.remove()
                raise
            if left := box.remove():
                raise EngineUnavailable(
                    left[0], hint="servingrepo recover, or docker rm -f, removes it"
                )

    def _check(self) -> None:
        """See that the options can be used, before anything is started.

        Raises:
            UsageError: One cannot.
        """
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise UsageError(
                f"--memory cannot be {self.memory!r}", hint="give it as docker takes it: 512m, 2g"
            )
        if self.gpus is not None and not _GPUS.fullmatch(self.gpus):
            raise UsageError(f"--gpus cannot be {self.gpus!r}", hint="give all or a number")
