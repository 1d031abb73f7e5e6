"""Secrets taken out of what is recorded: names and values that look like tokens, passwords in URLs.

It is the last net, not the first: what needs no recording is not recorded at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MASK", "mask", "mask_command"]

MASK = "***"

_NAMES = re.compile(
    r"secret|passw|passphrase|pwd$|token(?!s|iz)|api_?key|access_?key|private_?key|encryption_?key|credential|"
    r"authorization|auth$|bearer|cookie|(?:^|_)dsn$|(?:^|_)sas(?:$|_)|signature$|connection_?string",
    re.IGNORECASE,
)
"""Names of things whose values are not recorded. `max_tokens` and `tokenizer` are none."""

_VALUES = tuple(
    re.compile(text)
    for text in (
        r"(?<=://)[^/\s@]+(?=@)",
        r"(?i)(?<=[?&;])(?:[\w-]*(?:token|secret|passw|key|signature)[\w-]*|sig|auth)=[^&\s;]+",
        r"\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bgl[a-z]{2,5}-[\w-]{20,}",
        r"\bxox[abeoprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{20,}|\bsk-[\w-]{20,}|\bpypi-[\w-]{20,}|\bnpm_\w{30,}",
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}",
        r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*",
        r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}",
        r"(?i)\b(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*\S+",
    )
)


def mask(name: str, value: str) -> str:
    """Return a value for the record: masked whole if its name is a secret's, else what in it looks like one."""
    if value and _NAMES.search(re.sub(r"[^A-Za-z0-9]+", "_", name)):
        return MASK
    for pattern in _VALUES:
        value = pattern.sub(MASK, value)
    return value


_CARRIERS = ("--header",)
"""Options whose values are NAME=VALUE with a secret more often than not, whatever its name."""


def mask_command(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments without secrets: `--token X`, `--token=X`, and values that look like one."""
    masked: list[str] = []
    name = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, value = argument.partition("=")
            masked.append(f"{name}={_mask_value(name, value)}" if equals else name)
            name = "" if equals else name
        else:
            masked.append(_mask_value(name, argument))
            name = ""
    return masked


def _mask_value(option: str, value: str) -> str:
    name, equals, _ = value.partition("=")
    if option in _CARRIERS and equals:
        return f"{name}={MASK}"
    return mask(option, value)
