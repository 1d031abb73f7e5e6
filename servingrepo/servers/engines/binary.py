"""The binary engine: a tensorflow_model_server of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.children import die_with, environment
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.engines.options import refuse_engine_flags
from servingrepo.servers.engines.processes import serve_process
from servingrepo.servers.engines.server_versions import of_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.processes import Beside, RunningServer
    from servingrepo.servers.engines.server_versions import Version

BINARY = "tensorflow_model_server"
_VERSION_SECONDS = 30


class BinaryEngine(msgspec.Struct, frozen=True):
    """A server binary with tensorflow_model_server's flags: a path, or a name on PATH."""

    path: str = BINARY
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse flags that engines set."""
        refuse_engine_flags(self.arguments)

    @property
    def name(self) -> str:
        """Its name in records."""
        return "binary"

    def expected_version(self) -> Version | None:
        """Return the version of TensorFlow that the binary prints.

        Raises:
            EngineUnavailable: There is no such binary, or it is no TensorFlow Serving.
        """
        return of_server(binary_version(find_binary(self.path)))

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
        """Serve `export` as that version of the model, for the block, on a socket that only we can reach.

        Raises:
            EngineUnavailable: There is no such binary, or it is no TensorFlow Serving.
            LoadFailed, ServerDied, ServerTimeout: As of `serve_process`.
            UsageError: The server does not know an argument.
        """
        del txid
        binary = find_binary(self.path)
        return serve_process(
            [binary],
            arguments=self.arguments,
            engine=self.name,
            server=binary_version(binary),
            model=model,
            version=version,
            export=export,
            deadline=deadline,
            beside=beside,
            prepare=partial(die_with, os.getpid()),
        )


def find_binary(path: str) -> str:
    """Return the binary's full path, because it starts in another directory.

    Raises:
        EngineUnavailable: There is no such program.
    """
    found = shutil.which(path)
    if found is None:
        raise EngineUnavailable(
            f"there is no {path} that can be run",
            hint="give its path, --engine binary:/usr/bin/tensorflow_model_server, or use another engine",
        )
    return str(Path(found).absolute())


def binary_version(binary: str) -> str:
    """Return the version that a server binary prints, in two lines (main.cc).

    Raises:
        EngineUnavailable: It does not answer like a TensorFlow Serving.
    """
    try:
        done = subprocess.run(  # nosec B603 # the server's binary that the user names
            [binary, "--version"],
            cwd="/",
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(
            f"{binary} --version does not answer: {error}", hint="is it a tensorflow_model_server?"
        ) from error
    lines = [line.strip() for line in done.stdout.splitlines() if "TensorFlow" in line]
    if done.returncode != 0 or not lines:
        raise EngineUnavailable(
            f"{binary} --version does not answer like a tensorflow_model_server",
            hint="give the path of TensorFlow Serving's server",
        )
    return "; ".join(lines)
