"""adopt: models come under management where they lie, all at once; what cannot be adopted is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import (
    BadName,
    BadVersionNumber,
    ConfigEdited,
    ConfigInvalid,
    DamagedExport,
    Locked,
    NoPermission,
    NoSuchVersion,
    NothingToRollBack,
    SourceChanged,
    UnsafeExport,
    UsageError,
)
from servingrepo.modelconfig import entry as entry_of
from servingrepo.repository.config import read_config
from servingrepo.repository.repository import load_state
from servingrepo.storage.lock import hold_lock, this_process
from servingrepo.testing.exports import write_export
from tests.support import command, new_repository, without_root
from tests.verbs.trees import entry, facts, pins, taken, versions, write_config

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


def pinned(repo: OpenRepository, model: str) -> tuple[int, ...]:
    found = entry_of(read_config(repo.value).config, model)
    assert found is not None
    assert found.policy == "specific"
    return found.versions


def reasons(repo: OpenRepository) -> dict[str, str]:
    """Return why what stays unmanaged does so, by name."""
    done = repo.adopt((), all=True, dry_run=True)
    return {f"{one.model}@{one.version}".removesuffix("@"): one.reason for one in done.left}


def test_adopting_changes_no_file_of_the_user(tmp_path: Path) -> None:
    """Records say adopted, and not smoke-tested; every byte is on record."""
    versions(tmp_path / "models" / "ranker", 3, 7)
    repo = taken(tmp_path, entry(tmp_path, "ranker", pins(7)))
    before = facts(tmp_path)
    done = repo.adopt(["ranker"])
    assert facts(tmp_path) == before
    assert [(one.model, one.versions, one.pins, one.entry) for one in done.models] == [
        ("ranker", (3, 7), (7,), "kept")
    ]
    record = repo.show_version("ranker@7")
    assert record.source.kind == "adopted"
    assert record.proofs == ()
    assert record.tensors is not None
    assert record.tensors.checked == record.tensors.tensors > 0
    assert [one.ok for one in repo.verify("ranker")] == [True, True]
    state = load_state(repo.value, "ranker")
    assert state is not None
    assert (state.highest, state.policy_before) == (7, "")
    event = next(repo.history("ranker"))
    assert (event.action, event.versions, event.before, event.after) == (
        "adopt",
        (3, 7),
        (7,),
        (7,),
    )


def test_policies_become_the_pins_they_mean(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("newest", "two", "every", "none"):
        versions(models / name, 1, 2, 3)
    repo = taken(
        tmp_path,
        entry(tmp_path, "newest", "model_version_policy { latest { num_versions: 1 } }"),
        entry(tmp_path, "two", "model_version_policy { latest { num_versions: 2 } }"),
        entry(tmp_path, "every", "model_version_policy { all {} }"),
        entry(tmp_path, "none"),
    )
    shown = repo.adopt((), all=True, dry_run=True)
    assert "model_version_policy" in shown.diff
    assert repo.models() == ()
    done = repo.adopt((), all=True)
    assert {one.model: one.pins for one in done.models} == {
        "newest": (3,),
        "two": (2, 3),
        "every": (1, 2, 3),
        "none": (3,),
    }
    for one in done.models:
        assert pinned(repo, one.model) == one.pins
        assert {each.model: each.policy for each in shown.models}[one.model] == one.policy
        state = load_state(repo.value, one.model)
        assert state is not None
        assert state.policy_before == one.policy.replace("default", "latest")


def test_without_a_config_each_model_gets_an_entry(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1, 20240501)
    versions(tmp_path / "models" / "b", 4)
    repo = new_repository(tmp_path)
    done = repo.adopt((), all=True)
    assert (pinned(repo, "a"), pinned(repo, "b")) == ((20240501,), (4,))
    assert done.start_with[0] == f"--model_config_file={tmp_path}/models/models.config"
    assert "--allow_version_labels_for_unavailable_models=true" in done.start_with


def test_a_model_without_an_entry_stays_unserved(tmp_path: Path) -> None:
    """Servers that poll the file must load nothing because of an adoption."""
    versions(tmp_path / "models" / "a", 1)
    versions(tmp_path / "models" / "b", 1)
    repo = taken(tmp_path, entry(tmp_path, "a", pins(1)))
    done = repo.adopt((), all=True)
    assert {one.model: one.entry for one in done.models} == {"a": "kept", "b": "none"}
    assert entry_of(read_config(repo.value).config, "b") is None
    assert repo.serve("b@latest").after == (1,)


def test_adopting_again_has_nothing_to_do(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1)
    repo = taken(tmp_path, entry(tmp_path, "a"))
    assert repo.adopt(["a"]).models
    lines = len(list(repo.history()))
    again = repo.adopt(["a"])
    assert (again.models, again.left) == ((), ())
    assert len(list(repo.history())) == lines


def test_versions_that_came_later_are_adopted_too(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1)
    repo = taken(tmp_path, entry(tmp_path, "a", pins(1)))
    repo.adopt(["a"])
    write_export(base / "5")
    done = repo.adopt(["a"])
    assert [(one.versions, one.pins) for one in done.models] == [((5,), (1,))]
    assert repo.show("a").highest == 5


@pytest.mark.parametrize(
    ("rest", "base_path", "said"),
    [
        ('model_platform: "other"', None, "'other' is not supported"),
        ("logging_config {}", None, "no request logger"),
        ("", "s3://bucket/a", "s3://"),
        ("", "gs://bucket/a", "gs://bucket/a"),
        ("", "models/a", "not absolute"),
        ("", "/elsewhere/a", "/elsewhere/a"),
        ("version_labels { key: 'stable' value: 1 }", None, "label"),
        (pins(2, 3), None, "3"),
    ],
)
def test_what_no_entry_may_have_is_explained(
    rest: str, base_path: str | None, said: str, tmp_path: Path
) -> None:
    versions(tmp_path / "models" / "a", 1, 2)
    versions(tmp_path / "models" / "good", 1)
    repo = taken(tmp_path, entry(tmp_path, "a", rest, base_path=base_path), entry(tmp_path, "good"))
    assert said in reasons(repo)["a"]
    with pytest.raises(ConfigInvalid, match="cannot be adopted"):
        repo.adopt(["a"])
    assert repo.models() == ()
    done = repo.adopt((), all=True)
    assert [one.model for one in done.models] == ["good"]
    config = read_config(repo.value).config
    before = entry_of(config, "a")
    assert before is not None
    assert before.base_path == (base_path or f"{tmp_path}/models/a")


def test_names_that_servingrepo_refuses_are_explained(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("team/ranker", "ranker.v1", "naïve"):
        versions(models / name, 1)
    repo = taken(
        tmp_path,
        entry(tmp_path, "team/ranker"),
        entry(tmp_path, "ranker.v1"),
        entry(tmp_path, "naïve"),
    )
    said = reasons(repo)
    assert "ASCII" in said["naïve"]
    assert "'/'" in said["team/ranker"]
    assert "ranker.v1" not in said
    with pytest.raises(BadName):
        repo.adopt(["naïve"])


def test_entries_that_share_a_base_path_stay(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1)
    repo = taken(
        tmp_path, entry(tmp_path, "a"), entry(tmp_path, "b", base_path=f"{base.parent}//a/")
    )
    said = reasons(repo)
    assert "also that of b" in said["a"]
    assert "also that of a" in said["b"]


def test_names_that_are_no_plain_number_stay(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, "007", "08", 8, "v9")
    (base / "6").write_text("a file")
    repo = taken(tmp_path, entry(tmp_path, "a", pins(1)))
    done = repo.adopt(["a"])
    assert done.models[0].versions == (1,)
    assert sorted(one.version for one in done.left) == ["007", "08", "6", "8"]
    assert "reads 7" in next(one.reason for one in done.left if one.version == "007")
    # The next number is above all that TensorFlow Serving could read.
    assert repo.promote(tmp_path / "models" / "a" / "v9", model="a", smoke=False).version == 9


def test_a_damaged_version_stays_and_the_others_are_adopted(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, 2, 3)
    (base / "1" / "saved_model.pb").write_bytes(b"nonsense")
    data = next((base / "2" / "variables").glob("*.data-*"))
    data.write_bytes(bytes(data.stat().st_size))
    repo = taken(tmp_path, entry(tmp_path, "a"))
    assert [one.version for one in repo.adopt(["a"], dry_run=True).left] == ["1"]
    done = repo.adopt(["a"])
    assert done.models[0].versions == (3,)
    assert {one.version: one.slug for one in done.left} == {
        "1": "damaged-export",
        "2": "damaged-export",
    }


def test_a_model_whose_served_version_is_damaged_stays(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, 2)
    (base / "2" / "saved_model.pb").write_bytes(b"nonsense")
    repo = taken(tmp_path, entry(tmp_path, "a"))
    text = (tmp_path / "models" / "models.config").read_text()
    with pytest.raises(DamagedExport, match="served version 2"):
        repo.adopt(["a"])
    with pytest.raises(DamagedExport):
        repo.adopt((), all=True)
    assert (tmp_path / "models" / "models.config").read_text() == text
    assert repo.models() == ()


def test_a_tree_of_links_is_explained(tmp_path: Path) -> None:
    """As DVC and git-annex make it: files, versions or whole models are links into a store."""
    store = versions(tmp_path / "store", 1, 2)
    for name in ("files", "versions"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "versions" / "1").symlink_to(store / "1")
    (tmp_path / "models" / "whole").symlink_to(store)
    linked = tmp_path / "models" / "files" / "1"
    linked.mkdir()
    (linked / "saved_model.pb").symlink_to(store / "1" / "saved_model.pb")
    within = versions(tmp_path / "models" / "within", 1)
    (within / "1" / "again.pb").symlink_to("saved_model.pb")
    repo = new_repository(tmp_path)
    said = reasons(repo)
    assert "out of the run" in said["files"]
    assert "it is a link" in said["versions"]
    assert "behind a link" in said["whole"]
    assert "again.pb" in said["within"]
    with pytest.raises(UnsafeExport):
        repo.adopt(["within"])


def test_a_flat_saved_model_is_told_and_left(tmp_path: Path) -> None:
    """A SavedModel in p297/, and again in p297/0001/."""
    write_export(tmp_path / "models" / "flat")
    write_export(tmp_path / "models" / "p297")
    versions(tmp_path / "models" / "p297", "0001")
    repo = new_repository(tmp_path)
    said = reasons(repo)
    assert "directory with a number" in said["flat"]
    assert "reads 1" in said["p297"]


def test_entries_of_flat_saved_models_are_explained(tmp_path: Path) -> None:
    write_export(tmp_path / "models" / "flat")
    write_export(tmp_path / "models" / "p297")
    versions(tmp_path / "models" / "p297", "0001")
    repo = taken(tmp_path, entry(tmp_path, "flat"), entry(tmp_path, "p297"))
    said = reasons(repo)
    assert "directly" in said["flat"]
    assert "served version 1 cannot be adopted" in said["p297"]
    with pytest.raises((ConfigInvalid, BadVersionNumber)):
        repo.adopt((), all=True)


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1)
    repo = new_repository(tmp_path)
    with pytest.raises(NoSuchVersion) as caught:
        repo.adopt(["b"])
    assert "a" in (caught.value.hint or "")
    with pytest.raises(UsageError):
        repo.adopt([])
    with pytest.raises(UsageError):
        repo.adopt(["a"], all=True)


def test_an_edited_config_is_not_adopted(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1)
    repo = new_repository(tmp_path)
    path = tmp_path / "models" / "models.config"
    path.write_text(f"{path.read_text()}# by hand\n")
    with pytest.raises(ConfigEdited):
        repo.adopt((), all=True)


def test_a_config_elsewhere_is_taken_along(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1, 2)
    elsewhere = tmp_path / "etc"
    write_config(
        elsewhere, entry(tmp_path, "a"), entry(tmp_path, "other", base_path="/elsewhere/other")
    )
    file = elsewhere / "models" / "models.config"
    repo = new_repository(tmp_path)
    done = repo.adopt((), all=True, config=file)
    assert pinned(repo, "a") == (2,)
    assert entry_of(read_config(repo.value).config, "other") is not None
    assert done.start_with
    assert done.config == str(file)
    with pytest.raises(ConfigInvalid, match="has entries"):
        repo.adopt((), all=True, config=file)


@pytest.mark.parametrize("what", ["file", "version", "config", "adopted"])
def test_what_changes_meanwhile_stops_the_adoption(what: str, tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, 2)
    repo = taken(tmp_path, entry(tmp_path, "a"))
    changed: list[str] = []

    def meanwhile(_: int) -> None:
        if changed:
            return
        changed.append(what)
        match what:
            case "file":
                (base / "1" / "saved_model.pb").touch()
            case "version":
                write_export(base / "3")
            case "config":
                path = tmp_path / "models" / "models.config"
                path.write_text(f"{path.read_text()}# by hand\n")
            case _:
                servingrepo.open(tmp_path).adopt(["a"])

    with pytest.raises(SourceChanged, match="while it was adopted"):
        repo.adopt(["a"], progress=meanwhile)
    assert changed
    assert bool(repo.models()) == (what == "adopted")


def test_the_commit_waits_for_the_lock(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1)
    repo = servingrepo.open(taken(tmp_path, entry(tmp_path, "a")).root, lock_wait=0)
    holding = hold_lock(repo.value.layout.lock, this_process("a test"), wait=5, what="it")
    held: list[object] = []

    def meanwhile(_: int) -> None:
        if not held:
            held.append(holding.__enter__())

    with pytest.raises(Locked):
        repo.adopt(["a"], progress=meanwhile)
    assert held
    assert list(repo.value.layout.states.iterdir()) == []
    holding.__exit__(None, None, None)
    assert repo.adopt(["a"]).models


def test_a_dead_adoption_is_dropped_before_the_next(tmp_path: Path) -> None:
    """Else its records would count as ours, and the adoption would be refused as changed."""
    versions(tmp_path / "models" / "a", 1, 2)
    taken(tmp_path, entry(tmp_path, "a"))
    plan = {"SERVINGREPO_FAILPOINTS": "records.after-rename@1=kill"}
    died = command("--root", tmp_path, "adopt", "--all", env=plan)
    assert died.code < 0
    assert servingrepo.open(tmp_path).adopt(["a"]).models[0].versions == (1, 2)


def test_a_read_only_tree_is_refused_with_a_remedy() -> None:
    with without_root() as folder:
        versions(folder / "models" / "a", 1)
        repo = new_repository(folder)
        (folder / "models").chmod(0o555)
        with pytest.raises(NoPermission) as caught:
            repo.adopt((), all=True)
        assert "read-only" in (caught.value.hint or "")
        (folder / "models").chmod(0o755)


def test_unreadable_directories_are_explained() -> None:
    with without_root() as folder:
        versions(folder / "models" / "a", 1, 2)
        versions(folder / "models" / "b", 1)
        repo = new_repository(folder)
        (folder / "models" / "a" / "1").chmod(0)
        (folder / "models" / "b").chmod(0)
        done = repo.adopt((), all=True)
        assert [(one.model, one.versions) for one in done.models] == [("a", (2,))]
        assert {one.model: one.slug for one in done.left} == {
            "a": "no-permission",
            "b": "no-permission",
        }


def test_undo_restores_every_byte_of_the_config(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1, 2)
    versions(tmp_path / "models" / "b", 1)
    text = write_config(tmp_path, entry(tmp_path, "a"), entry(tmp_path, "b", pins(1)))
    repo = new_repository(tmp_path)
    before = facts(tmp_path)
    repo.adopt((), all=True)
    assert repo.undo_adoption(dry_run=True).models == ("a", "b")
    done = repo.undo_adoption(message="not yet")
    assert (done.models, done.versions) == (("a", "b"), 3)
    assert (tmp_path / "models" / "models.config").read_text() == text
    assert facts(tmp_path) == before
    assert repo.models() == ()
    assert list(repo.value.layout.states.iterdir()) == []
    with pytest.raises(NothingToRollBack):
        repo.undo_adoption()
    assert [one.action for one in repo.history()] == ["adopt", "adopt", "adopt-undo", "adopt-undo"]
    assert repo.adopt((), all=True).models


@pytest.mark.parametrize("later", ["hold", "rollback", "config", "promote", "adopt"])
def test_undo_is_refused_after_a_later_change(later: str, tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, 2)
    repo = taken(tmp_path, entry(tmp_path, "a", pins(2)))
    repo.adopt(["a"])
    match later:
        case "hold":
            repo.hold("a")
        case "rollback":
            repo.rollback("a")
        case "config":
            path = tmp_path / "models" / "models.config"
            path.write_text(f"{path.read_text()}# by hand\n")
        case "promote":
            run = versions(tmp_path / "runs", 1, 2, 3) / "3"
            repo.promote(run, model="a", smoke=False, serve=False)
        case _:
            versions(base, 7)
            repo.adopt(["a"])
            repo.undo_adoption()
            assert repo.show("a").versions[0].version == 2
            return
    with pytest.raises(NothingToRollBack, match="cannot be taken back any more"):
        repo.undo_adoption()
    assert repo.models() == ("a",)


def test_rollback_goes_by_number_where_history_knows_nothing(tmp_path: Path) -> None:
    base = versions(tmp_path / "models" / "a", 1, 2, 3, 4)
    repo = taken(tmp_path, entry(tmp_path, "a"))
    repo.adopt(["a"])
    (base / "3" / "saved_model.pb").unlink()  # not whole any more
    done = command("--root", tmp_path, "rollback", "a")
    assert done.code == 0, done.err
    assert "a: 4 > 2" in done.out
    assert "by number" in done.out
    again = repo.rollback("a")
    assert (again.after, again.by_number) == ((1,), True)
    with pytest.raises(NothingToRollBack):
        repo.rollback("a")


def test_rollback_of_a_promotion_goes_by_history(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", 1, 20240501)
    repo = taken(tmp_path, entry(tmp_path, "a", pins(1)))
    repo.adopt(["a"])
    run = versions(tmp_path / "runs", 1, 2, 3) / "3"
    assert repo.promote(run, model="a", smoke=False).version == 20240502
    done = repo.rollback("a")
    assert (done.after, done.by_number) == ((1,), False)


def test_promote_asks_for_a_reload_after_a_policy_was_replaced(tmp_path: Path) -> None:
    """A server that still follows latest would load the version as soon as its directory is there."""
    versions(tmp_path / "models" / "a", 1)
    repo = taken(tmp_path, entry(tmp_path, "a"))
    repo.adopt(["a"])
    run = versions(tmp_path / "runs", 1, 2)
    promote = ("--root", tmp_path, "promote", run / "2", "--model", "a", "--no-smoke")
    for more in ((), ("--no-serve",), ("--dry-run",)):
        refused = command(*promote, *more)
        assert refused.code == 68
        assert "servingrepo reload" in refused.err
    assert [one.name for one in sorted((tmp_path / "models" / "a").iterdir())] == ["1"]
    shown = command("--root", tmp_path, "status")
    assert "follow latest" in shown.out
    assert "servingrepo reload" in shown.out
    assert command("--root", tmp_path, "reload", "--reload", "poll").code == 0
    assert "follow latest" not in command("--root", tmp_path, "status").out
    assert command(*promote).code == 0


def test_prune_leaves_adopted_versions_unless_told(tmp_path: Path) -> None:
    versions(tmp_path / "models" / "a", *range(1, 7))
    taken(tmp_path, entry(tmp_path, "a", pins(6)))
    assert command("--root", tmp_path, "adopt", "a").code == 0
    kept = command("--root", tmp_path, "prune", "a", "--keep-last", "1")
    assert "nothing to prune" in kept.out
    assert "only --adopted" in kept.out
    gone = command("--root", tmp_path, "prune", "a", "--keep-last", "1", "--adopted", "-q")
    # 5 is what rollback goes to, by number.
    assert gone.out.split() == ["a@4", "a@3", "a@2", "a@1"]
    assert command("--root", tmp_path, "restore", "a@4").code == 0


def test_ten_thousand_versions_fit_on_a_screen(tmp_path: Path) -> None:
    """Most of them are empty directories; benchmarks/adopt.py adopts ten thousand."""
    base = versions(tmp_path / "models" / "a", *range(1, 51))
    for number in range(100, 10_050):
        (base / str(number)).mkdir()
    repo = taken(tmp_path, entry(tmp_path, "a", pins(50)))
    done = command("--root", tmp_path, "adopt", "a")
    assert done.code == 0
    assert "50: 1 … 48, 49, 50" in done.out
    assert "and 9930 more" in done.out
    assert len(done.out.splitlines()) < 40
    assert len(repo.show("a").versions) == 50
    assert command("--root", tmp_path, "rollback", "a").out.startswith("a: 50 > 49")
