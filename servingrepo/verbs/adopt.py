"""adopt: takes models under management where they lie. Nothing is copied, moved or reloaded.

First a plan by names and entries, then every byte and tensor is read without the lock. Under the lock everything is
compared with what was read, and one transaction writes records, states and pins.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    ConfigInvalid,
    NoPermission,
    NoSuchVersion,
    NothingToRollBack,
    ServingRepoError,
    SourceChanged,
    UsageError,
    every_error,
)
from servingrepo.modelconfig import EMPTY, ModelConfig, Stamp, decode, diff, models, parse, render
from servingrepo.modelconfig.paths import START_FLAGS
from servingrepo.repository.adoptable import (
    Becomes,
    Left,
    ModelPlan,
    find_models,
    new_paths,
    pinned,
    plan_model,
    without,
)
from servingrepo.repository.adoption import (
    ADOPT,
    UNDO,
    Adoption,
    changes_since,
    config_digest,
    newest_adoption,
    take,
    take_back,
)
from servingrepo.repository.config import (
    current_text,
    edited,
    last_text,
    read_config,
    refuse_unreplaceable,
)
from servingrepo.repository.examination import (
    About,
    Question,
    children_for,
    examine_all,
    seal_of,
    waiting_records,
)
from servingrepo.repository.journal import Intent
from servingrepo.repository.proving import Trial, prove, smoking
from servingrepo.repository.records import ModelState, Proof, VersionRecord, encode
from servingrepo.repository.repository import load_state, me, model_names, new_txid, reread
from servingrepo.repository.transaction import declared, new_event, writing
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.smoke.report import judge
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import read_whole
from servingrepo.storage.scratch import Place
from servingrepo.storage.tree import read_tree, size_below
from servingrepo.texts import as_path, plural, some
from servingrepo.verbs.cases import cases_beside
from servingrepo.verbs.engines import engine_for
from servingrepo.verbs.restore import recover

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from servingrepo.repository.examination import Answer
    from servingrepo.repository.history import Event
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.storage.scratch import Spool
    from servingrepo.verbs.options import AdoptOptions, ChangeOptions

__all__ = ["Adopted", "AdoptedModel", "Undone", "adopt", "undo"]


_LATEST = {"default": "latest"}
"""What a server takes no policy for (file_system_storage_path_source.cc)."""


class AdoptedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was adopted, or would be in a dry run.

    Attributes:
        model: Its name.
        path: Its directory.
        versions: The versions that were adopted, ascending.
        size: The bytes of all their files.
        pins: What models.config serves, before and after.
        policy: The policy that was replaced by these pins: `latest`, `all` or `default`; empty if there was none.
        entry: What became of its entry.
        labels: The labels of its entry.
        proofs: Smoke tests of its served versions; empty: not smoke-tested.
        notes: What to know of it.
    """

    model: str
    path: str
    versions: tuple[int, ...]
    size: int
    pins: tuple[int, ...]
    policy: str
    entry: Becomes
    labels: dict[str, int]
    proofs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an adoption, or of its dry run.

    Attributes:
        models: The models that were adopted.
        left: The models and versions that stay unmanaged, each with the reason.
        diff: The change of models.config.
        start_with: Flags with which servers have to be started once; empty if they read this models.config already.
        config: The models.config elsewhere that servers read until now; empty if there is none.
        dry_run: Whether nothing was changed. Then no data file was read.
    """

    models: tuple[AdoptedModel, ...]
    left: tuple[Left, ...]
    diff: str
    start_with: tuple[str, ...] = ()
    config: str = ""
    dry_run: bool


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """The adoption that was taken back, or would be in a dry run: its models, and the change of models.config."""

    txid: str
    models: tuple[str, ...]
    versions: int
    diff: str
    dry_run: bool


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version that was read: its size, the state of its files, and where its record waits; None in a dry run."""

    number: int
    size: int
    seal: bytes
    record: Place | None = None
    proofs: tuple[Proof, ...] = ()


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was read."""

    plan: ModelPlan
    versions: tuple[Version, ...]


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What an adoption starts from: the text of models.config, and the config whose entries count."""

    text: str
    config: ModelConfig
    plans: tuple[ModelPlan, ...]
    left: tuple[Left, ...]
    fresh: bool


