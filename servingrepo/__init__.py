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
    from servingrepo.api import OpenRepository, init, open  # noqa: A004 - the API's verb
    from servingrepo.errors import ServingRepoError
    from servingrepo.serving.binary_engine import BinaryEngine
    from servingrepo.serving.docker_engine import DockerEngine
    from servingrepo.serving.embedded_engine import EmbeddedEngine
    from servingrepo.serving.security import Security
    from servingrepo.serving.states import Endpoint

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
    "init",
    "open",
]

_HOMES = {
    "BinaryEngine": "serving.binary_engine",
    "DockerEngine": "serving.docker_engine",
    "EmbeddedEngine": "serving.embedded_engine",
    "Endpoint": "serving.states",
    "OpenRepository": "api",
    "Security": "serving.security",
    "ServingRepoError": "errors",
    "init": "api",
    "open": "api",
}
__getattr__ = names_from(__name__, _HOMES)
