"""Every shape of a secret, through everything that is recorded."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.masking import MASK, mask, mask_command, mask_text, masked
from servingrepo.repository.adoption import Adoption
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.lagging import LaggingServers
from servingrepo.repository.records import EXACT, Format, ModelState, VersionRecord, encode
from servingrepo.repository.verification import RoundState
from servingrepo.runs.mlflow import read_mlflow
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import list_run
from servingrepo.runs.tracing import Context, trace
from tests.masking.secrets import COMMANDS, HARMLESS, NAMED, PASSWORD, TEXTS, TOKENS, URLS, Secret
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.runs.origin import Origin

SHAPES = (*TOKENS, *URLS, *TEXTS)
PROGRAMS = ("curl", "docker", "mysql", "python", "sshpass", "train", "wandb", "--")


def recorded_of(run: Path, *typed: str) -> Origin:
    """What a promotion of a run records of where it comes from, typed as this command."""
    seen = list_run(run)
    return trace(seen, read_mlflow(seen.run), Context(command=typed), reads=FilesRead())


def everything_in(root: Path) -> str:
    """All that is in the files of a repository but the models' own."""
    return "\n".join(
        path.read_text(errors="replace")
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pb" and path.name != ".spare"
    )


def leaked(text: str, shapes: tuple[Secret, ...] = SHAPES) -> list[str]:
    return [
        one.text for one in shapes if one.hidden in text or json.dumps(one.hidden)[1:-1] in text
    ]


def words_of(one: Secret) -> list[str]:
    return shlex.split(one.text) if one.text.startswith(PROGRAMS) else [one.text]


def test_there_are_sixty_shapes_and_forty_that_are_none() -> None:
    assert len(SHAPES) >= 60
    assert len({one for one, _ in HARMLESS}) >= 40


@pytest.mark.parametrize("name", NAMED)
def test_a_value_is_hidden_by_its_name(name: str) -> None:
    assert mask(name, PASSWORD) == MASK
    assert mask(name, json.dumps(["a", PASSWORD])) == MASK


@pytest.mark.parametrize("one", SHAPES, ids=lambda one: one.text[:24])
def test_a_secret_is_hidden_wherever_it_stands(one: Secret) -> None:
    for text in (one.text, f"see {one.text}", f"{one.text} twice: {one.text}", f"a=1, {one.text}"):
        said = mask_text(text)
        assert leaked(said, (one,)) == []
        assert MASK in said
        assert mask_text(said) == said, "what was masked once is masked again in another way"


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_what_is_no_secret_is_kept(name: str, value: str) -> None:
    assert mask(name, value) == value
    assert mask_text(f"{name}={value}") == f"{name}={value}"
    assert mask_command(["train", f"--{name}", value]) == ["train", f"--{name}", value]


def test_no_secret_of_a_configuration_is_recorded(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=1)
    texts = {f"note{number}": one.text for number, one in enumerate(SHAPES)}
    named = {f"{name}": PASSWORD for name in NAMED}
    (run / "config.json").write_text(json.dumps({"texts": texts, "lr": 0.5}))
    (run / "params.json").write_text(json.dumps({"named": named}))
    origin = recorded_of(run)
    assert len(origin.config) == len(texts) + len(named) + 1
    assert leaked(repr(origin)) == []
    assert PASSWORD not in repr(origin)
    assert origin.config["lr"] == "0.5"


def test_no_secret_in_the_keys_of_a_configuration_is_recorded(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=1)
    (run / "config.json").write_text(json.dumps({one.text: "x" for one in SHAPES}))
    origin = recorded_of(run)
    assert len(origin.config) == len(SHAPES), "two keys that are masked alike became one"
    assert leaked(repr(origin)) == []


def test_no_secret_in_a_list_of_arguments_is_recorded(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=1)
    lists = {str(number): words_of(one) for number, one in enumerate(COMMANDS)}
    environment = [{"name": "DB_PASSWORD", "value": PASSWORD}, {"name": "LR", "value": "0.5"}]
    more = {"args": ["--db-password", PASSWORD], "port": ["--port", 8500], "env": environment}
    (run / "config.json").write_text(json.dumps({"lists": lists}))
    (run / "params.json").write_text(json.dumps(more))
    origin = recorded_of(run)
    assert leaked(repr(origin)) == []
    assert PASSWORD not in repr(origin)
    assert origin.config["args"] == json.dumps(["--db-password", MASK])
    assert origin.config["port"] == '["--port", 8500]'
    assert origin.config["env/1/value"] == "0.5"


@pytest.mark.parametrize("one", SHAPES, ids=lambda one: one.text[:24])
def test_no_secret_of_a_command_is_recorded(one: Secret, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=1)
    typed = ("servingrepo", "promote", "run", "--before", one.text, "-m", one.text, f"-m{one.text}")
    origin = recorded_of(run, *typed)
    assert leaked(origin.command, (one,)) == []
    split = recorded_of(run, "train", *words_of(one))
    assert leaked(split.command, (one,)) == []


