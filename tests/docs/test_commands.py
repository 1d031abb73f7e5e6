"""Every command that a document writes down can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import click

from servingrepo.cli.main import main

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")]
OWN_FLAGS = {"run-server"}
"""Commands with tensorflow_model_server's flags, which click does not know."""


def written(text: str) -> list[list[str]]:
    """Return the words of each command, without what stands before the command's name."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [
        line
        for block in blocks
        for line in re.findall(r"^\$ .*?(?:(?<!\\)$)", block, re.MULTILINE | re.DOTALL)
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    names = "|".join(main.list_commands(click.Context(main)))
    found = [one for line in lines for one in re.findall(r"(?:^\$ |\()servingrepo (.*)", line)]
    found += re.findall(rf"`(?:servingrepo )?((?:{names}) [^`]+)`", prose)
    found += re.findall(r"`servingrepo ([^`]+)`", prose)
    return [re.split(r"\s+#|[;)]", one)[0].split() for one in found if one]


def wrong(words: list[str]) -> str:
    """Say what of a command is not there; empty if it can be typed."""
    group: click.Command = main
    known = {option for one in main.params for option in one.opts}
    while words and isinstance(group, click.Group):
        name = words.pop(0)
        if name.startswith("-"):
            continue
        found = group.get_command(click.Context(group), name.partition("|")[0])
        if found is None:
            return f"there is no {name}"
        group = found
        known |= {option for one in group.params for option in (*one.opts, *one.secondary_opts)}
    if group.name in OWN_FLAGS:
        return ""
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(f"{group.name} has no {one}" for one in options if one not in known)


def test_every_command_of_the_documents_can_be_typed() -> None:
    commands = [(path.name, one) for path in DOCUMENTS for one in written(path.read_text())]
    assert len(commands) > 50
    assert [
        (name, said, " ".join(words)) for name, words in commands if (said := wrong([*words]))
    ] == []


def test_what_cannot_be_typed_is_told() -> None:
    assert wrong(["promot", "RUN"]) == "there is no promot"
    assert wrong(["promote", "RUN", "--modle", "x"]) == "promote has no --modle"
    assert wrong(["--root", "x"]) == "there is no x"
    assert wrong(["label", "set", "ranker@7", "stable", "--serve"]) == ""
