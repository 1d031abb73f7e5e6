"""The order of the rooms, and who may touch what: docs/decisions.md says why; here it is held."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from servingrepo.repository.layout import Layout

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "servingrepo"

ORDER = (
    ("lazy",),
    ("options",),
    ("errors",),
    ("deadline",),
    ("texts",),
    ("masking",),
    ("protos",),
    ("textproto",),
    ("children",),
    ("storage",),
    ("savedmodel",),
    ("modelconfig",),
    ("embedded",),
    ("runs",),
    ("servers",),
    ("smoke",),
    ("repository",),
    ("fleet",),
    ("verbs",),
    ("reports",),
    ("api",),
    ("cli",),
    ("__main__",),
    ("testing",),
)
"""Each room imports only from rooms above it. `__init__` has no room: it names the API lazily and a version."""

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
LONGEST = 800
"""Lines of the longest file there may be: one that is a single thing may be as long."""

TENSORFLOW_ONLY_IN = ("servingrepo/embedded/", "demo/", "benchmarks/")
GRPC_ONLY_IN = ("servingrepo/servers/", "servingrepo/embedded/", "servingrepo/testing/")
PROTOBUF_MODULES_ONLY_IN = ("servingrepo/protos.py",)
PROGRAMS = ("servingrepo/cli/", "servingrepo/embedded/")
"""What may print: the command line, and the embedded server, which is a program as the real one is."""


@dataclass(frozen=True)
class Import:
    """One import, wherever in a file it stands: at the top, in a function, for type checking alone."""

    file: str
    line: int
    module: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def python_files(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports_of(path: Path) -> list[Import]:
    """Return all imports of a file; `from servingrepo import x` and import_module("…") are imports of modules too."""
    file = path.relative_to(ROOT).as_posix()
    found: list[Import] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            assert node.module is not None
            found += (
                [Import(file, node.lineno, f"servingrepo.{one.name}") for one in node.names]
                if node.module == "servingrepo"
                else [Import(file, node.lineno, node.module)]
            )
        elif isinstance(node, ast.Call) and _names_a_module(node):
            found.append(Import(file, node.lineno, node.args[0].value))  # type: ignore[attr-defined]
    return found


def _names_a_module(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    return name in {"import_module", "__import__"} and (
        isinstance(first, ast.Constant) and isinstance(first.value, str)
    )


def room_of(module: str) -> str | None:
    """Return the room of a module of ours; None for a module of others, or for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "servingrepo" and len(parts) > 1 else None


def home_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def every_import() -> list[Import]:
    return [one for path in python_files() for one in imports_of(path)]


def test_every_module_has_a_room() -> None:
    homes = {home_of(path) for path in python_files()} - {"__init__"}
    assert homes - RANK.keys() == set()


@pytest.mark.parametrize("room", RANK)
def test_a_room_imports_only_from_rooms_above_it(room: str) -> None:
    wrong = []
    for path in python_files():
        if home_of(path) != room:
            continue
        for one in imports_of(path):
            other = room_of(one.module)
            if other in RANK and other != room and RANK[other] >= RANK[room]:
                wrong.append(one.place)
    assert wrong == []


def test_nobody_imports_the_embedded_server() -> None:
    """It is a program of its own, which engines and `run-server` execute."""
    wrong = [
        one.place
        for one in every_import()
        if room_of(one.module) == "embedded" and not one.file.startswith("servingrepo/embedded/")
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing_but_for_types() -> None:
    tree = parsed(PACKAGE / "__init__.py")
    ours = [
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("servingrepo")
    ]
    assert ours == ["servingrepo.lazy"]


def test_imports_of_ours_name_modules_that_there_are() -> None:
    """A room that was renamed must not make the tests above look at nothing."""
    rooms = {room_of(one.module) for one in every_import()} - {None, "__version__"}
    assert rooms - RANK.keys() == set()
    assert len(rooms) > 8


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("tensorflow", TENSORFLOW_ONLY_IN),
        ("grpc", GRPC_ONLY_IN),
        ("tensorflow_serving", PROTOBUF_MODULES_ONLY_IN),
        ("docker", ("servingrepo/servers/engines/",)),
        ("click", ("servingrepo/cli/",)),
        ("jinja2", ("servingrepo/reports/",)),
        ("markupsafe", ("servingrepo/reports/",)),
    ],
)
def test_a_library_is_imported_only_where_it_belongs(module: str, allowed: tuple[str, ...]) -> None:
    wrong = [
        one.place
        for one in every_import()
        if one.module.split(".")[0] == module and not one.file.startswith(allowed)
    ]
    assert wrong == []


