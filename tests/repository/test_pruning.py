from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import (
    ConfigInvalid,
    NoSuchVersion,
    StorageFailed,
    UsageError,
)
from servingrepo.repository.pruning import prune
from servingrepo.repository.retention import Keep
from servingrepo.repository.version_lock import using
from tests.repository.trashes import LAST, configured, gone, in_trash, on_disk, trash_of, why

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.repository.protection import Loaded
    from tests.repository.conftest import Release


def test_prune_moves_what_no_rule_keeps_to_the_trash_and_keeps_its_record(
    five: OpenRepository,
) -> None:
    files = sorted(path.name for path in five.value.layout.version("m", 1).rglob("*"))
    done = five.prune("m", keep=LAST)
    assert gone(done) == (1, 2, 3)
    assert done.moved == sum(one.size for one in done.models[0].decisions if not one.keep) > 0
    assert (on_disk(five), in_trash(five)) == ([4, 5], [1, 2, 3])
    assert sorted(path.name for path in trash_of(five, 1).rglob("*")) == files
    assert five.show_version("m@1").version == 1
    (row,) = five.list()
    assert (row.versions, row.trash, row.foreign) == ((4, 5), (1, 2, 3), ())
    assert row.trash_size > 0
    assert [one.version for one in five.show("m").trash] == [3, 2, 1]
    assert five.recover() == ()


def test_prune_is_one_event_of_history_with_all_versions(five: OpenRepository) -> None:
    five.prune("m", keep=Keep(last=1, within=timedelta(hours=0)), message="space")
    last = list(five.history("m"))[-1]
    assert (last.action, last.versions, last.why) == ("prune", (1, 2, 3), "space")
    assert (last.before, last.after) == ((), ())
    five.restore("m@2", message="needed")
    last = list(five.history("m"))[-1]
    assert (last.action, last.versions, last.why) == ("restore", (2,), "needed")


def test_what_is_served_and_what_rollback_goes_to_never_go(five: OpenRepository) -> None:
    done = five.prune("m", keep=Keep(labelled=("nothing",)))
    assert on_disk(five) == [4, 5]
    assert why(done, 5) == "served"
    assert why(done, 4) == "what rollback goes to"
    assert five.rollback("m").after == (4,)


def test_after_a_rollback_the_version_it_left_goes_and_a_new_target_stays(
    five: OpenRepository,
) -> None:
    five.rollback("m")
    done = five.prune("m", keep=LAST)
    assert why(done, 5) == "marked bad, and no rule keeps it"
    assert why(done, 3) == "what rollback goes to"
    assert on_disk(five) == [3, 4]


def test_a_dry_run_decides_the_same_and_moves_nothing(five: OpenRepository) -> None:
    history = five.value.layout.history.read_bytes()
    planned = five.prune("m", keep=LAST, dry_run=True)
    assert on_disk(five) == [1, 2, 3, 4, 5]
    assert five.value.layout.history.read_bytes() == history
    assert not five.value.layout.trash("m").exists()
    assert five.prune("m", keep=LAST).models == planned.models


def test_pruning_again_finds_nothing_and_writes_nothing(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    history = five.value.layout.history.read_bytes()
    assert gone(five.prune("m", keep=LAST)) == ()
    assert five.value.layout.history.read_bytes() == history


def test_an_empty_policy_is_refused_before_anything_moves(five: OpenRepository) -> None:
    for keep in (None, Keep(), {"other": LAST}):
        with pytest.raises(UsageError, match="every version would go"):
            five.prune("m", keep=keep)
    assert on_disk(five) == [1, 2, 3, 4, 5]


def test_every_model_is_pruned_by_its_own_policy(five: OpenRepository, release: Release) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope, model="other")
    done = five.prune(keep={"m": Keep(last=3), "other": Keep(last=1, weekly=1)})
    assert [(row.model, row.policy, row.gone) for row in done.models] == [
        ("m", "last 3", (2, 1)),
        ("other", "last 1, weekly 1", (1,)),
    ]


def test_a_model_that_is_not_there_is_refused_before_anything_moves(five: OpenRepository) -> None:
    with pytest.raises(NoSuchVersion, match="no model nosuch"):
        five.prune("m", "nosuch", keep=LAST)
    assert on_disk(five) == [1, 2, 3, 4, 5]


def test_foreign_versions_are_not_looked_at(five: OpenRepository) -> None:
    base = five.value.layout.model("m")
    for name in ("7", "007", "-1"):
        (base / name).mkdir()
    done = five.prune("m", keep=LAST)
    assert {one.version for one in done.models[0].decisions} == {1, 2, 3, 4, 5}
    assert {"7", "007", "-1"} <= {path.name for path in base.iterdir()}


