"""`models.config` on disk: the second commit point (C2), and the only record of what is served."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from servingrepo.errors import ConfigEdited, ConfigInvalid, RepositoryDamaged, StorageFailed
from servingrepo.modelconfig import (
    EMPTY,
    Entry,
    ModelConfig,
    Stamp,
    decode,
    diff,
    entry,
    how_to_write,
    is_model_name,
    models,
    names_by_version,
    parse,
    read_stamp,
    render,
)
from servingrepo.modelconfig.names import why_not_a_path
from servingrepo.repository.repository import (
    Repository,
    load_marker,
    load_state,
    model_names,
    names_on_disk,
    need_state,
    save_marker,
)
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import names_in, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from servingrepo.modelconfig import DiskFacts, EntryKind, Finding

T = TypeVar("T")
_MOST_READS = 20

MODEL_FILES = frozenset({"saved_model.pb", "saved_model.pbtxt"})


_UNREADABLE_HINT = (
    "correct it and take it over: servingrepo config write --take-edit, or restore the last one that "
    "servingrepo wrote: servingrepo config write --discard-edit"
)


class ConfigFile(msgspec.Struct, frozen=True):
    """models.config as it is on disk.

    `text` is None where there is no file. `lost` says that servingrepo wrote a file and that it is gone. `unknown`
    says why the file cannot be read.
    """

    text: str | None
    config: ModelConfig
    lost: bool = False
    unknown: str = ""

    @property
    def stamp(self) -> Stamp:
        """Who wrote the file. It is computed on demand, because most readers do not need it."""
        if self.text is None:
            return Stamp.EDITED if self.lost else Stamp.UNEDITED
        return read_stamp(self.text)


def read_config(repo: Repository) -> ConfigFile:
    """Read models.config. A missing file is the empty config; it counts as edited if we ever wrote the file.

    Raises:
        ConfigInvalid: The file is no model config.
    """
    path = repo.layout.config
    with storage_errors("read", path):
        try:
            data = read_whole(path)
        except FileNotFoundError:
            return ConfigFile(text=None, config=EMPTY, lost=last_text(repo) is not None)
    try:
        text = decode(data, source=str(path))
        return ConfigFile(text=text, config=parse(text, source=str(path)))
    except ConfigInvalid as invalid:
        ours = last_text(repo) is not None
        invalid.hint = (
            _UNREADABLE_HINT if ours else f"{how_to_write(data)}; then this command again"
        )
        raise


def config_text(repo: Repository) -> str:
    """Return the text of models.config, even if it is no model config. Bytes that are not UTF-8 become escapes.

    Raises:
        StorageFailed: The file cannot be read.
    """
    with storage_errors("read", repo.layout.config):
        return read_whole(repo.layout.config).decode(errors="backslashreplace")


def current_text(repo: Repository) -> str:
    """Return the text as `config_text` does; empty where there is no file."""
    return config_text(repo) if repo.layout.config.exists() else ""


def read_steadily(repo: Repository, read: Callable[[ConfigFile], T]) -> T:
    """Read the repository in a moment in which models.config does not change, and return the result of `read`.

    Readers take no lock. A rollback replaces models.config first and then marks the version that it left as bad. A
    reader of the old file and the new mark would report a bad version that is served. So we read again if the file
    changed meanwhile, at most 20 times: a file that changes more often than that never stands still. Where the file
    cannot be read, `read` gets the empty config and the reason.
    """
    for _ in range(_MOST_READS):
        file = read_config_or_why(repo)
        result = read(file)
        if file.unknown or _holds(repo.layout.config, file.text):
            break
    return result


def read_config_or_why(repo: Repository) -> ConfigFile:
    """Read models.config for a command that changes nothing; if that fails, return an empty config and the reason."""
    try:
        return read_config(repo)
    except ConfigInvalid as error:
        return ConfigFile(text=None, config=EMPTY, lost=True, unknown=error.message)


def read_own_config(repo: Repository, *, replaces: bool = True) -> ModelConfig:
    """Return the config if servingrepo wrote it. Every change of models.config starts from this value.

    Args:
        repo: The repository.
        replaces: Whether the caller is about to replace the file.

    Raises:
        ConfigEdited: Another writer made or changed the file; the message has the diff.
        ConfigInvalid: The file is no model config, or the server would refuse it.
        RepositoryDamaged: The file is a link or mounted by itself, so we cannot replace it.
    """
    if replaces:
        refuse_unreplaceable(repo)
    file = read_config(repo)
    if file.stamp is not Stamp.UNEDITED:
        raise edited(repo, file)
    return file.config


def why_unreplaceable(repo: Repository) -> str:
    """Say why we cannot replace models.config; return an empty text if we can."""
    path = repo.layout.config
    with storage_errors("read", path):
        if path.is_symlink():
            return f"{path} is a link to {path.readlink()}: a new file in its place would not change the linked file"
        mounts = {_mount_of(place) for place in (path, path.parent) if place.exists()}
    if len(mounts) > 1:
        return f"{path} is mounted by itself: servingrepo cannot replace it, and servers would read the old one"
    return ""


UNREPLACEABLE_HINT = (
    "servingrepo replaces models.config whole, so it has to be a file in the repository's own directory; a file of a "
    "ConfigMap cannot be replaced. Put the file itself there, take it over (servingrepo config write --take-edit), "
    "and mount the directory in servers"
)


def refuse_unreplaceable(repo: Repository) -> None:
    """Refuse to write a models.config that is a link, as in a ConfigMap's volume, or is mounted by itself.

    Raises:
        RepositoryDamaged: It is a link, or mounted by itself.
    """
    why = why_unreplaceable(repo)
    if why:
        raise RepositoryDamaged(f"{why}; nothing was changed", hint=UNREPLACEABLE_HINT)


def _mount_of(path: Path) -> str:
    """Return the kernel's number of the mount that a path is on (proc(5), fdinfo)."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    finally:
        os.close(descriptor)
    number = re.search(r"^mnt_id:\s*(\d+)$", text, re.MULTILINE)
    return number[1] if number is not None else ""


