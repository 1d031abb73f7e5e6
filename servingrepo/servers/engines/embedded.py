"""The embedded engine: servingrepo's own server in a child process. Only that has TensorFlow."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from servingrepo.children import python
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.processes import serve_process
from servingrepo.servers.engines.server_versions import of_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.processes import Beside, RunningServer
    from servingrepo.servers.engines.server_versions import Version


class EmbeddedEngine(msgspec.Struct, frozen=True):
    """servingrepo's own server, for machines without Docker or a tensorflow_model_server."""

    python: str = sys.executable

    @property
    def name(self) -> str:
        """Its name in records."""
        return "embedded"

    def expected_version(self) -> Version | None:
        """Return the installed version of TensorFlow.

        Raises:
            EngineUnavailable: TensorFlow is not installed, or only its message classes.
        """
        return of_server(installed_version())

    def serve(
        self,
        *,
        model: str,
        version: int,
        export: Path,
        deadline: Deadline,
        txid: str = "",
        beside: Beside | None = None,
    ) -> AbstractContextManager[RunningServer]:
        """Serve `export` as that version of the model on a socket that only we can reach, for the block.

        The server ends with this process, however that ends.

        Raises:
            EngineUnavailable: TensorFlow is not installed.
            LoadFailed, ServerDied, ServerTimeout: As of `serve_process`.
        """
        del txid
        return serve_process(
            python("servingrepo.embedded", interpreter=self.python),
            arguments=[f"--exit_with_parent={os.getpid()}"],
            engine=self.name,
            server=installed_version(),
            model=model,
            version=version,
            export=export,
            deadline=deadline,
            beside=beside,
        )


def installed_version() -> str:
    """Return the installed version of TensorFlow, which the server will have.

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