def test_a_held_model_loses_nothing(five: OpenRepository) -> None:
    five.hold("m", message="black friday")
    done = five.prune("m", keep=LAST)
    assert on_disk(five) == [1, 2, 3, 4, 5]
    assert why(done, 1) == "the model is held: black friday"


def test_labelled_and_pinned_versions_never_go_whoever_wrote_the_config(
    five: OpenRepository,
) -> None:
    configured(
        five,
        "name: 'm' base_path: '/models/m' model_version_policy { specific { versions: 5 versions: 1 } } "
        "version_labels { key: 'stable' value: 1 }",
        "name: 'canary' base_path: '/mnt/elsewhere/m/' "
        "model_version_policy { specific { versions: 2 } }",
    )
    done = five.prune("m", keep=LAST)
    assert why(done, 1) == "pinned; labelled stable"
    assert why(done, 2) == "served as canary"
    assert gone(done) == (3,)


@pytest.mark.parametrize(
    ("policy", "stay", "reason"),
    [
        ("all {}", [1, 2, 3, 4, 5], "served under the policy all"),
        ("latest { num_versions: 3 }", [3, 4, 5], "served under the policy latest"),
        ("", [4, 5], "served under the policy default"),
    ],
)
def test_what_a_policy_of_others_serves_never_goes(
    policy: str, stay: list[int], reason: str, five: OpenRepository
) -> None:
    version_policy = f"model_version_policy {{ {policy} }}" if policy else ""
    configured(five, f"name: 'm' base_path: '/models/m' {version_policy}")
    done = five.prune("m", keep=LAST)
    assert on_disk(five) == stay
    assert reason in why(done, 5)


def test_a_foreign_version_above_ours_counts_among_the_latest(five: OpenRepository) -> None:
    (five.value.layout.model("m") / "9").mkdir()
    configured(
        five,
        "name: 'm' base_path: '/models/m' model_version_policy { latest { num_versions: 2 } }",
    )
    assert "policy latest" in why(five.prune("m", keep=Keep(labelled=("x",))), 5)


def test_what_servingrepo_pinned_stays_while_the_config_is_edited_or_lost(
    five: OpenRepository,
) -> None:
    five.serve("m@2")
    configured(
        five, "name: 'm' base_path: '/models/m' model_version_policy { specific { versions: 1 } }"
    )
    done = five.prune("m", keep=LAST, dry_run=True)
    assert why(done, 1).startswith("served")
    assert why(done, 2) == "served by the models.config that servingrepo wrote last"
    five.value.layout.config.unlink()
    assert 2 in {one.version for one in five.prune("m", keep=LAST).models[0].decisions if one.keep}


def test_a_config_that_cannot_be_read_stops_every_prune(five: OpenRepository) -> None:
    five.value.layout.config.write_text("nonsense {{{")
    with pytest.raises(ConfigInvalid):
        five.prune("m", keep=LAST)
    assert not five.value.layout.trash("m").exists()


def test_a_link_to_a_models_folder_under_another_name_protects_what_it_serves(
    five: OpenRepository,
) -> None:
    (five.value.layout.models / "alias").symlink_to("m")
    configured(
        five,
        "name: 'x' base_path: '/models/alias' model_version_policy { specific { versions: 2 } }",
    )
    assert "served as x" in why(five.prune("m", keep=LAST), 2)


def test_what_is_or_was_labelled_stays_when_the_policy_says_so(five: OpenRepository) -> None:
    event = json.loads(five.value.layout.history.read_text().splitlines()[-1])
    event |= {"id": "20260510T120000Z-00000000", "action": "label", "labels_after": {"stable": 2}}
    with five.value.layout.history.open("a") as history:
        history.write(msgspec.json.encode(event).decode() + "\n")
    done = five.prune("m", keep=Keep(labelled=("sta*",)))
    assert why(done, 2) == "is or was labelled stable"
    assert gone(done) == (1, 3)


def test_a_version_that_somebody_verifies_or_tries_stays(five: OpenRepository) -> None:
    with using(five.value, "m", 2):
        done = five.prune("m", keep=LAST)
    assert why(done, 2) == "in use: another command verifies or smoke-tests it"
    assert (gone(done), on_disk(five)) == ((1, 3), [2, 4, 5])
    assert gone(five.prune("m", keep=LAST)) == (2,)