def edited(repo: Repository, file: ConfigFile) -> ConfigEdited:
    """Return the error for a config that another writer made or changed; it has the diff."""
    path = repo.layout.config
    last = last_text(repo)
    if file.text is None:
        message = f"{path} was removed since servingrepo wrote it"
    elif file.stamp is Stamp.FOREIGN and last is None:
        message = f"{path} was not written by servingrepo"
    else:
        message = f"{path} was edited by hand since servingrepo wrote it"
    changes = diff(last or "", file.text or "", old="as written", new="as edited")
    return ConfigEdited(
        message,
        problems=changes.splitlines() if last is not None else (),
        hint="keep the edit: servingrepo config write --take-edit; or go back to what servingrepo "
        "wrote: servingrepo config write --discard-edit (either keeps a backup)"
        if last is not None
        else "servingrepo adopt --all takes it and its models under management; or take it over as it is: "
        "servingrepo config write --take-edit (it keeps a backup)",
    )


def last_text(repo: Repository) -> str | None:
    """Return the text that servingrepo wrote last; None if it never wrote one."""
    with storage_errors("read", repo.layout.last_config):
        try:
            return read_whole(repo.layout.last_config).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            return None


def write_config(repo: Repository, config: ModelConfig) -> bool:
    """Replace models.config whole and atomically: C2. Return whether it was written; equal content is left alone.

    The copy of the last text is written first, so that after C2 no write can fail for lack of space. After a crash
    the copy may be ahead of the file; recovery corrects it.
    """
    text = render(config)
    path = repo.layout.config
    if _holds(path, text):
        return False
    refuse_unreplaceable(repo)
    last = last_text(repo)
    repo.disk.replace_file(repo.layout.last_config, text.encode(), step="c2-copy")
    try:
        repo.disk.replace_file(path, text.encode(), step="c2")
    except StorageFailed:
        if last is not None and not _holds(path, text):
            # C2 did not happen: the copy must not have a config that was never served.
            repo.disk.replace_file(repo.layout.last_config, last.encode(), step="c2-copy-back")
        raise
    return True


def put_config_back(repo: Repository, text: str) -> None:
    """Replace models.config by a text that it had before, byte for byte: C2.

    A text that servingrepo did not write has no copy, as before it was replaced.
    """
    if not _holds(repo.layout.config, text):
        refuse_unreplaceable(repo)
        if read_stamp(text) is not Stamp.UNEDITED:
            repo.disk.remove_file(repo.layout.last_config)
        else:
            repo.disk.replace_file(repo.layout.last_config, text.encode(), step="c2-copy")
        repo.disk.replace_file(repo.layout.config, text.encode(), step="c2")


def _holds(path: Path, text: str | None) -> bool:
    """Tell whether a file is there and has exactly this text; with None, whether it is not there."""
    with storage_errors("read", path):
        try:
            data = read_whole(path)
        except FileNotFoundError:
            return text is None
    return text is not None and data == text.encode()


def below_server_root(
    repo: Repository, config: ModelConfig, root: str, *, before: Collection[str]
) -> ModelConfig:
    """Move the base paths of our models from the server roots in `before` to `root`, and return the config.

    Servers see the same versions there. An entry with any other base path stays: its versions are elsewhere.
    """
    if not before:
        return config
    from servingrepo.modelconfig import move, same_base_path

    ours = {name for name in model_names(repo) if is_model_name(name)}
    for model in models(config):
        path = repo.layout.path(model.name)
        old = {same_base_path(f"{place}/{path}") for place in before}
        new = f"{root}/{path}"
        if model.name in ours and same_base_path(model.base_path) in old and model.base_path != new:
            config = move(config, model.name, new)
    return config


