from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import servingrepo
from servingrepo.errors import (
    BadContract,
    BreakingChange,
    LoadFailed,
    NoSavedModel,
    NoSuchVersion,
    UnsafeOperation,
    UnsupportedExport,
)
from servingrepo.repository.config import pins, read_config
from servingrepo.servers.engines.choice import EngineChoice, expected_server
from servingrepo.storage.disk import Disk
from servingrepo.testing.exports import Served, write_export
from tests.savedmodel.graphs import export_with
from tests.support import new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

ONE = (Served(),)
TWO = (Served(), Served(key="other"))


def repository_serving(root: Path, *signatures: Served) -> OpenRepository:
    repo = new_repository(root / "serving")
    repo.promote(
        run_with(root / "first", offset=1.0, signatures=signatures), model="m", smoke=False
    )
    return repo


def promote(repo: OpenRepository, run: Path, **options: Any) -> Any:
    return repo.promote(run, model="m", smoke=False, **options)


def files_of(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_promote_when_clients_would_break_stops_before_anything_is_staged(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *TWO)
    other = (Served(api="regress", feed="parse_example"),)
    run = run_with(tmp_path / "second", offset=2.0, signatures=other)
    before = files_of(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(BreakingChange, match="m@1") as caught:
            promote(repo, run, dry_run=dry_run)
        said = "\n".join(caught.value.problems)
        assert "signature other is gone" in said
        assert "its method was tensorflow/serving/predict" in said
        assert "--allow-breaking" in (caught.value.hint or "")
    assert files_of(tmp_path) == before
    assert promote(repo, run, allow_breaking=True).version == 2, "no number was burnt"


def test_a_breaking_change_that_was_allowed_is_on_record_and_in_the_history(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *TWO)
    run = run_with(tmp_path / "second", offset=2.0, signatures=ONE)
    done = promote(repo, run, allow_breaking=True)
    gate = repo.show_version("m@2").guard
    assert gate is not None
    assert (gate.against, gate.verdict, gate.allowed_breaking) == ("m@1", "breaking", True)
    assert done.guard == gate
    assert list(repo.history("m"))[-1].allowed == ("breaking changes against m@1",)
    assert promote(repo, run).same_as == 2, "the same promotion again needs nobody's leave"


def test_promote_says_what_compatible_changes_there_are(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    done = promote(repo, run_with(tmp_path / "second", offset=2.0, signatures=TWO))
    assert done.guard.verdict == "compatible"
    assert [one.kind for one in done.guard.changes] == ["signature-added"]
    done = promote(repo, run_with(tmp_path / "third", offset=3.0, signatures=TWO))
    assert (done.guard.verdict, done.guard.against, done.guard.changes) == ("same", "m@2", ())


def test_without_anything_served_the_signatures_are_not_checked(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *TWO)
    first = repo.show_version("m@1").guard
    assert first is not None
    assert (first.verdict, first.against) == ("not checked", "")
    repo.unserve("m")
    done = promote(repo, run_with(tmp_path / "second", offset=2.0, signatures=ONE))
    assert "nothing of m is served" in done.guard.why


def test_a_pinned_contract_decides_and_the_served_version_does_not(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *TWO)
    pinned = repo.write_contract("m")
    assert pinned.changed
    file = repo.root / "configs" / "m.contract.toml"
    assert file.read_text() == pinned.text
    run = run_with(tmp_path / "second", offset=2.0, signatures=ONE)
    with pytest.raises(BreakingChange, match=r"m\.contract\.toml"):
        promote(repo, run)
    file.write_text('model = "m"\n[signatures.serving_default]\ninputs.x = {}\n')
    done = promote(repo, run)
    assert (done.guard.verdict, done.guard.against) == ("same", str(file))


def test_a_contract_elsewhere_may_be_named(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    file = tmp_path / "strict.toml"
    file.write_text('model = "m"\n[signatures.missing]\n')
    run = run_with(tmp_path / "second", offset=2.0)
    with pytest.raises(BreakingChange, match="strict"):
        promote(repo, run, contract=file)
    with pytest.raises(BadContract, match="cannot be read"):
        promote(repo, run, contract=tmp_path / "nowhere.toml")


def test_a_contract_that_cannot_be_used_stops_a_promotion(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    file = repo.root / "configs" / "m.contract.toml"
    file.parent.mkdir()
    run = run_with(tmp_path / "second", offset=2.0)
    for text in ("]", 'model = "other"', 'model = "m"\n[signatures.a.inputs]\nx = { shape = "?" }'):
        file.write_text(text)
        with pytest.raises(BadContract, match="contract"):
            promote(repo, run)
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(BadContract, match="cannot be read"):
        promote(repo, run)


def test_a_contract_is_written_once_and_kept_when_it_was_edited(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    assert repo.contract("m").pinned is False
    assert repo.write_contract("m", dry_run=True).changed
    assert not (repo.root / "configs").exists()
    assert repo.write_contract("m").changed
    assert not repo.write_contract("m").changed
    file = repo.root / "configs" / "m.contract.toml"
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(BadContract, match="left alone"):
        repo.write_contract("m")
    assert file.read_text().endswith("# mine\n")
    assert repo.contract("m").pinned
    assert repo.write_contract("m", overwrite=True).changed


def test_check_contract_holds_versions_and_exports_against_what_is_relied_on(
    tmp_path: Path,
) -> None:
    repo = repository_serving(tmp_path, *TWO)
    assert repo.check_contract("m", "m@1").verdict == "same"
    found = repo.check_contract("m", run_with(tmp_path / "second", offset=2.0))
    assert (found.verdict, found.against) == ("breaking", "m@1")


def test_diff_compares_versions_and_exports_in_any_mixture(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    promote(repo, run_with(tmp_path / "second", offset=2.0, signatures=TWO))
    assert repo.diff("m@1", "m@2").verdict == "compatible"
    assert repo.diff("m@2", "m@1").verdict == "breaking"
    assert repo.diff("m", "m@served").verdict == "same"
    assert repo.diff("m@previous", tmp_path / "first").verdict == "same"
    found = repo.diff("m@1", export_with(tmp_path / "third", "ReadFile"))
    assert (found.new_ops, found.new_effects) == (("ReadFile",), ("ReadFile",))
    with pytest.raises(NoSuchVersion):
        repo.diff("m@9", "m@1")
    with pytest.raises(NoSavedModel):
        repo.diff("m@1", tmp_path / "nowhere")


def test_rollback_and_serve_warn_of_broken_clients_and_are_not_stopped(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *ONE)
    promote(repo, run_with(tmp_path / "second", offset=2.0, signatures=TWO))
    back = repo.rollback("m", mark_bad=False)
    assert back.after == (1,)
    assert back.notes == ("breaks clients of m@2: signature other is gone",)
    assert repo.serve("m@2").notes == ()
    (repo.root / "configs").mkdir()
    (repo.root / "configs" / "m.contract.toml").write_text("]")
    assert "not compared" in repo.rollback("m").notes[0]


def test_promote_when_the_graph_touches_files_stops_before_anything_is_staged(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    run = export_with(tmp_path / "run", "ReadFile", "WriteFile")
    before = files_of(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(UnsafeOperation) as caught:
            promote(repo, run, dry_run=dry_run)
        assert [one.split(":")[0] for one in caught.value.problems] == [
            "operation ReadFile may touch files",
            "operation WriteFile may touch files",
        ]
        assert "--allow-op ReadFile --allow-op WriteFile" in (caught.value.hint or "")
    assert files_of(tmp_path) == before
    with pytest.raises(UnsafeOperation) as caught:
        promote(repo, run, allow_ops=["ReadFile"])
    assert len(caught.value.problems) == 1
    promote(repo, run, allow_ops=["ReadFile", "WriteFile", "PyFunc"])
    gate = repo.show_version("m@1").guard
    assert gate is not None
    assert gate.allowed_ops == ("ReadFile", "WriteFile")
    assert list(repo.history("m"))[-1].allowed == ("operation ReadFile", "operation WriteFile")


def test_what_breaks_and_what_is_unsafe_is_told_at_once(tmp_path: Path) -> None:
    repo = repository_serving(tmp_path, *TWO)
    with pytest.raises(BreakingChange) as caught:
        promote(repo, export_with(tmp_path / "run", "ReadFile"))
    assert len(caught.value.problems) == 2
    assert "--allow-breaking" in (caught.value.hint or "")
    assert "--allow-op ReadFile" in (caught.value.hint or "")


def test_an_operation_that_the_known_server_lacks_stops_a_promotion_in_a_moment(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    run = export_with(tmp_path / "run", "RiscErf", "MyOwnOp")
    begun = time.monotonic()
    with pytest.raises(UnsupportedExport, match=r"2\.19 does not have the operations .*MyOwnOp"):
        repo.promote(run, model="m", engine="docker", dry_run=True)
    assert time.monotonic() - begun < 5
    mine = EngineChoice(name="docker", image="registry.local/serving:2.19.1")
    done = repo.promote(run, model="m", engine=mine, dry_run=True)
    assert done.guard is not None
    assert "does not have the operations" in done.guard.server_problems[0]
    done = promote(repo, run)
    assert (done.guard.server, done.guard.server_problems) == ("", ())
    assert done.guard.notes == ("no TensorFlow Serving has the operations MyOwnOp, RiscErf",)


@pytest.mark.tf
def test_a_load_that_fails_says_which_operations_the_server_lacks(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = export_with(tmp_path / "run", "MyOwnOp")
    with pytest.raises(LoadFailed) as caught:
        repo.promote(run, model="m", engine="embedded")
    assert "does not have the operations MyOwnOp" in caught.value.problems[-1]


@pytest.mark.parametrize(
    ("choice", "version", "certain"),
    [
        (EngineChoice(name="docker"), (2, 19), True),
        (EngineChoice(name="docker", image="tensorflow/serving:2.16.1"), (2, 16), True),
        (EngineChoice(name="auto", image="docker.io/tensorflow/serving:2.12.2"), (2, 12), True),
        (EngineChoice(name="docker", image="tensorflow/serving:2.19.1-gpu"), (2, 19), False),
        (EngineChoice(name="docker", image="mine:5000/tensorflow/serving:2.19.1"), (2, 19), False),
        (EngineChoice(name="docker", image="tensorflow/serving@sha256:00"), None, False),
        (EngineChoice(name="auto"), None, False),
        (EngineChoice(name="remote:host:8500"), None, False),
        (EngineChoice(name="remote:host:8500", image="tensorflow/serving:2.19.1"), (2, 19), True),
        (None, None, False),
    ],
)
def test_expected_server(choice: EngineChoice | None, version: object, *, certain: bool) -> None:
    server = expected_server(choice)
    assert (server.version, server.certain) == (version, certain)


def test_a_promotion_that_waited_is_held_against_what_is_served_by_then(tmp_path: Path) -> None:
    """Between the look and the lock another version may have been served."""
    repo = repository_serving(tmp_path, *ONE)
    richer = run_with(tmp_path / "richer", offset=5.0, signatures=TWO)

    class Meanwhile(Disk, frozen=True):
        def step(self, name: str, path: Path | None = None) -> None:
            if name == "proven":
                promote(repo, richer)
            super().step(name, path)

    slow = servingrepo.open(repo.root, disk=Meanwhile())
    with pytest.raises(BreakingChange, match="m@3"):
        promote(slow, write_export(tmp_path / "poorer", offset=6.0))
    assert pins(read_config(repo.value).config, "m") == (3,)
    assert not list(repo.value.layout.model("m").glob("2"))
