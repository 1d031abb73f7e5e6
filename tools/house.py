"""Draw the house in docs/design.md from the imports: `make house`.

    python -m tools.house

An arrow leads from a room to one that it imports from. An arrow is left out where others lead there by way of another
room, so that the picture has an arrow only where it adds something.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "servingrepo"
DOCUMENT = PROJECT / "docs" / "design.md"


@dataclass(frozen=True)
class Room:
    """One room: its job, the rooms that it imports from, and those that it starts as a program."""

    name: str
    job: str
    imports: frozenset[str]
    starts: frozenset[str]


def homes() -> dict[str, Path]:
    """Return each room's name and its folder or file."""
    found = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    found += [path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    return {path.stem: path for path in sorted(found)}


def room(name: str, home: Path, names: frozenset[str]) -> Room:
    """Read one room's files."""
    files = [home] if home.is_file() else sorted(home.rglob("*.py"))
    imports: set[str] = set()
    starts: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports |= {_room(one.name) for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "servingrepo":
                imports |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                imports.add(_room(node.module or ""))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                starts.add(_room(node.value))
    job = ast.get_docstring(
        ast.parse((home if home.is_file() else home / "__init__.py").read_text(encoding="utf-8"))
    )
    return Room(
        name=name,
        job=(job or "").partition("\n")[0],
        imports=frozenset(imports & names - {name}),
        starts=frozenset(starts & names - {name} - imports),
    )


def _room(module: str) -> str:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "servingrepo" else ""


def house() -> dict[str, Room]:
    """Return all rooms, those first that import from the most others behind one another."""
    places = homes()
    rooms = {name: room(name, home, frozenset(places)) for name, home in places.items()}
    heights: dict[str, int] = {}

    def height(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            circle = " > ".join((*above[above.index(name) :], name))
            raise SystemExit(f"these rooms import from one another: {circle}")
        if name not in heights:
            below = [height(one, (*above, name)) for one in rooms[name].imports]
            heights[name] = 1 + max(below, default=-1)
        return heights[name]

    return {name: rooms[name] for name in sorted(rooms, key=lambda one: (-height(one), one))}


def reached(name: str, rooms: dict[str, Room]) -> set[str]:
    """Return the rooms that a room imports from, by way of others too."""
    return {
        two for one in rooms[name].imports for two in (one, *reached(one, rooms))
    }  # no circle: house() has looked


def picture(rooms: dict[str, Room]) -> str:
    """Return the Mermaid text of the picture."""
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"  {one.name}" for one in rooms.values()]
    for one in rooms.values():
        beyond = {two for other in one.imports for two in reached(other, rooms)}
        lines += [f"  {one.name} --> {other}" for other in rooms if other in one.imports - beyond]
        lines += [f"  {one.name} -. starts .-> {other}" for other in sorted(one.starts)]
    return "\n".join([*lines, "```"])


def table(rooms: dict[str, Room]) -> str:
    """Return what each room is for, in its own words."""
    lines = ["| room | what it is |", "| --- | --- |"]
    lines += [f"| `{one.name}` | {one.job} |" for one in rooms.values()]
    return "\n".join(lines)


def written(text: str, mark: str, new: str) -> str:
    """Return a document with what stands between two marks replaced."""
    opening, closing = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, _, rest = text.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise SystemExit(f"there is no {opening.strip()} … {closing} in the document")
    return f"{before}{opening}{new}\n{closing}{after}"


def drawn(text: str) -> str:
    """Return the document with the picture of the house as it is now."""
    rooms = house()
    return written(text, "house", f"{picture(rooms)}\n\n{table(rooms)}")


if __name__ == "__main__":
    DOCUMENT.write_text(drawn(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
