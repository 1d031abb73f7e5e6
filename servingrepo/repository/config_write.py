"""`config write`: give models.config its canonical form or a new server root, and keep or undo an edit by hand."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import ConfigInvalid, StorageFailed
from servingrepo.modelconfig import (
    EMPTY,
    Finding,
    ModelConfig,
    Stamp,
    check,
    check_numbers,
    diff,
    models,
    parse,
    pin,
    render,
)
from servingrepo.repository import history
from servingrepo.repository.config import (
    below_server_root,
    current_text,
    edited,
    forget_roots_before,
    last_text,
    read_config,
    refuse_unreplaceable,
    served_versions,
    write_config,
)
from servingrepo.repository.repository import load_marker, new_txid, save_marker
from servingrepo.repository.transaction import new_event, recorded, writing
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import read_whole
from servingrepo.texts import as_text

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.repository.history import Event
    from servingrepo.repository.repository import Repository

Edit = Literal["refuse", "take", "discard"]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `config write`: the change as a diff, and where the replaced text was kept.

    `findings` has the surprises in the edit that was kept. The text that was written does not show them any more.
    """

    changed: bool
    diff: str
    backup: str | None
    server_root: str
    dry_run: bool
    findings: tuple[Finding, ...] = ()


def checked_server_root(server_root: str) -> str:
    """Check a server root, and return it without a slash at the end. Servers see the models directory there.

    Raises:
        ConfigInvalid: A server would refuse base paths below it.
        UsageError: A file cannot hold this text.
    """
    hint = (
        "give the absolute path under which the server sees the models directory; it is /models in the "
        "tensorflow/serving container"
    )
    if not server_root:
        raise ConfigInvalid("the server root is empty", hint=hint)
    if not as_text(server_root, "server root").startswith("/"):
        raise ConfigInvalid(f"the server root {server_root!r} is not an absolute path", hint=hint)
    root = server_root.rstrip("/")
    try:
        pin(EMPTY, name="m", base_path=f"{root}/m", versions=[1])
    except ConfigInvalid as error:
        raise ConfigInvalid(
            f"the server root {server_root!r} cannot be used: {error.message}", hint=hint
        ) from error
    return root


def rewrite(
    repo: Repository,
    *,
    edit: Edit = "refuse",
    server_root: str | None = None,
    dry_run: bool = False,
) -> Written:
    """Write models.config in its canonical form. With a new server root, base paths move there from the old one.

    `edit` says what happens to an edit by hand: `take` keeps it, `discard` undoes it, `refuse` stops. The first two
    make a backup of the file.

    Raises:
        ConfigEdited: The file was edited by hand, and `edit` is `refuse`.
        ConfigInvalid: A server would refuse the result; nothing was written.
    """
    root = repo.server_root if server_root is None else checked_server_root(server_root)
    with writing(repo, dry_run=dry_run):
        refuse_unreplaceable(repo)
        path = repo.layout.config
        old = current_text(repo)
        config, replaces_edit = _wanted(repo, edit)
        findings = check_numbers(config)
        roots_before = {*repo.server_roots_before, repo.server_root} - {root}
        config = below_server_root(repo, config, root, before=roots_before)
        text = render(config)
        problems = [str(one) for one in check(config) if one.severity == "error"]
        if problems:
            raise ConfigInvalid(
                f"TensorFlow Serving would refuse the new {path}; nothing was written",
                problems=problems,
                hint="correct the file by hand, then servingrepo config write --take-edit",
            )
        backup = None
        if not dry_run:
            if replaces_edit:
                backup = _back_up(repo, path)
            with ExitStack() as stack:
                for event in _events(repo, edit, config) if replaces_edit else ():
                    stack.enter_context(recorded(repo, event))
                if root != repo.server_root:
                    _note_server_root(repo, root, before=roots_before)
                write_config(repo, config)
                if root != repo.server_root or repo.server_roots_before:
                    with suppress(StorageFailed):  # recovery does it again
                        forget_roots_before(repo)
    return Written(
        changed=text != old,
        diff=diff(old, text, old="models.config", new="models.config as written"),
        backup=str(backup) if backup is not None else None,
        server_root=root,
        dry_run=dry_run,
        findings=findings,
    )


def _note_server_root(repo: Repository, root: str, *, before: set[str]) -> None:
    """Write the new server root into the marker, before any other change: recovery continues from there."""
    marker = load_marker(repo)
    if marker is not None:
        new = msgspec.structs.replace(
            marker, server_root=root, server_roots_before=tuple(sorted(before))
        )
        save_marker(repo, new)


def _wanted(repo: Repository, edit: Edit) -> tuple[ModelConfig, bool]:
    """Return the config to write, and whether it replaces a text that we did not write."""
    if edit == "discard":
        last = last_text(repo)
        if last is None:
            raise ConfigInvalid(
                f"servingrepo has never written {repo.layout.config}, so there is nothing to go back to",
                hint="servingrepo config write --take-edit takes it over as it is",
            )
        return parse(last, source=str(repo.layout.last_config)), current_text(repo) != last
    file = read_config(repo)
    if file.stamp is Stamp.UNEDITED:
        return file.config, False
    if edit == "refuse":
        raise edited(repo, file)
    return file.config, True


def _events(repo: Repository, edit: Edit, config: ModelConfig) -> list[Event]:
    """Return an event for each model whose pins or labels change.

    If the edit is kept, the state before is that of history. If it is undone, the state before is that of the edit.
    """
    before = EMPTY
    with suppress(ConfigInvalid):  # of a text that cannot be read, no pins are known
        if edit == "discard":
            before = read_config(repo).config
        elif last := last_text(repo):
            before = parse(last, source=str(repo.layout.last_config))
    old, new = ({one.name: one for one in models(each)} for each in (before, config))
    known = {} if edit == "discard" else _pins_in_history(repo)
    events = []
    for name in dict.fromkeys([*old, *known, *new]):
        pins = [served_versions(repo, each, name) for each in (before, config)]
        labels = [dict(each[name].labels) if name in each else {} for each in (old, new)]
        # The copy of the config is ahead of history where an earlier attempt died.
        pins[0] = known.get(name, pins[0])
        if pins[0] != pins[1] or labels[0] != labels[1]:
            event = new_event(
                repo,
                txid=new_txid(repo),
                action="config-write",
                model=name,
                version=max(pins[1], default=None),
                before=pins[0],
                after=pins[1],
                why="an edit by hand was undone"
                if edit == "discard"
                else "an edit by hand was kept",
                labels_before=labels[0],
                labels_after=labels[1],
            )
            events.append(event)
    return events


def _pins_in_history(repo: Repository) -> dict[str, tuple[int, ...]]:
    """Return what history says is pinned, by model."""
    pins: dict[str, tuple[int, ...]] = {}
    for event in history.read(repo.layout.history):
        if event.before or event.after:
            pins[event.model] = event.after
    return pins


def _back_up(repo: Repository, path: Path) -> Path | None:
    """Copy the file to our records, under a name with the time, and return the copy; None if there is no file."""
    if not path.exists():
        return None
    backup = repo.layout.own / f"models.config.{repo.clock():%Y%m%dT%H%M%S%fZ}.backup"
    with storage_errors("read", path):
        data = read_whole(path)
    repo.disk.replace_file(backup, data, step="backup")
    return backup