def test_only_a_new_server_root_moves_a_base_path() -> None:
    """Live versions are at an entry's base path; plans, labels, recovery and edits must leave it alone."""
    assigned, moving = set(), set()
    for path in python_files():
        for node in ast.walk(parsed(path)):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(one, ast.Attribute) and one.attr == "base_path" for one in targets):
                assigned.add(path.relative_to(PACKAGE).as_posix())
            if isinstance(node, ast.ImportFrom) and any(one.name == "move" for one in node.names):
                moving.add(path.relative_to(PACKAGE).as_posix())
    assert assigned == {"modelconfig/edits.py"}
    assert moving == {"modelconfig/__init__.py", "repository/config.py"}


PLACES_FOR_ALL = {"contract", "contracts", "model", "models", "root", "staging", "version"}
"""Of a repository's layout: where models, exports and the files of people lie."""


def test_only_the_repository_knows_where_its_own_files_lie() -> None:
    """State, records, config, history and journal are asked for as a snapshot, or by functions of that room."""
    wrong = [
        f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} uses layout.{node.attr}"
        for path in python_files()
        if home_of(path) != "repository"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value).split(".")[-1] == "layout"
        and node.attr in vars(Layout)
        and node.attr not in PLACES_FOR_ALL
    ]
    assert wrong == []


def test_no_file_is_long() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): count
        for folder in (PACKAGE, ROOT / "tests", ROOT / "demo", ROOT / "benchmarks")
        for path in python_files(folder)
        if (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert long == {}


def test_nothing_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert [path for path in python_files() if {path.stem, *path.parts} & vague] == []


def test_only_programs_print() -> None:
    wrong = []
    for path in python_files():
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(PROGRAMS):
            continue
        wrong += [
            f"{file}:{node.lineno}"
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.expr)
            and ast.unparse(node) in {"print", "sys.stdout", "sys.stderr"}
        ]
    assert wrong == []


def test_only_programs_read_the_environment() -> None:
    """What is no setting of ours may stand elsewhere: a child's environment, and Docker's own variables."""
    wrong = []
    for path in python_files():
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(PROGRAMS):
            continue
        tree = parsed(path)
        handed_on = {
            id(value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Dict)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is None
        }
        handed_on |= {id(one) for one in dockers_own(tree)}
        wrong += [
            f"{file}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr in {"environ", "getenv", "environb"}
            and id(node) not in handed_on
        ]
    assert wrong == []


def dockers_own(tree: ast.Module) -> list[ast.expr]:
    """Return each `os.environ` that is asked for DOCKER_HOST and its like, as Docker's own client does."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            key, holder = node.args[0], node.func.value
        elif isinstance(node, ast.Subscript):
            key, holder = node.slice, node.value
        if isinstance(key, ast.Constant) and str(key.value).startswith("DOCKER_"):
            found.append(holder)
    return found


def test_files_say_nothing_of_the_machine_they_were_written_on() -> None:
    folders = (
        "servingrepo",
        "tests",
        "demo",
        "benchmarks",
        "docs",
        "configs",
        "compose",
        "examples",
    )
    strange = ("/wo" + "rk/", "/opt/" + "sr-venv")
    wrong = [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if not path.is_relative_to(ROOT / "demo" / "work")
        and path.suffix in {".py", ".md", ".toml", ".json", ".yml", ".yaml", ".config"}
        and any(one in path.read_text(errors="replace") for one in strange)
    ]
    assert wrong == []
