"""What is said of a text: what is wrong with it, and what is taken but may not be meant."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["BadText", "Mistake", "Remark"]


class Mistake(msgspec.Struct, frozen=True):
    """One thing that TensorFlow Serving refuses; the first line and column are 1, and a column is a character."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        """Return it as compilers do, without the file's name."""
        return f"{self.line}:{self.column}: {self.message}"


class Remark(msgspec.Struct, frozen=True):
    """What is taken and may not be meant: a number that is octal, or a key of a map given twice (the last counts).

    `within` has the messages around the value, the whole first.
    """

    kind: Literal["octal", "repeated-key"]
    line: int
    column: int
    field: str
    written: str
    value: Any
    within: tuple[Any, ...]


class BadText(ValueError):
    """The text is not one of this message.

    `mistakes` has what could be found, in the text's order, and `more` how many beyond a screenful.
    `looks_like` names the other format that the text seems to be in, if any.
    """

    def __init__(self, mistakes: tuple[Mistake, ...], *, more: int, looks_like: str) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = mistakes
        self.more = more
        self.looks_like = looks_like
