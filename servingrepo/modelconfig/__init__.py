"""The model_config value: read, edit, check and render what `models.config` says.

Text in, text out. This room touches no disk and no server: facts about the disk come as arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.lazy import names_from
from servingrepo.modelconfig.names import (
    CONFIG_FILE,
    MAX_VERSION,
    check_label,
    check_name,
    is_label,
    is_model_name,
    names_by_version,
    parse_version,
    version_of_entry,
)
from servingrepo.modelconfig.stamp import Stamp, read_stamp, stamp
from servingrepo.modelconfig.value import (
    EMPTY,
    Entry,
    ModelConfig,
    decode,
    diff,
    entry,
    how_to_write,
    models,
    parse,
    render,
    to_proto,
)

if TYPE_CHECKING:
    from servingrepo.modelconfig.checks import check, check_numbers
    from servingrepo.modelconfig.disk import DiskFacts, EntryKind
    from servingrepo.modelconfig.edits import drop, move, pin
    from servingrepo.modelconfig.findings import Finding
    from servingrepo.modelconfig.paths import same_base_path

__all__ = [
    "CONFIG_FILE",
    "EMPTY",
    "MAX_VERSION",
    "DiskFacts",
    "Entry",
    "EntryKind",
    "Finding",
    "ModelConfig",
    "Stamp",
    "check",
    "check_label",
    "check_name",
    "check_numbers",
    "decode",
    "diff",
    "drop",
    "entry",
    "how_to_write",
    "is_label",
    "is_model_name",
    "models",
    "move",
    "names_by_version",
    "parse",
    "parse_version",
    "pin",
    "read_stamp",
    "render",
    "same_base_path",
    "stamp",
    "to_proto",
    "version_of_entry",
]

_HOMES = {
    "DiskFacts": "disk",
    "EntryKind": "disk",
    "Finding": "findings",
    "check": "checks",
    "check_numbers": "checks",
    "drop": "edits",
    "move": "edits",
    "pin": "edits",
    "same_base_path": "paths",
}

# Values cost nothing to import; what parses, checks or talks is imported when it is asked for.
__getattr__ = names_from(__name__, _HOMES)
