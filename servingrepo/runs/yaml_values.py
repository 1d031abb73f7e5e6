"""YAML from strangers, read in bounded time and memory: plain values only, and no alias that makes much of little.

PyYAML's safe loader makes no objects, but ten lines of aliases to aliases are billions of values, merge keys of
them are copied one by one, and very deep nesting or numbers of many digits take for ever. All of that is seen in the
stream of events, before a value is made.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LONGEST", "load_yaml"]

LONGEST = 256 << 10
"""Bytes; a configuration is no more, and a parser without libyaml would need seconds."""
_MOST = 20_000
_DEEPEST = 64
_LONGEST_SCALAR = 10_000


def load_yaml(data: bytes) -> Any:
    """Read one YAML document.

    Raises:
        ValueError: It is broken, has tags beyond YAML's own, or is more than a configuration; the message says why.
    """
    import yaml  # 15 ms that most commands have no use for

    if len(data) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes")
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
        if len(counted) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        if counted[-1] > _MOST:
            raise ValueError(f"it has more than {_MOST:,} values, with its aliases written out")