def adopt(repo: Repository, names: Sequence[str], options: AdoptOptions) -> Adopted:
    """Take models under management where they lie; see `servingrepo adopt`.

    Every byte is hashed, every tensor checked, and each export inspected; a dry run reads graphs and indexes only.
    Models that are named are adopted all or none. With `all` those that can be adopted are; `left` has the others. If
    nothing can be adopted, that is an error.

    Raises:
        NoSuchVersion: There is no model of a name.
        ConfigEdited, ConfigInvalid, RepositoryDamaged: models.config was edited, cannot be read or not be replaced.
        DamagedExport, UnsafeExport and others: A model that was named cannot be adopted; the error lists all reasons.
        SourceChanged: A file, a version or models.config changed meanwhile; nothing was changed.
        NoPermission: The repository cannot be written.
    """
    _refuse_no_subject(names, options)
    _refuse_unwritable(repo)
    engine = engine_for(repo, options.engine) if options.smoke and not options.dry_run else None
    if not options.dry_run:  # what a dead command left must not count as ours
        recover(repo)
        repo = reread(repo)
    start = _start(repo, names, options)
    txid = new_txid(repo)
    with nullcontext() if options.dry_run else waiting_records(repo) as waiting:
        read, left = _read_all(repo, start.plans, options, txid=txid, waiting=waiting)
        read, failed = _prove_all(repo, read, engine, options)
        left = (*start.left, *left, *failed)
        if names or not (read or options.dry_run):
            _refuse(left)
        config = start.config
        for one in read:
            config = pinned(config, one.plan)
        if waiting is not None and read:
            records = _records(waiting, read)
            _commit(repo, start, config, read, records, txid=txid, message=options.message)
    return Adopted(
        models=tuple(map(_adopted, read)),
        left=left,
        diff=diff(start.text, render(config), old="models.config", new="models.config as written")
        if read
        else "",
        start_with=_start_with(repo, read, options),
        config=str(options.config or "") if read else "",
        dry_run=options.dry_run,
    )


def undo(repo: Repository, options: ChangeOptions) -> Undone:
    """Take the last adoption back: models.config gets the bytes that it had before, records and states go.

    Raises:
        NothingToRollBack: There is no adoption, or something changed since; the error lists what.
    """
    with writing(repo, dry_run=options.dry_run):
        adoption = newest_adoption(repo)
        if adoption is None:
            raise NothingToRollBack(
                "there is no adoption to take back", hint="servingrepo history shows what happened"
            )
        _refuse_changed_since(repo, adoption)
        refuse_unreplaceable(repo)
        text = current_text(repo)
        if not options.dry_run:
            name = f"{adoption.txid}.undo"
            about = new_event(repo, txid=name, action=UNDO, model="", why=options.message)
            intent = Intent(txid=adoption.txid, command=UNDO, owner=me(), model="", event=about)
            with declared(repo, intent):
                take_back(repo, adoption, about)
    return Undone(
        txid=adoption.txid,
        models=adoption.models,
        versions=sum(len(event.versions) for event in adoption.events),
        diff=diff(text, adoption.config_before, old="models.config", new="models.config as before"),
        dry_run=options.dry_run,
    )


def _refuse_no_subject(names: Sequence[str], options: AdoptOptions) -> None:
    if bool(names) == options.all:
        raise UsageError(
            "names and --all contradict each other" if names else "no model to adopt",
            hint="servingrepo adopt NAME, or servingrepo adopt --all; --dry-run shows the plan",
        )


def _refuse_unwritable(repo: Repository) -> None:
    """Refuse a repository that this user cannot write, before hours of reading.

    Raises:
        NoPermission: It cannot be written.
    """
    for folder in (repo.layout.models, repo.root):
        if not os.access(folder, os.W_OK, effective_ids=True):
            raise NoPermission(
                f"cannot write to {folder}: adopting writes models.config and records, nothing else",
                hint="run it as a user who may write there, on a machine where that is not mounted read-only",
            )


