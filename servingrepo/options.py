"""Options: name, type, default and help of each stand in one field, and every other form comes from there.

A verb's options are a frozen Struct. A field `wait: Annotated[float, Option(…)] = 60.0` is a keyword of the Python
API by `verb`, and a flag, an environment variable and a settings key by `servingrepo.cli.options`. A field without
an Option is for Python alone.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from functools import partial
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
    """How a field is given outside Python.

    Attributes:
        help: What it does, for the help.
        section: Where the help shows it.
        leads: Whether it stands before the others of its section.
        flags: The flag, if it is not the field's name: `--watch-for`, `-n --limit`, `--serve/--no-serve`.
        key: Its key in the settings file beside the flag's name, if it is not the field's name.
        metavar: What stands for its value in the help.
        kind: How its text is read, where the default does not say it: the kinds of `servingrepo.cli.kinds`.
        least: The lowest number.
        choices: The texts that there are, each with what it means.
        env: A variable that several commands share, beside the one of the command.
        shows: What the help shows of it by itself.
        tables: Where it may stand in the settings file, beside its command's own table.
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
    """Several options that make one field: those of another Struct, all or these sections of them."""

    of: type[Struct]
    sections: tuple[Section, ...] = ()


class Field(msgspec.Struct, frozen=True):
    """A field that is given outside Python; `default` is msgspec.NODEFAULT if it must be given."""

    name: str
    default: Any
    option: Option | Several

    @property
    def key(self) -> str:
        """What click and the settings file call it."""
        return (self.option.key if isinstance(self.option, Option) else "") or self.name


def fields_of(options: type[Struct], sections: tuple[Section, ...] = ()) -> tuple[Field, ...]:
    """Return the fields of a Struct that are options, all or those of some sections; inherited ones come first."""
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
    """The names in a Struct's annotations. Types that are imported for type checking alone stay unknown."""

    def __init__(self, options: type[Struct]) -> None:
        super().__init__(vars(builtins))
        for one in reversed(options.__mro__):
            self.update(vars(sys.modules[one.__module__]))

    def __missing__(self, name: str) -> Any:
        return _Unknown


class _Unknown:
    """Stands for a type, with or without parameters."""

    def __class_getitem__(cls, _: object) -> type[_Unknown]:
        return cls


class Later:
    """A module that is imported when something of it is called."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> _Later:
        return _Later(self._module, name)


class _Later:
    """A function or class of such a module."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def load(self) -> Any:
        return getattr(import_module(self._module), self._name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.load()(*args, **keywords)


class Verb(Generic[M]):
    """A method that is a verb: it takes what the verb is about, and each option by its name.

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
    """Return the method for a verb, its keywords typed as the fields of its options, if it has some."""
    return Verb(verb, options)
