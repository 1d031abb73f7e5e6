"""The embedded engine: servingrepo's own server in a child process, with TensorFlow in that child only."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from servingrepo.children import python
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.processes import RunningServer, serve_process
from servingrepo.servers.engines.server_versions import of_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.server_versions import Version


class EmbeddedEngine(msgspec.Struct, frozen=True):
    """servingrepo's own server, for machines without Docker or a tensorflow_model_server."""

    python: str = sys.executable

    @property
    def name(self) -> str:
        """What records call this engine."""
        return "embedded"

    def expected_version(self) -> Version | None:
        """Return the TensorFlow that is installed here.

        Raises:
            EngineUnavailable: TensorFlow is not installed, or only its message classes.
        """
        return of_server(installed_version())

    @contextmanager
    def serve(
        self, *, model: str, version: int, export: Path, deadline: Deadline, txid: str = ""
    ) -> Iterator[RunningServer]:
        """Serve `export` as that version of the model on a socket that only we can reach, for the block.

        The server ends with this process, however that ends; `txid` has no use here.

        Raises:
            EngineUnavailable: TensorFlow is not installed.
            LoadFailed: The server refused the model; the message has its own words.
            ServerDied: The server ended otherwise; the error has its last log lines.
            ServerTimeout: The model was not loaded by the deadline.
        """
        del txid
        with serve_process(
            self._command,
            engine=self.name,
            server=installed_version(),
            model=model,
            version=version,
            export=export,
            deadline=deadline,
        ) as running:
            yield running

    def _command(self, socket: Path, config: Path) -> list[str]:
        return [
            *python("servingrepo.embedded", interpreter=self.python),
            f"--grpc_socket_path={socket}",
            "--port=0",
            f"--model_config_file={config}",
            "--max_num_load_retries=0",
            "--allow_version_labels_for_unavailable_models=true",
            f"--exit_with_parent={os.getpid()}",
        ]


def installed_version() -> str:
    """Say which TensorFlow the server has, without starting it.

    Raises:
        EngineUnavailable: TensorFlow is not installed, or only its message classes.
    """
    try:
        return f"TensorFlow {importlib.metadata.version('tensorflow')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineUnavailable(
            "the embedded engine needs TensorFlow, which is not installed here",
            hint="pip install tensorflow, or promote with --no-smoke (the record will say so)",
        ) from error
