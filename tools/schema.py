"""Write the schema of our JSON files into docs/design.md, field by field, from the classes: `make house`.

    python -m tools.schema

Names, types and defaults come from the classes. The meaning of a field is its docstring, where it has one; else the
table keeps the meaning that somebody wrote into it.
"""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import re
import textwrap
import types
import typing
from typing import Any

import msgspec

from servingrepo.repository.adoption import Adoption
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.lagging import LaggingServers
from servingrepo.repository.records import Format, ModelState, VersionRecord
from servingrepo.repository.verification import RoundState
from tools.house import DOCUMENT, written

FILES: dict[str, type[msgspec.Struct]] = {
    "format.json": Format,
    "models/NAME.json": ModelState,
    "models/NAME/N.json": VersionRecord,
    "history.jsonl, one object a line": Event,
    "journal/TXID.json": Intent,
    "adoptions/TXID.json": Adoption,
    "stragglers.json": LaggingServers,
    "round.json": RoundState,
}
"""Each file below `.servingrepo/`, and what it holds."""

MARK = "schema"
_PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
_ROW = re.compile(r"^\| `(?P<field>\w+)` \| .* \| (?P<meaning>[^|]*) \|$")


def is_struct(kind: object) -> bool:
    """Tell whether a type is one of our classes."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def said(kind: Any) -> str:
    """Say a type in the words of JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        text = " or ".join(said(one) for one in arguments)
    elif origin is typing.Literal:
        text = " or ".join(f"`{one}`" for one in arguments)
    elif origin is tuple:
        one = said(arguments[0])
        text = f"list of ({one})" if " or " in one else f"list of {one}"
    elif origin is dict:
        text = f"object of {said(arguments[1])}"
    elif is_struct(kind):
        text = f"[`{kind.__name__}`](#{kind.__name__.lower()})"
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        text = " or ".join(f"`{one.value}`" for one in kind)
    else:
        text = _PLAIN[kind]
    return text


def inside(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the classes that a type is made of."""
    if is_struct(kind):
        return [kind]
    return [found for one in typing.get_args(kind) for found in inside(one)]


def classes() -> list[type[msgspec.Struct]]:
    """Return the classes of all files, each once, those of a file behind it."""
    found: list[type[msgspec.Struct]] = []

    def add(kind: type[msgspec.Struct]) -> None:
        if kind not in found:
            found.append(kind)
            for field in msgspec.structs.fields(kind):
                for one in inside(field.type):
                    add(one)

    for kind in FILES.values():
        add(kind)
    return found


def absent(field: msgspec.structs.FieldInfo) -> str:
    """Say what holds where a file has no such field."""
    if field.required:
        return "required"
    default = field.default
    if default is msgspec.NODEFAULT:
        made = field.default_factory()
        return "empty" if not made or is_struct(type(made)) else str(made)
    if is_struct(type(default)) or default in {(), ""}:
        return "empty"
    return f"`{msgspec.json.encode(default).decode()}`"


def meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return what a class says of its fields: in docstrings below them, or in the section Attributes of its own."""
    found: dict[str, str] = {}
    module = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = [node for one in module.body if isinstance(one, ast.ClassDef) for node in one.body]
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    for name, text in re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", attributes, re.MULTILINE):
        found[name] = " ".join(text.split())
    for one, two in itertools.pairwise(body):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(two, ast.Expr)
            and isinstance(two.value, ast.Constant)
        ):
            found[one.target.id] = " ".join(str(two.value.value).split())
    return {name: in_json(text) for name, text in found.items()}


def in_json(text: str) -> str:
    """Return a text about a class as one about its file."""
    return re.sub(r"\bNone\b", "null", text)


def kept(text: str) -> dict[tuple[str, str], str]:
    """Return the meanings that a document has, by class and field."""
    found: dict[tuple[str, str], str] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.strip("# `")
        elif row := _ROW.match(line):
            found[heading, row["field"]] = row["meaning"].strip()
    return found


def schema(text: str) -> str:
    """Return the tables; a field without a meaning has an empty cell."""
    known = kept(text)
    lines = ["| file below `.servingrepo/` | holds |", "| --- | --- |"]
    lines += [f"| `{file}` | {said(kind)} |" for file, kind in FILES.items()]
    for kind in classes():
        name = kind.__name__
        own = meanings(kind)
        lines += [
            "",
            f"#### `{name}`",
            "",
            in_json((inspect.getdoc(kind) or "").partition("\n")[0]),
            "",
            "| field | type | if absent | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for field in msgspec.structs.fields(kind):
            meaning = own.get(field.name) or known.get((name, field.encode_name), "")
            lines.append(
                f"| `{field.encode_name}` | {said(field.type)} | {absent(field)} | {meaning.replace('|', ',')} |"
            )
    return "\n".join(lines)


def described(text: str) -> str:
    """Return the document with the schema as it is now."""
    return written(text, MARK, schema(text))


if __name__ == "__main__":
    DOCUMENT.write_text(described(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