def test_no_secret_of_a_message_is_recorded_or_shown(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    repo.promote(run_with(tmp_path / "run", offset=1), model="m", smoke=False)
    for one in SHAPES:
        repo.hold("m", message=one.text)
        repo.mark_bad("m@1", message=one.text)
        repo.mark_bad("m@1", clear=True, message=one.text)
        assert leaked(repr(repo.release_hold("m", message=one.text)), (one,)) == []
    assert len(list(repo.history())) == 4 * len(SHAPES) + 1
    assert leaked(everything_in(repo.root)) == []


def test_no_secret_that_was_typed_is_left_anywhere(tmp_path: Path) -> None:
    """The whole way: the lock and the journal are looked at while the command runs, by its own hook."""
    repo = new_repository(tmp_path / "repo")
    run = run_with(tmp_path / "run", offset=1)
    seen = tmp_path / "seen"
    own = repo.root / ".servingrepo"
    look = f"cp -r {own} {seen}; cat > {tmp_path}/record # curl -u me:{PASSWORD} --token {PASSWORD}"
    arguments = ["--root", repo.root, "promote", run, "--model", "m", "--no-smoke", "--json"]
    more = ["--after", look, "-m", f"password={PASSWORD}", "--header", f"x-any={PASSWORD}"]
    done = command(*map(str, arguments), *more, "--require", "accuracy >= 0")
    assert done.json["error"]["slug"] == "gate-failed"
    assert PASSWORD not in done.out + done.err
    done = command(*map(str, arguments), *more)
    assert done.code == 0, done.err
    assert done.json["result"]["hooks"][0]["command"].endswith(f"-u me:{MASK} --token {MASK}")
    assert PASSWORD not in done.out + done.err
    assert PASSWORD not in (tmp_path / "record").read_text()
    assert PASSWORD not in everything_in(seen) + everything_in(repo.root)
    failing = f"false # --token {PASSWORD}"
    done = command("--root", repo.root, "hold", "m", "-m", f"pw={PASSWORD}", "--json")
    assert PASSWORD not in done.out
    done = command("--root", repo.root, "serve", "m@1", "--before", failing)
    assert done.code != 0
    assert PASSWORD not in done.out + done.err
    assert PASSWORD not in everything_in(repo.root)


def test_a_holder_of_the_lock_leaves_no_secret_in_it(tmp_path: Path) -> None:
    """Somebody else reads the file while the command holds the lock, in the middle of its work."""
    repo = new_repository(tmp_path / "repo")
    run_with(tmp_path / "run", offset=1)
    # The lock keeps the start of a command only, and paths of tests are long.
    env = {"SERVINGREPO_ROOT": str(repo.root), "SERVINGREPO_FAILPOINTS": "c1.before-rename=kill"}
    arguments = ["promote", "run", "-m", f"password={PASSWORD}", "--model", "m", "--no-smoke"]
    done = command(*arguments, cwd=tmp_path, env=env)
    assert done.code < 0
    left = everything_in(repo.root)
    lock, intents = repo.value.layout.lock, repo.value.layout.journal.glob("*.json")
    assert MASK in lock.read_text()
    assert [MASK in one.read_text() for one in intents] == [True]
    assert PASSWORD not in left


def strings_of(kind: type) -> list[str]:
    """The fields of a struct, and of those in it, in which texts may stand, as Class.field."""
    found: list[str] = []
    seen: set[type] = set()

    def walk(one: msgspec.inspect.Type, where: str) -> None:
        if isinstance(one, msgspec.inspect.StructType):
            if one.cls not in seen:
                seen.add(one.cls)
                for field in one.fields:
                    walk(field.type, f"{one.cls.__name__}.{field.name}")
        elif isinstance(one, msgspec.inspect.StrType):
            found.append(where)
        for part in ("item_type", "key_type", "value_type"):
            if hasattr(one, part):
                walk(getattr(one, part), where)
        for many in ("types", "item_types"):
            for inner in getattr(one, many, ()):
                walk(inner, where)

    walk(msgspec.inspect.type_info(kind), "")
    return found


KINDS = (*(VersionRecord, ModelState, Format, Intent, Event, Adoption, LaggingServers, RoundState),)


def test_only_what_is_compared_is_recorded_as_it_is() -> None:
    """Every field that holds text is put to the test; a new one is masked without anybody's doing."""
    secret = f"password={PASSWORD}"
    known = {one for kind in KINDS for one in strings_of(kind)}
    for name in known:
        kind, _, field = name.partition(".")
        holder = msgspec.defstruct(kind, [(field, object)])
        for value in (secret, (secret,), {"a": secret}, {secret: "a"}):
            said = msgspec.json.encode(masked(holder(value), exact=EXACT)).decode()
            assert (PASSWORD in said) == (name in EXACT)
    fields = {f"{kind.__name__}.{one}" for kind in KINDS for one in kind.__struct_fields__}
    inner = {one.partition(".")[0] for one in known}
    assert {
        one for one in EXACT if one.partition(".")[0] not in inner and one not in fields
    } == set()


def test_a_record_without_secrets_is_recorded_unchanged() -> None:
    state = ModelState(name="m", highest=3)
    assert masked(state, exact=EXACT) is state
    assert msgspec.json.decode(encode(state), type=ModelState) == state