def forget_roots_before(repo: Repository) -> None:
    """Remove the earlier server roots from the marker, once no base path of ours is below one of them."""
    marker = load_marker(repo)
    if marker is not None and marker.server_roots_before:
        save_marker(repo, msgspec.structs.replace(marker, server_roots_before=()))


def need_model(repo: Repository, model: str) -> None:
    """Refuse a model that is neither ours nor in models.config. For commands that change nothing.

    Raises:
        NoSuchVersion: It is neither; the message lists the models that we have.
    """
    if entry(read_config_or_why(repo).config, model) is None:
        need_state(repo, model)


def is_elsewhere(repo: Repository, one: Entry) -> bool:
    """Tell whether the base path of an entry is another than that of our model of the same name, by its path.

    Such a model is unmanaged: we show it and never change it, and what is on our disk is not its versions.
    """
    from servingrepo.modelconfig import same_base_path

    roots = (repo.server_root, *repo.server_roots_before)
    ours = {same_base_path(f"{root}/{repo.layout.path(one.name)}") for root in roots}
    return same_base_path(one.base_path) not in ours


def why_not_there(repo: Repository, one: Entry) -> str:
    """Say why a model cannot have the base path of its entry for its own; empty if it has it or can get it.

    Another model may still be in its way.
    """
    if not is_elsewhere(repo, one):
        return ""
    folder = folder_of(repo, one.base_path)
    if folder is None:
        return (
            f"its versions are at the base path {one.base_path}, and this repository sees {repo.layout.models} as "
            f"{repo.server_root}: move them below it and correct the entry, or, if servers see it elsewhere, "
            "servingrepo config write --server-root ROOT"
        )
    why = why_not_a_path(folder.relative_to(repo.layout.models).as_posix())
    if why is not None:
        return (
            f"its base path is {one.base_path}, and servingrepo keeps no model there: {why}; move its versions to "
            f"{repo.layout.models}/{one.name} and correct the entry"
        )
    if load_state(repo, one.name) is not None:
        return (
            f"its base path is {one.base_path}, and servingrepo keeps other versions of that name at "
            f"{repo.base_path(one.name)}: give it another name, or move its versions there and correct the entry"
        )
    return ""


def base_path_elsewhere(repo: Repository, config: ModelConfig, model: str) -> str:
    """Return a model's base path if its versions are elsewhere (see `is_elsewhere`), else an empty text."""
    found = entry(config, model)
    return found.base_path if found is not None and is_elsewhere(repo, found) else ""


def say_elsewhere(repo: Repository, model: str, base_path: str) -> str:
    """Say in one sentence that a model is unmanaged, with both paths."""
    return (
        f"{model} is unmanaged: its versions are at the base path {base_path or '(none)'}, and this repository "
        f"keeps a model of that name at {repo.base_path(model)} ({repo.layout.model(model)} on this machine)"
    )


def refuse_elsewhere(repo: Repository, config: ModelConfig, *names: str) -> None:
    """Refuse to change models whose versions are elsewhere: a new base path would take these away from clients.

    Raises:
        ConfigInvalid: A model is elsewhere. The error names all such models, both paths and what to do.
    """
    base_paths = {name: base_path_elsewhere(repo, config, name) for name in names}
    elsewhere = {name: base_path for name, base_path in base_paths.items() if base_path}
    if not elsewhere:
        return
    problems = [say_elsewhere(repo, name, base_path) for name, base_path in elsewhere.items()]
    raise ConfigInvalid(
        f"{problems[0]}; nothing was changed",
        problems=problems if len(problems) > 1 else (),
        hint=_how_to_manage(repo, config, *next(iter(elsewhere.items()))),
        details={"base_paths": elsewhere},
    )


def read_config_of(repo: Repository, *names: str) -> ModelConfig:
    """Return the config as `read_own_config` does, for a change of the entries of these models.

    Raises:
        ConfigEdited, ConfigInvalid: As for `read_own_config`; or the versions of a model are elsewhere.
    """
    config = read_own_config(repo)
    refuse_elsewhere(repo, config, *names)
    return config


