"""What a server has to be started with, so that it follows models.config as every command here expects."""

from __future__ import annotations

__all__ = ["LABELS_FLAG", "START_FLAGS", "WITHOUT_LABELS_FLAG"]

LABELS_FLAG = "--allow_version_labels_for_unavailable_models=true"

START_FLAGS = (LABELS_FLAG, "--max_num_load_retries=0", "--num_load_threads=1")
"""Beside --model_config_file. With the server's own defaults a version that does not load is tried for five minutes,
in the one thread that loads and unloads everything: a rollback would wait for that."""


WITHOUT_LABELS_FLAG = (
    f"a server without {LABELS_FLAG} ends at its next start, because of the labels"
)
"""It looks for what labels point at before it has loaded anything (server_core.cc)."""