def _start(repo: Repository, names: Sequence[str], options: AdoptOptions) -> Start:
    """Plan the adoption by names and entries.

    Raises:
        NoSuchVersion: There is no model of a name.
        ConfigEdited, ConfigInvalid, RepositoryDamaged: models.config was edited, cannot be read or not be replaced.
    """
    refuse_unreplaceable(repo)
    file = read_config(repo)
    if file.stamp is Stamp.EDITED or (file.stamp is Stamp.FOREIGN and last_text(repo) is not None):
        raise edited(repo, file)
    config = file.config
    if options.config is not None:
        config = _config_elsewhere(as_path(options.config, "path"), config)
    found = find_models(repo, config)
    known = {one.model for one in found}
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        raise NoSuchVersion(
            f"there is no model {some(unknown)} in {repo.layout.models} or in its models.config",
            hint=f"models that may be adopted: {some(sorted(known), most=20) or 'none'}",
        )
    fresh = not models(config) and not model_names(repo)
    plans: list[ModelPlan] = []
    left: list[Left] = []
    for one in found:
        if names and one.model not in names:
            continue
        plan = plan_model(one, config, server_root=repo.server_root, fresh=fresh)
        if isinstance(plan, Left):
            left.append(plan)
        elif plan.changes:
            plans.append(plan)
        else:
            left += plan.left
    text = file.text if file.text is not None else render(EMPTY)
    return Start(text=text, config=config, plans=tuple(plans), left=tuple(left), fresh=fresh)


def _config_elsewhere(path: Path, own: ModelConfig) -> ModelConfig:
    """Read the models.config that servers read until now.

    Raises:
        ConfigInvalid: It is no model config, or the repository's own has entries already.
    """
    if models(own):
        raise ConfigInvalid(
            f"the repository's own models.config has entries, so those of {path} cannot be taken",
            hint="leave --config out; or write what is missing into models.config by hand",
        )
    with storage_errors("read", path):
        return parse(decode(read_whole(path), source=str(path)), source=str(path))


# Reading, without the lock -----------------------------------------------------------------------


def _read_all(
    repo: Repository,
    plans: Sequence[ModelPlan],
    options: AdoptOptions,
    *,
    txid: str,
    waiting: Spool | None,
) -> tuple[tuple[Read, ...], tuple[Left, ...]]:
    """Read the versions of all plans. Return the models that can be adopted, and what stays unmanaged."""
    found: dict[str, dict[int, Version | Left]] = {plan.model: {} for plan in plans}
    places = (_place(repo, plan, number) for plan in plans for number in plan.versions)
    if options.sizes is not None:
        options.sizes(sum(map(size_below, places)))

    def took(question: Question, answer: Answer) -> None:
        if answer.changed:
            raise _changed([answer.changed])
        if answer.left is not None:
            found[question.model][question.number] = answer.left
        elif answer.found is not None:
            one = answer.found
            found[question.model][question.number] = Version(
                number=question.number,
                size=one.size,
                seal=one.seal,
                record=waiting.add(one.record) if waiting is not None else None,
            )

    examine_all(
        About(txid=txid, message=options.message, by=me(), dry_run=options.dry_run),
        _questions(repo, plans),
        children=children_for(sum(len(plan.versions) for plan in plans)),
        progress=options.progress,
        took=took,
    )
    left: list[Left] = []
    done: list[Read] = []
    for plan in plans:
        kept = _kept(plan, [found[plan.model][number] for number in plan.versions], left)
        if kept is not None:
            done.append(kept)
            left += kept.plan.left
    return tuple(done), tuple(left)


def _questions(repo: Repository, plans: Sequence[ModelPlan]) -> Iterator[Question]:
    for plan in plans:
        for number in plan.versions:
            place = os.fsencode(_place(repo, plan, number))
            yield Question(model=plan.model, number=number, place=place, time=repo.now())


