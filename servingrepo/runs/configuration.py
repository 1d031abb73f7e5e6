"""A run's configuration files: their hashes, and the values of those in JSON, TOML or YAML.

Gin files are programs in a language of their own, with imports and references: they are hashed and not read.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.masking import MASK, free_name, hides, mask_command, mask_start, mask_text
from servingrepo.runs.listing import LINK_OUT
from servingrepo.runs.reading import FilesRead
from servingrepo.texts import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.runs.listing import Listing

__all__ = ["CONFIGS", "LONGEST_TEXT", "Configuration", "read_configuration"]

CONFIGS = re.compile(
    r"(?:config|params|hparams|hyperparameters|args|flags|settings)\.(?:json|ya?ml|toml|gin)|operative_config.*\.gin"
)
"""The names of configuration files."""

_LONGEST = 1 << 20
LONGEST_TEXT = 256 << 10
"""The most bytes of TOML or YAML. No configuration is larger, and a parser without libyaml would need seconds."""
_MOST_FILES = 20
_MOST_VALUES = 200
_LONGEST_VALUE = 200
_LONGEST_KEY = 200
_LONGEST_PATH = 500
_LONGEST_LIST = 1024
_DEEPEST = 6


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a run.

    `values` are values by key, with secrets masked. `files` are SHA-256 sums by file. `unread` says by file why all
    or some of its values are missing.
    """

    values: dict[str, str]
    files: dict[str, str]
    unread: dict[str, str]


def read_configuration(seen: Listing, *, reads: FilesRead | None = None) -> Configuration:
    """Read a run's configuration files. A file that is too long or broken gets its reason in `unread`.

    `reads` reads the files, and remembers them.
    """
    reads = reads or FilesRead()
    values: dict[str, str] = {}
    files: dict[str, str] = {}
    linked = (path for path, _ in seen.links_out if CONFIGS.fullmatch(path.rpartition("/")[2]))
    unread = {escaped(path): LINK_OUT for path in islice(linked, _MOST_FILES)}
    every = list(islice(_files(seen), _MOST_FILES + 1))
    if len(every) > _MOST_FILES:
        unread["…"] = f"only {_MOST_FILES} files are read, and there are more"
    for below, place in every[:_MOST_FILES]:
        path = escaped(below)
        folder, _, name = path.rpartition("/")
        try:
            data = reads.whole(place, below, most=_LONGEST)
            files[path] = hashlib.sha256(data).hexdigest()
            for keys, value in _values(name, data):
                if len(values) >= _MOST_VALUES:
                    unread[path] = f"the run has more than {_MOST_VALUES} values"
                    break
                if sum(map(len, (folder, *keys))) > _LONGEST_PATH:
                    unread[path] = f"a key has more than {_LONGEST_PATH} characters"
                    continue
                said = mask_start("/".join(keys), value, longest=_LONGEST_VALUE)
                values[free_name(_key(folder, keys), values)] = escaped(said)
        except OSError as error:
            unread[path] = error.strerror or str(error)
        except (ValueError, RecursionError) as error:
            unread[path] = escaped(mask_start("", str(error), longest=_LONGEST_VALUE))
    return Configuration(values=values, files=files, unread=unread)


def _files(seen: Listing) -> Iterator[tuple[str, str]]:
    """Yield the configuration files: the path below the run, and the absolute one."""
    for folder in seen.folders:
        for name in sorted(folder.files) if not folder.is_saved_model else ():
            if CONFIGS.fullmatch(name):
                yield folder.below(name), folder.files[name]


def _values(name: str, data: bytes) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the values of a file by their keys.

    Raises:
        ValueError, RecursionError: Its content does not fit its name.
    """
    if name.endswith(".json"):
        yield from _flat(json.loads(data), ())
    elif name.endswith(".toml"):
        yield from _flat(load_toml(data), ())
    elif name.endswith((".yaml", ".yml")):
        yield from _flat(load_yaml(data), ())


def _flat(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the leaves of nested tables and lists; a list of plain values is one leaf.

    Values that are nested too deep are left out: as one text they could have secrets under unchecked names.
    """
    if isinstance(value, dict) and len(keys) < _DEEPEST:
        secret = _value_of_a_secret(value)
        for key, one in value.items():
            yield from _flat(MASK if key in secret else one, (*keys, str(key)))
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        if len(keys) < _DEEPEST:
            for number, one in enumerate(value):
                yield from _flat(one, (*keys, str(number)))
    elif keys and not isinstance(value, dict):
        yield keys, value if isinstance(value, str) else json.dumps(_begin(value), default=str)


def _value_of_a_secret(table: dict[Any, Any]) -> frozenset[str]:
    """Return the keys of a secret's value in a table such as `{"name": "DB_PASSWORD", "value": …}`."""
    for name in ("name", "key"):
        called = table.get(name)
        if isinstance(called, str):
            return frozenset(
                one for one in ("value", "default") if hides(called, str(table.get(one)))
            )
    return frozenset()


