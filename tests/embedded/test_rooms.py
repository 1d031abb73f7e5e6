"""The state machine knows neither TensorFlow nor gRPC nor HTTP nor protobuf."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import servingrepo.embedded

PACKAGE = "servingrepo.embedded"
FOLDER = Path(servingrepo.embedded.__file__).parent
NETWORK = {"http", "socket", "socketserver", "ssl", "urllib"}
ALLOWED_OUTSIDE = (sys.stdlib_module_names | {"msgspec"}) - NETWORK
PURE = [
    "config",
    "core",
    "harness",
    "manager",
    "policy",
    "runtime",
    "serving_map",
    "source",
    "states",
    "status",
    "versions",
]


@pytest.mark.parametrize("module", PURE)
def test_state_machine_imports_only_itself(module: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    imported = [
        name
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    allowed = {f"{PACKAGE}.{one}" for one in PURE}
    foreign = [
        name
        for name in imported
        if name.split(".")[0] not in ALLOWED_OUTSIDE and name not in allowed
    ]
    assert foreign == []


def test_server_module_opens_no_tensorflow_library() -> None:
    code = (
        f"import sys, {PACKAGE}.server; "
        "maps = open('/proc/self/maps').read(); "
        "sys.exit('libtensorflow' in maps or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
