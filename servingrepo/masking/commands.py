"""Secrets in the arguments of a command, where the option and its value are two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.masking.names import hides, judge, looks_random
from servingrepo.masking.programs import HEADERS, options_of, pair_masked, programs_in
from servingrepo.masking.shapes import MASK
from servingrepo.masking.texts import mask_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["mask_command"]

_CARRIERS = frozenset({"--server-arg"})
"""Options whose values are arguments of another command."""
_PAIR = 2
_LONGEST_PATH = 256


def mask_command(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments without secrets: `--token X`, `--token=X`, and all that looks like one."""
    names = [one.rpartition("/")[2].lower() for one in arguments if len(one) < _LONGEST_PATH]
    known = options_of(programs_in(" ".join(names)))
    if len(arguments) == _PAIR and not arguments[0].startswith("-"):
        name, value = arguments
        return [mask_text(name), MASK if hides(name, value) else mask_text(value)]
    masked: list[str] = []
    option = ""
    logging_in = {"wandb", "login"} <= set(names)
    for one in arguments:
        if logging_in and looks_random(one):
            masked.append(MASK)
            continue
        carrier, equals, carried = one.partition("=")
        if carrier in _CARRIERS:
            said, option = _masked(carried, option, known) if equals else ("", option)
            masked.append(f"{carrier}={said}" if equals else carrier)
        else:
            said, option = _masked(one, option, known)
            masked.append(said)
    return masked


def _masked(argument: str, option: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Return an argument without secrets, and the option whose value comes next, if any.

    `option` is the one that came before. Its value may begin with a dash, as keys in PEM do, but is no option.
    """
    is_option = argument[:1] == "-" and argument.lstrip("-")[:1].isalpha() and argument[:3] != "---"
    if not is_option:
        return (_given(option, argument, known) if option else mask_text(argument)), ""
    name, equals, value = argument.partition("=")
    if any(map(str.isspace, name)):  # a whole command in one argument
        said = mask_text(argument)
        return (said if argument[1] == "-" else said[:_PAIR] + mask_text(said[_PAIR:])), ""
    if equals and (name in known or judge(name) != "never"):
        return f"{name}={_given(name, value, known)}", ""
    if argument[1] != "-" and len(name) > _PAIR:
        if name[:_PAIR] in known:  # -pSECRET
            return name[:_PAIR] + _given(name[:_PAIR], argument[_PAIR:], known), ""
        if equals or judge(name) == "never":  # -mMESSAGE
            return name[:_PAIR] + mask_text(argument[_PAIR:]), ""
    return mask_text(argument), "" if equals else name


def _given(option: str, value: str, known: Mapping[str, str]) -> str:
    """Return the value of an option without secrets."""
    match known.get(option, ""):
        case "whole":
            return MASK
        case "pair":
            return mask_text(pair_masked(value))
        case "header":
            name, sign, _ = value.partition("=" if "=" in value.partition(":")[0] else ":")
            return (
                f"{name}{sign}{MASK}" if sign and name.lower() not in HEADERS else mask_text(value)
            )
    return MASK if hides(option, value) else mask_text(value)