def _how_to_manage(repo: Repository, config: ModelConfig, model: str, base_path: str) -> str:
    """Say how to bring a model under management: adopted where it is, if we see it, else copied.

    Another server root is proposed only where it fits all models.
    """
    folder, found = folder_of(repo, base_path), entry(config, model)
    if folder is not None and folder.is_dir() and found and not why_not_there(repo, found):
        return f"servingrepo adopt {model} takes it under management where it lies ({folder})"
    write = "servingrepo config write"
    hint = (
        f"promote under another name; or copy its versions to {repo.layout.model(model)}, write "
        f'base_path: "{repo.base_path(model)}" into {repo.layout.config}, then {write} --take-edit'
    )
    root = base_path.rstrip("/").removesuffix(f"/{repo.layout.path(model)}")
    fits = root.startswith("/") and all(
        one.base_path.rstrip("/") == f"{root}/{repo.layout.path(one.name)}"
        for one in models(config)
    )
    if fits and repo.layout.model(model).is_dir():
        return f"if servers see {repo.layout.models} as {root}: {write} --server-root {root}; else {hint}"
    return hint


def pins(config: ModelConfig, model: str) -> tuple[int, ...]:
    """Return the versions that the config pins for a model, ascending."""
    found = entry(config, model)
    return found.versions if found is not None else ()


def served_by_policy(one: Entry, on_disk: Collection[int]) -> frozenset[int]:
    """Return the versions that an entry serves of those on disk (file_system_storage_path_source.cc)."""
    match one.policy:
        case "specific":
            return frozenset(one.versions)
        case "all":
            return frozenset(on_disk)
        case _:
            return frozenset(sorted(on_disk)[-max(one.latest_count, 1) :])


def served_versions(repo: Repository, config: ModelConfig, model: str) -> tuple[int, ...]:
    """Return the versions that the config serves of a model, ascending.

    Usually they are pinned. A hand-written entry may have the policy `latest` or `all`, or none: then the versions on
    disk decide, unmanaged ones included. If that entry's versions are elsewhere, we cannot see them and return none.
    """
    found = entry(config, model)
    if found is None or (found.policy != "specific" and is_elsewhere(repo, found)):
        return ()
    on_disk = names_on_disk(repo, model) or () if found.policy != "specific" else ()
    return tuple(sorted(served_by_policy(found, on_disk)))


def disk_facts(
    repo: Repository, config: ModelConfig, *, only: str | None = None
) -> dict[str, DiskFacts]:
    """Return what each entry's base path holds on this disk, for `check`, by base path as the config has it.

    We can see only base paths below `server_root`. The others are left out, and `check` says nothing of them. `only`
    is as in `check`. Of 50,000 versions, only those are looked into that an entry wants.
    """
    by_path: dict[str, list[Entry]] = {}
    for one in models(config, only=only):
        by_path.setdefault(one.base_path, []).append(one)
    return {
        base_path: _facts_of(folder, entries)
        for base_path, entries in by_path.items()
        if (folder := folder_of(repo, base_path)) is not None
    }


def _facts_of(folder: Path, entries: Collection[Entry]) -> DiskFacts:
    """Return what a folder holds that is the base path of these entries."""
    from servingrepo.modelconfig import DiskFacts
    from servingrepo.modelconfig.disk import wanted_versions

    with storage_errors("read", folder):
        try:
            names = names_in(folder)
        except (FileNotFoundError, NotADirectoryError):
            return DiskFacts(exists=False)
    found = names_by_version(names)
    wanted = {number for one in entries for number in wanted_versions(one, list(found))}
    return DiskFacts(
        exists=True,
        entries={
            name: _kind(folder / name) if number in wanted else None
            for number, several in found.items()
            for name in several
        },
        flat=not MODEL_FILES.isdisjoint(names),
    )


def check_config(
    repo: Repository, config: ModelConfig, *, only: str | None = None
) -> tuple[Finding, ...]:
    """Check a config against TF Serving's rules and against what is on this disk; `only` is as in `check`."""
    from servingrepo.modelconfig import check

    return check(config, disk=disk_facts(repo, config, only=only), only=only)


def unseen_base_paths(repo: Repository, config: ModelConfig) -> tuple[str, ...]:
    """Return the base paths that are not below the server root: we cannot see what they hold."""
    return tuple(one.base_path for one in models(config) if folder_of(repo, one.base_path) is None)


def folder_of(repo: Repository, base_path: str) -> Path | None:
    """Return the folder of our models directory that servers see as a base path; None if it is none of these."""
    from servingrepo.modelconfig import same_base_path

    for root in (repo.server_root, *repo.server_roots_before):
        start, seen = f"{same_base_path(root)}/", same_base_path(base_path)
        if seen.startswith(start) and seen != start and ".." not in base_path.split("/"):
            return repo.layout.models / seen.removeprefix(start)
    return None


def _kind(path: Path) -> EntryKind:
    """Say what a child of a base path is. Links are followed, as TF Serving follows them."""
    if not path.exists():
        return "broken-link"
    if not path.is_dir():
        return "not-a-directory"
    names = _names(path)
    if MODEL_FILES & names:
        return "saved-model"
    return "no-saved-model" if names else "empty"


def _names(path: Path) -> set[str]:
    try:
        return set(names_in(path))
    except OSError:
        return set()