def _kept(plan: ModelPlan, found: Sequence[Version | Left], left: list[Left]) -> Read | None:
    """Take the versions that were left out of a plan. If the model stays unmanaged, note why and return None."""
    rest = without(plan, tuple(one for one in found if isinstance(one, Left)))
    if isinstance(rest, Left):
        left.append(rest)
        return None
    return Read(plan=rest, versions=tuple(one for one in found if isinstance(one, Version)))


def _place(repo: Repository, plan: ModelPlan, number: int) -> Path:
    return repo.layout.models / plan.path / str(number)


def _prove_all(
    repo: Repository, read: Sequence[Read], engine: Engine | None, options: AdoptOptions
) -> tuple[tuple[Read, ...], tuple[Left, ...]]:
    """Smoke-test the served versions, if there is an engine for it. A model that fails stays unmanaged."""
    if engine is None:
        return tuple(read), ()
    done: list[Read] = []
    left: list[Left] = []
    for one in read:
        try:
            done.append(_proven(repo, one, engine, options))
        except ServingRepoError as error:
            reason = "; ".join([f"its smoke test failed: {error.message}", *error.problems])
            left.append(Left(model=one.plan.model, slug=error.slug, reason=reason))
    return tuple(done), tuple(left)


def _proven(repo: Repository, read: Read, engine: Engine, options: AdoptOptions) -> Read:
    """Serve each served version of a model where it lies, send it requests, and add the proofs to the records.

    Raises:
        SmokeFailed, LoadFailed and other errors of the engine: A smoke test failed.
    """
    plan, versions = read.plan, []
    for one in read.versions:
        if one.number not in plan.pins:
            versions.append(one)
            continue
        path = _place(repo, plan, one.number)
        options.notice(f"{plan.model}@{one.number} is smoke-tested")
        with smoking(repo, plan.model, one.number, engine) as txid:
            trial = Trial(
                model=plan.model,
                version=one.number,
                export=path,
                inspection=inspect_export(path, boundary=path),
                cases=cases_beside(repo, plan.model, options.smoke_cases),
                txid=txid,
            )
            proof = prove(
                engine, trial, timeout=options.timeout, time=repo.now(), notice=options.notice
            )
        judge(proof.report, strict=options.strict)
        versions.append(msgspec.structs.replace(one, proofs=(proof,)))
    return msgspec.structs.replace(read, versions=tuple(versions))


def _refuse(left: Sequence[Left]) -> None:
    """Refuse an adoption if models stay unmanaged as a whole, with all reasons.

    Raises:
        ServingRepoError: There are such models; the class is that of the first reason.
    """
    whole = [one for one in left if not one.version]
    if not whole:
        return
    kinds = {kind.slug: kind for kind in every_error()}
    count = plural(len(whole), "model cannot be adopted", "models cannot be adopted")
    raise kinds[whole[0].slug](
        f"{count}; nothing was changed: {whole[0]}",
        problems=[str(one) for one in left] if len(left) > 1 else (),
        hint="correct that, or adopt the others: servingrepo adopt --all takes what can be adopted",
        details={"left": left},
    )


# The commit, under the lock ----------------------------------------------------------------------


def _records(waiting: Spool, read: Sequence[Read]) -> Iterator[tuple[str, int, bytes]]:
    """Yield the bytes of each record, with its model and number."""
    for one in read:
        for version in one.versions:
            if version.record is None:
                continue
            data = waiting.read(version.record)
            if version.proofs:
                record = msgspec.json.decode(data, type=VersionRecord)
                data = encode(msgspec.structs.replace(record, proofs=version.proofs))
            yield one.plan.model, version.number, data


def _commit(
    repo: Repository,
    start: Start,
    config: ModelConfig,
    read: Sequence[Read],
    records: Iterable[tuple[str, int, bytes]],
    *,
    txid: str,
    message: str,
) -> None:
    """Compare everything with what was read, then adopt it in one transaction.

    Raises:
        SourceChanged: Something changed meanwhile; nothing was changed.
    """
    with writing(repo):
        changed = list(_changes(repo, start, read))
        if changed:
            raise _changed(changed)
        states = [_state(repo, one) for one in read]
        about = new_event(repo, txid=txid, action=ADOPT, model="", why=message)
        adoption = Adoption(
            txid=txid,
            config_before=start.text,
            config_after=config_digest(render(config)),
            events=tuple(_event(one, number, about) for number, one in enumerate(read, start=1)),
            states={
                one.name: one.highest for one, of in zip(states, read, strict=True) if of.plan.new
            },
            paths=new_paths(repo, [one.plan for one in read]),
        )
        only = adoption.models[0] if len(read) == 1 else ""
        with declared(repo, Intent(txid=txid, command=ADOPT, owner=me(), model=only)):
            take(repo, adoption, config, records=records, states=states)


