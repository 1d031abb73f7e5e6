"""Options: one field holds the name, type, default and help of an option, and every other form is made from it.

A verb's options are a frozen Struct. Of a field `wait: Annotated[float, Option(…)] = 60.0`, `verb` makes a keyword
of the Python API, and `servingrepo.cli.options` makes a flag, an environment variable and a settings key. A field
without an Option is for Python alone.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib import import_module
from inspect import get_annotations
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
    get_type_hints,
    overload,
)

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

O = TypeVar("O")  # noqa: E741 - options
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
M = TypeVar("M")

Section = Literal["what", "proof", "live servers", "stages", "hooks", "output"]
Table = Literal["top", "models", "environments"]


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """The form of a field outside Python: on the command line, in the environment and in the settings file.

    Attributes:
        help: Its line in the help.
        section: Its section in the help.
        leads: Whether it comes before the others of its section.
        flags: The flag, if it is not the field's name: `--watch-for`, `-n --limit`, `--serve/--no-serve`.
        key: Its key in the settings file beside the flag's name, if it is not the field's name.
        metavar: The placeholder of its value in the help.
        kind: The kind of its text, if the default does not give it; see `servingrepo.cli.kinds`.
        least: The lowest number.
        choices: The possible texts, each with its value.
        env: A variable that several commands share, beside the command's own variable.
        shows: Whether the help adds the default or the variable.
        tables: The tables of the settings file that may have it, beside the command's own table.
    """

    help: str
    section: Section = "what"
    leads: bool = False
    flags: str = ""
    key: str = ""
    metavar: str | None = None
    kind: str = ""
    least: float | None = None
    choices: Mapping[str, Any] | None = None
    env: str = ""
    shows: tuple[Literal["default", "env"], ...] = ()
    tables: tuple[Table, ...] = ()


class Several(msgspec.Struct, frozen=True):
    """A field that several options make: those of another Struct, or of some of its sections."""

    of: type[Struct]
    sections: tuple[Section, ...] = ()


class Field(msgspec.Struct, frozen=True):
    """A field that has a form outside Python. `default` is msgspec.NODEFAULT if a value is required."""

    name: str
    default: Any
    option: Option | Several

    @property
    def key(self) -> str:
        """Its name for click and in the settings file."""
        return (self.option.key if isinstance(self.option, Option) else "") or self.name


@cache
def fields_of(options: type[Struct], sections: tuple[Section, ...] = ()) -> tuple[Field, ...]:
    """Return the fields of a Struct that are options, or only those of some sections. Inherited fields come first.

    They are found once: `prune` reads the options of each of 1,000 models.
    """
    hints = get_type_hints(options, localns=_Names(options), include_extras=True)
    names = options.__struct_fields__
    defaults = dict(zip(reversed(names), reversed(options.__struct_defaults__), strict=False))
    in_order = dict.fromkeys(
        name for one in reversed(options.__mro__) for name in get_annotations(one)
    )
    return tuple(
        Field(name, defaults.get(name, msgspec.NODEFAULT), option)
        for name in in_order
        for option in getattr(hints[name], "__metadata__", ())
        if isinstance(option, Several)
        or (isinstance(option, Option) and (not sections or option.section in sections))
    )


class _Names(dict[str, Any]):
    """The names in a Struct's annotations. A type that only a type checker imports is `_Unknown`."""

    def __init__(self, options: type[Struct]) -> None:
        super().__init__(vars(builtins))
        for one in reversed(options.__mro__):
            self.update(vars(sys.modules[one.__module__]))

    def __missing__(self, name: str) -> Any:
        return _Unknown


class _Unknown:
    """The placeholder of a type, with or without parameters."""

    def __class_getitem__(cls, _: object) -> type[_Unknown]:
        return cls


class Later:
    """A module that is imported at the first call of one of its names."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> _Later:
        return _Later(self._module, name)


class _Later:
    """A function or class of a `Later` module."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def load(self) -> Any:
        return getattr(import_module(self._module), self._name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.load()(*args, **keywords)


def standalone(
    verb: Callable[[S, O], R], options: Callable[P, O]
) -> Callable[Concatenate[S, P], R]:
    """Return the function of a verb that needs no repository. It takes each option by its name."""

    def call(subject: S, /, *given: P.args, **keywords: P.kwargs) -> R:
        """Do what the command of the same name does, and return a value."""
        return verb(subject, options(*given, **keywords))

    return call


class Verb(Generic[M]):
    """A method that is a verb: it takes the verb's subject, and each option by its name.

    `repo.serve("ranker@7", wait=30)` is `serve(repo.value, "ranker@7", ServeOptions(wait=30))`.
    """

    def __init__(self, verb: Any, options: Any) -> None:
        self._verb, self._options = verb, options

    def __get__(self, repo: Any, _owner: type | None = None) -> M:
        verb, options = (
            one.load() if isinstance(one, _Later) else one for one in (self._verb, self._options)
        )
        if options is None:
            return cast("M", partial(verb, repo.value))
        about = verb.__code__.co_varnames[1 : verb.__code__.co_argcount - 1]

        def call(*given: Any, **keywords: Any) -> Any:
            missing = [one for one in about[len(given) :] if one not in keywords]
            if missing:
                raise TypeError(f"{verb.__name__}() needs {', '.join(missing)}")
            named = (keywords.pop(one) for one in about[len(given) :])
            return verb(repo.value, *given, *named, options(**keywords))

        call.__doc__ = verb.__doc__
        return cast("M", call)


@overload
def verb(verb: Callable[Concatenate[Any, P], R]) -> Verb[Callable[P, R]]: ...
@overload
def verb(verb: Callable[[Any, O], R], options: Callable[P, O]) -> Verb[Callable[P, R]]: ...
@overload
def verb(
    verb: Callable[[Any, S, O], R], options: Callable[P, O]
) -> Verb[Callable[Concatenate[S, P], R]]: ...
@overload
def verb(
    verb: Callable[[Any, S, T, O], R], options: Callable[P, O]
) -> Verb[Callable[Concatenate[S, T, P], R]]: ...
def verb(verb: Callable[..., Any], options: Callable[..., Any] | None = None) -> Verb[Any]:
    """Return the method for a verb. Its keywords have the types of the fields of `options`."""
    return Verb(verb, options)
