"""servingrepo: promote, prove, serve and roll back SavedModels in a TensorFlow Serving model repository.

    import servingrepo

    repo = servingrepo.open("/srv/serving")
    release = repo.promote("runs/2026_05_10_baseline", model="ranker")
    repo.rollback("ranker", endpoints=["localhost:8500"])
    assert repo.verify("ranker@served")[0].ok

The command line has the same verbs. Nothing in the library prints, and importing it starts nothing: names
are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository, doctor, init, open  # noqa: A004 - the API's verb
    from servingrepo.errors import ServingRepoError
    from servingrepo.servers.engines.binary import BinaryEngine
    from servingrepo.servers.engines.docker import DockerEngine
    from servingrepo.servers.engines.embedded import EmbeddedEngine
    from servingrepo.servers.security import Security
    from servingrepo.servers.states import Endpoint

__version__ = "0.1.0"

__all__ = [
    "BinaryEngine",
    "DockerEngine",
    "EmbeddedEngine",
    "Endpoint",
    "OpenRepository",
    "Security",
    "ServingRepoError",
    "__version__",
    "doctor",
    "init",
    "open",
]

_HOMES = {
    "BinaryEngine": "servers.engines.binary",
    "DockerEngine": "servers.engines.docker",
    "EmbeddedEngine": "servers.engines.embedded",
    "Endpoint": "servers.states",
    "OpenRepository": "api",
    "Security": "servers.security",
    "ServingRepoError": "errors",
    "doctor": "api",
    "init": "api",
    "open": "api",
}
__getattr__ = names_from(__name__, _HOMES)