def _changes(repo: Repository, start: Start, read: Sequence[Read]) -> Iterator[str]:
    """Yield what is no longer as it was when it was read."""
    if (current_text(repo) or render(EMPTY)) != start.text:
        yield f"{repo.config_name} was changed"
    known = {one.model: one for one in find_models(repo, start.config)}
    before = {one.model: one for one in start.plans}
    for one in read:
        found = known.get(one.plan.model)
        plan = (
            plan_model(found, start.config, server_root=repo.server_root, fresh=start.fresh)
            if found is not None
            else None
        )
        if plan != before[one.plan.model]:
            yield f"{one.plan.model}: its versions, or what servingrepo knows of them, changed"
            continue
        for version in one.versions:
            path = _place(repo, one.plan, version.number)
            try:
                now = read_tree(path, boundary=path)
            except ServingRepoError as error:
                yield error.message
                continue
            if seal_of(now) != version.seal:
                yield f"{path}: its files changed"


def _changed(changes: Sequence[str]) -> SourceChanged:
    return SourceChanged(
        f"{changes[0]}, while it was adopted; nothing was changed",
        problems=changes if len(changes) > 1 else (),
        hint="find out which program writes there; adopt again when it has finished",
    )


def _state(repo: Repository, read: Read) -> ModelState:
    plan = read.plan
    state = load_state(repo, plan.model) or ModelState(name=plan.model)
    return msgspec.structs.replace(
        state,
        highest=max(state.highest, plan.highest),
        policy_before=_LATEST.get(plan.policy, plan.policy) or state.policy_before,
    )


def _event(read: Read, number: int, about: Event) -> Event:
    plan = read.plan
    return msgspec.structs.replace(
        about,
        id=f"{about.id}.{number}",
        model=plan.model,
        version=max(plan.pins, default=None),
        versions=plan.versions,
        before=plan.pins,
        after=plan.pins,
        proof="; ".join(str(proof) for one in read.versions for proof in one.proofs),
        labels_before=dict(plan.labels),
        labels_after=dict(plan.labels),
    )


def _adopted(read: Read) -> AdoptedModel:
    plan = read.plan
    proofs = [f"{one.number}: {proof}" for one in read.versions for proof in one.proofs]
    return AdoptedModel(
        model=plan.model,
        path=plan.path,
        versions=plan.versions,
        size=sum(one.size for one in read.versions),
        pins=plan.pins,
        policy=plan.policy,
        entry=plan.becomes,
        labels=dict(plan.labels),
        proofs=tuple(proofs),
        notes=plan.notes,
    )


def _start_with(repo: Repository, read: Sequence[Read], options: AdoptOptions) -> tuple[str, ...]:
    """Return the flags with which servers have to be started once, if they do not read this models.config yet."""
    new = any(one.plan.becomes == "new" for one in read)
    if not new and (options.config is None or not read):
        return ()
    return (f"--model_config_file={repo.server_root}/models.config", *START_FLAGS)


# Taking it back ----------------------------------------------------------------------------------


def _refuse_changed_since(repo: Repository, adoption: Adoption) -> None:
    """Refuse to take an adoption back if something changed since.

    Raises:
        NothingToRollBack: Something did; the error lists it.
    """
    problems = changes_since(repo, adoption)
    if problems:
        raise NothingToRollBack(
            f"the adoption of {some(adoption.models)} cannot be taken back any more: {problems[0]}",
            problems=problems if len(problems) > 1 else (),
            hint="servingrepo history shows what happened since; models.config can be written by hand, then "
            "servingrepo config write --take-edit",
        )
