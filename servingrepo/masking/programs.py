"""Programs whose options say nothing by their names: `curl -u me:x`, `sshpass -p x`, and headers of HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servingrepo.masking.names import words_of
from servingrepo.masking.shapes import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HEADERS", "options_of", "pair_masked", "programs_in"]

HEADERS = words_of("""
    accept accept-encoding accept-language cache-control connection content-length content-type content-encoding date
    expect host user-agent
""")
"""Headers whose values are no secrets. Those of all others may be."""

_WHOLE_P = {"-p": "whole"}
_PROGRAMS: dict[str, dict[str, str]] = {
    "curl": {
        "-u": "pair",
        "-U": "pair",
        "--user": "pair",
        "--proxy-user": "pair",
        "-H": "header",
        "-b": "whole",
        "--cookie": "whole",
    },
    "wget": {"-H": "header"},
    "grpcurl": {"-H": "header"},
    **{name: {"-a": "pair", "--auth": "pair"} for name in ("http", "https", "xh")},
    **dict.fromkeys(("sshpass", "mysql", "mysqldump", "mysqladmin", "mariadb"), _WHOLE_P),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "7z", "login"), _WHOLE_P),
    **{name: {"-P": "whole"} for name in ("sqlcmd", "zip", "unzip")},
    "redis-cli": {"-a": "whole"},
    "ldapsearch": {"-w": "whole"},
    "smbclient": {"-U": "pair"},
}
"""Options by program; `login` is the subcommand of docker, podman, helm, az and others.

A value is a secret as a whole, or `USER:SECRET`, or a header.
"""
_EVERYWHERE = {"--header": "header", "--proxy-header": "header"}


def programs_in(text: str) -> list[str]:
    """Return the programs of the table that a text in lower case names."""
    return [
        name
        for name in _PROGRAMS
        if name in text and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w:.-])", text)
    ]


def options_of(programs: Iterable[str]) -> Mapping[str, str]:
    """Return what kind of value the options of programs have."""
    found = dict(_EVERYWHERE)
    for name in programs:
        found.update(_PROGRAMS.get(name, {}))
    return found


_PAIR = re.compile(r"([^:%]{0,256}[:%])(.+)", re.DOTALL)


def pair_masked(value: str) -> str:
    """Return USER:SECRET without the secret; `1000:1000` is a user and a group."""
    found = _PAIR.match(value)
    if found is None or value.replace(":", "").isdecimal():
        return value
    return f"{found[1]}{MASK}"