def _begin(value: Any) -> Any:
    """Return the first part of a list, with the secrets of command-line options masked: `["--token", "x"]`."""
    if not isinstance(value, list):
        return value
    begin: list[Any] = []
    size = 0
    for one in value:
        if size > _LONGEST_LIST:
            break
        begin.append(one[:_LONGEST_LIST] if isinstance(one, str) else one)
        size += len(str(begin[-1])) + 1
    said = mask_command([str(one) for one in begin])
    return [
        new if isinstance(old, str) or new == MASK else old
        for new, old in zip(said, begin, strict=True)
    ]


def _key(folder: str, keys: tuple[str, ...]) -> str:
    """Return a value's key for the record, masked and cut: a key may be a secret, or as long as the file."""
    parts = tuple(mask_text(one[:_LONGEST_KEY]) for one in keys)
    return escaped("/".join((folder, *parts) if folder else parts))


# TOML and YAML from strangers, read in bounded time and memory ------------------------------------------
#
# tomllib makes a tuple of every prefix of a dotted key, and walks along a table's header for each key below it. So a
# file of 40 kB can take 1.5 GB, and one of 1 MB 600 times as much. We check the depth of keys before they are parsed.

_DEEPEST_KEY = 64


def load_toml(data: bytes) -> dict[str, Any]:
    """Read a TOML document.

    Raises:
        ValueError: It is broken, or too large for a configuration; the message says why.
    """
    if len(data) > LONGEST_TEXT:
        raise ValueError(f"it has more than {LONGEST_TEXT:,} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > _DEEPEST_KEY and _key_in(line).count(b".") > _DEEPEST_KEY:
            raise ValueError(f"line {number} has a key of more than {_DEEPEST_KEY} parts")
    import tomllib  # imported here, because few runs have TOML

    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _key_in(line: bytes) -> bytes:
    """Return the part of a line with its key or header; where quotes make it hard to find, return the whole line."""
    if line.lstrip(b" \t").startswith(b"["):
        # A line with commas and without quotes is a part of an array over several lines.
        return b"" if b"," in line and b'"' not in line and b"'" not in line else line
    before = line.partition(b"=")[0]
    return line if b'"' in before or b"'" in before else before


# PyYAML's safe loader makes no objects. But ten lines of aliases to aliases are billions of values, merge keys copy
# them all, and very deep nesting or very long numbers take for ever. We find all of that in the stream of events,
# before a value is made.

_MOST_IN_YAML = 20_000
_DEEPEST_YAML = 64
_LONGEST_SCALAR = 10_000


def load_yaml(data: bytes) -> Any:
    """Read one YAML document.

    Raises:
        ValueError: It is broken, has tags beyond YAML's own, or is too large; the message says why.
    """
    import yaml  # imported here: it takes 15 ms, and few commands need it

    if len(data) > LONGEST_TEXT:
        raise ValueError(f"it has more than {LONGEST_TEXT:,} bytes")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_bombs(yaml.parse(data, Loader=loader))
        return yaml.load(data, Loader=loader)  # nosec B506 # noqa: S506 - one of the two safe loaders
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ValueError(f"{error.problem or 'it is no YAML'}{where}") from None
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no YAML: {str(error).partition(chr(10))[0]}") from None


def _refuse_bombs(events: Any) -> None:  # noqa: C901 - a branch for each kind of event
    """Count values as if every alias were written out."""
    sizes: dict[str, int] = {}
    counted = [0]
    anchors: list[str | None] = []
    for event in events:
        kind = type(event).__name__
        if kind == "AliasEvent":
            if event.anchor not in sizes:
                raise ValueError(f"its alias {event.anchor} is part of itself, or of nothing")
            counted[-1] += sizes[event.anchor]
        elif kind == "ScalarEvent":
            if len(event.value) > _LONGEST_SCALAR:
                raise ValueError(f"a value has more than {_LONGEST_SCALAR:,} characters")
            counted[-1] += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif kind in {"SequenceStartEvent", "MappingStartEvent"}:
            counted.append(1)
            anchors.append(event.anchor)
            sizes.pop(event.anchor, None)
        elif kind in {"SequenceEndEvent", "MappingEndEvent"}:
            size, anchor = counted.pop(), anchors.pop()
            counted[-1] += size
            if anchor is not None:
                sizes[anchor] = size
        if len(counted) > _DEEPEST_YAML:
            raise ValueError(f"it is nested more than {_DEEPEST_YAML} levels deep")
        if counted[-1] > _MOST_IN_YAML:
            raise ValueError(
                f"it has more than {_MOST_IN_YAML:,} values, with its aliases written out"
            )
