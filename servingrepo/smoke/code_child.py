"""The child process that runs the caller's own functions; see `servingrepo.smoke.code`.

Called as `python -P -m servingrepo.smoke.code_child --parent PID`. Messages come in by stdin and go out by stdout.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from servingrepo.children import die_with
from servingrepo.smoke.npz import array_of

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = struct.Struct("<Q")


class _Raised(Exception):
    """The caller's code raised; the message says what and where."""


def main() -> None:
    """Answer messages until there are no more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    die_with(parser.parse_args().parent)
    given, told = os.dup(0), os.dup(1)
    # What the code prints must not be taken for an answer, nor what we send for its input.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    # Behind everything else: a file here must not stand in for a library.
    sys.path.append(str(Path.cwd()))
    with os.fdopen(given, "rb") as source, os.fdopen(told, "wb") as target:
        known: dict[str, Callable[..., Any]] = {}
        while head := source.read(_LENGTH.size):
            asked = msgspec.msgpack.decode(source.read(_LENGTH.unpack(head)[0]))
            try:
                if asked["what"] not in known:
                    known[asked["what"]] = _find(asked["what"])
                    _tell(target, {"found": asked["what"]})
                function = known[asked["what"]]
                if asked["do"] == "cases":
                    _give_cases(function, target)
                else:
                    _tell(target, {"problem": _judge(function, asked)})
            except _Raised as raised:
                _tell(target, {"raised": str(raised)})


def _find(what: str) -> Callable[..., Any]:
    module, _, name = what.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except BaseException as error:
        raise _Raised(f"cannot be imported: {_said(error)}") from error
    if not callable(found):
        raise _Raised("is no function")
    return found  # type: ignore[no-any-return] # it is callable


def _give_cases(function: Callable[..., Any], target: IO[bytes]) -> None:
    try:
        for case in function():
            _tell(target, _told(case))
    except BrokenPipeError:
        raise
    except BaseException as error:
        raise _Raised(f"raised {_said(error)}") from error
    _tell(target, {"end": True})


def _judge(function: Callable[..., Any], asked: dict[str, Any]) -> str:
    """Return what the predicate has against the answer; empty for True or None."""
    try:
        said = function(
            asked["case"], {alias: _array(one) for alias, one in asked["outputs"].items()}
        )
        # numpy's booleans are no bool.
        accepts = said is None or (not isinstance(said, str) and bool(said))
    except AssertionError as error:
        return str(error) or "an assertion failed"
    except BaseException as error:
        raise _Raised(f"raised {_said(error)}") from error
    if accepts or said == "":
        return ""
    return said if isinstance(said, str) else f"it says {said!r}"


def _said(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(where[0].filename).name}, line {where[0].lineno})" if where else ""
    return f"{type(error).__name__}: {error}{place}"


def _told(case: Any) -> dict[str, Any]:
    """Return the message with a case, or with the reason why it cannot be sent."""
    try:
        if isinstance(case, dict) and "inputs" in case:
            given = case["inputs"]
            inputs = (
                {str(alias): _array_or_plain(one) for alias, one in given.items()}
                if isinstance(given, dict)
                else _array_or_plain(given)
            )
            rest = {key: one for key, one in case.items() if key != "inputs"}
            return {"case": {**_plain(rest), "inputs": inputs}}
        return {"case": _plain(case)}
    except ValueError as error:
        return {"broken": str(error)}


def _array_or_plain(value: Any) -> Any:
    return {"__array__": array_of(value)} if _is_array(value) else _plain(value)


def _plain(value: Any) -> Any:
    """Return a value with numpy's arrays and numbers as lists and plain values."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _plain(value.tolist()) if _is_array(value) else value


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "tolist")


def _array(told: dict[str, Any]) -> Any:
    """Return an output as a numpy array; strings are bytes."""
    import numpy as np

    dtype = told["dtype"]
    values = told["values"]
    if dtype.startswith("complex"):
        values = [complex(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
    known: Any = object if dtype == "string" else {"bfloat16": "float32"}.get(dtype, dtype)
    if isinstance(known, str) and known.startswith("q"):
        known = known.removeprefix("q")
    array = np.empty(len(values), dtype=known)
    array[:] = values
    return array.reshape(told["shape"])


def _tell(target: IO[bytes], message: dict[str, Any]) -> None:
    data = msgspec.msgpack.encode(message)
    target.write(_LENGTH.pack(len(data)) + data)
    target.flush()


if __name__ == "__main__":
    main()
