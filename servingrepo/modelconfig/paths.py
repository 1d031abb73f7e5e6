"""What tensorflow_model_server, as it is published, takes: base paths, platforms, and flags at its start."""

from __future__ import annotations

import posixpath
import re

__all__ = [
    "LABELS_FLAG",
    "PLATFORM",
    "START_FLAGS",
    "WITHOUT_LABELS_FLAG",
    "same_base_path",
    "why_not_a_base_path",
]

PLATFORM = "tensorflow"
"""The only platform of the stock binary (model_servers/platform_config_util.cc)."""

_URI = re.compile(r"(?P<scheme>[A-Za-z][0-9A-Za-z.]*)://")
_SCHEMES = {"file", "gs", "ram"}
_SCHEMES_GONE = {"s3", "hdfs", "viewfs", "har"}


def why_not_a_base_path(base_path: str) -> tuple[str, str] | None:
    """Say why the server would refuse a base path or never find it, and what to do; None if it is fine.

    The server itself checks only that the path is absolute or a URI (server_core.cc). Its file systems are
    the local one and gs://; with another scheme it finds nothing there, and so for no other model either.
    """
    write = "write the absolute path of the model's directory as the server sees it"
    uri = _URI.match(base_path)
    if not base_path:
        return "is empty", write
    if uri is not None and uri["scheme"] not in _SCHEMES:
        gone = uri["scheme"] in _SCHEMES_GONE
        why = "no longer has" if gone else "does not have"
        return f"has the scheme {uri[0]}, which the published server {why}", write
    if base_path.startswith("~"):
        return "begins with ~, which the server does not expand", write
    if uri is None and not base_path.startswith("/"):
        return "is not absolute", write
    return None


def same_base_path(base_path: str) -> str:
    """Return the form in which two spellings of one base path are equal: `/models/a/` and `/models//a`."""
    uri = _URI.match(base_path)
    scheme = uri[0] if uri is not None else ""
    path = base_path[len(scheme) :]
    return ("" if scheme == "file://" else scheme) + (
        "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else path.rstrip("/")
    )


LABELS_FLAG = "--allow_version_labels_for_unavailable_models=true"

START_FLAGS = (LABELS_FLAG, "--max_num_load_retries=0", "--num_load_threads=1")
"""Flags with which a server follows models.config as every command here expects, beside --model_config_file. With the
server's own defaults a version that does not load is tried for five minutes,
in the one thread that loads and unloads everything: a rollback would wait for that."""

WITHOUT_LABELS_FLAG = (
    f"a server without {LABELS_FLAG} ends at its next start, because of the labels"
)
"""It looks for what labels point at before it has loaded anything (server_core.cc)."""