def test_a_version_is_in_use_while_verify_reads_it(five: OpenRepository) -> None:
    said: set[str] = set()

    def look(_size: int) -> None:
        said.add(why(five.prune("m", keep=LAST, dry_run=True), 2))

    five.verify("m@2", progress=look)
    assert said == {"in use: another command verifies or smoke-tests it"}
    assert why(five.prune("m", keep=LAST, dry_run=True), 2) == "no rule keeps it"


def test_a_version_that_somebody_replaced_by_a_link_stays(
    five: OpenRepository, tmp_path: Path
) -> None:
    version = five.value.layout.version("m", 2)
    version.rename(tmp_path / "moved")
    version.symlink_to(tmp_path / "moved")
    done = five.prune("m", keep=LAST)
    assert why(done, 2) == "it is a link now, and not the published directory"
    assert (gone(done), version.is_symlink()) == ((1, 3), True)


def test_a_version_that_a_live_server_has_loaded_stays(five: OpenRepository) -> None:
    loaded: Loaded = {"m": {1: ("AVAILABLE on localhost:8500",)}}
    (row,) = prune(five.value, {"m": LAST}, loaded=loaded)
    assert row.gone == (3, 2)
    assert row.decisions[-1].reasons == ("AVAILABLE on localhost:8500",)


def test_versions_that_an_intent_names_stay(five: OpenRepository) -> None:
    from servingrepo.repository import journal
    from servingrepo.repository.journal import Intent
    from servingrepo.repository.repository import me, new_txid
    from servingrepo.repository.transaction import new_event

    repo = five.value
    txid = new_txid(repo)
    event = new_event(repo, txid=txid, action="serve", model="m", before=(1,), after=(2,))
    intent = Intent(txid=txid, command="serve", owner=me(), model="m", event=event)
    with journal.declare(repo.disk, repo.layout.intent(txid), intent):
        done = five.prune("m", keep=LAST)
    assert gone(done) == (3,)
    assert why(done, 1) == f"named by the unfinished serve {txid}"


@pytest.mark.parametrize("text", [b"{", b'{"schema": 9}'])
def test_a_version_whose_record_cannot_be_read_stays(text: bytes, five: OpenRepository) -> None:
    five.value.layout.record("m", 2).write_bytes(text)
    done = five.prune("m", keep=LAST)
    assert "cannot be read" in why(done, 2)
    assert gone(done) == (1, 3)


def test_a_clock_that_was_ahead_when_a_version_was_made_does_not_make_others_go(
    five: OpenRepository,
) -> None:
    path = five.value.layout.record("m", 5)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "created": "2099-01-01T00:00:00+00:00"}))
    assert gone(five.prune("m", keep=Keep(within=timedelta(days=1)))) == ()


def test_a_clock_that_is_ahead_now_does_not_make_versions_go(five: OpenRepository) -> None:
    later = msgspec.structs.replace(
        five.value, clock=lambda: datetime.now(UTC) + timedelta(days=9000)
    )
    (row,) = prune(later, {"m": Keep(within=timedelta(days=1))})
    assert row.gone == ()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_the_trash_has_the_mode_of_our_directories_whatever_the_umask(
    mask: int, five: OpenRepository
) -> None:
    before = os.umask(mask)
    try:
        five.prune("m", keep=LAST)
        five.restore("m@1")
    finally:
        os.umask(before)
    assert five.value.layout.trash("m").stat().st_mode & 0o7777 == 0o755
    assert five.value.layout.version("m", 1).stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_trash_that_is_no_directory_is_refused(
    kind: str, five: OpenRepository, tmp_path: Path
) -> None:
    trash = five.value.layout.trash("m")
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        trash.symlink_to(tmp_path / "elsewhere")
    else:
        trash.write_text("")
    with pytest.raises(StorageFailed, match="beside its versions"):
        five.prune("m", keep=LAST)
    assert on_disk(five) == [1, 2, 3, 4, 5]
    assert five.value.layout.journal.exists()
    assert list(five.value.layout.journal.iterdir()) == []


def test_a_trash_on_another_file_system_is_refused_and_nothing_moves(
    five: OpenRepository,
) -> None:
    trash = five.value.layout.trash("m")
    trash.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", trash],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StorageFailed, match="on different file systems") as caught:
            five.prune("m", keep=LAST)
        assert "one rename" in (caught.value.hint or "")
    finally:
        subprocess.run(["umount", trash], check=True)
    assert (on_disk(five), in_trash(five)) == ([1, 2, 3, 4, 5], [])
    assert list(five.value.layout.journal.iterdir()) == []
    assert [event.action for event in five.history("m")] == ["promote"] * 5
