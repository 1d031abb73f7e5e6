"""prune, restore and the trash on the command line: what is printed, and where a policy comes from."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

import servingrepo
from tests.cli import inside
from tests.cli.inside import refused
from tests.support import command, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


@pytest.fixture
def repo(root: Path, tmp_path: Path) -> OpenRepository:
    """Versions 1 to 4 of `ranker`, 4 served."""
    repo = servingrepo.open(root)
    for number in (3, 4):
        run = run_with(tmp_path / f"later{number}", offset=float(number * 10))
        repo.promote(run, model="ranker", smoke=False)
    return repo


def test_prune_prints_a_reason_for_every_version_and_what_to_type_next(
    repo: OpenRepository,
) -> None:
    done = inside.command("--root", repo.root, "prune", "--keep-last", "1")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    size = lines[1].split()[2:4]
    assert lines == [
        "VERSION KEPT SIZE REASON",
        f"ranker@4 keep {' '.join(size)} served; last 1",
        f"ranker@3 keep {' '.join(size)} what rollback goes to",
        f"ranker@2 goes {' '.join(size)} no rule keeps it",
        f"ranker@1 goes {' '.join(size)} no rule keeps it",
        lines[5],
        "back servingrepo restore ranker@2",
        lines[7],
    ]
    assert lines[5].startswith("2 went to the trash, ")
    assert lines[5].endswith(": ranker@2, ranker@1")
    assert lines[7].startswith("next servingrepo prune --empty-trash frees ")


def test_a_dry_run_says_what_would_go(repo: OpenRepository) -> None:
    done = inside.command("--root", repo.root, "prune", "--keep-last", "1", "--dry-run")
    assert "dry run, nothing was changed: 2 would go to the trash" in done.out
    assert [row.version for row in repo.show("ranker").versions] == [4, 3, 2, 1]


def test_quiet_prints_what_went_or_was_deleted(repo: OpenRepository) -> None:
    done = inside.command("--root", repo.root, "prune", "--keep-last", "1", "-q")
    assert done.out == "ranker@2\nranker@1\n"
    done = inside.command("--root", repo.root, "prune", "--empty-trash", "-q")
    assert done.out == "ranker@1\nranker@2\n"
    assert inside.command("--root", repo.root, "prune", "--empty-trash", "-q").out == ""


def test_json_of_a_prune_has_each_decision_and_the_bytes(repo: OpenRepository) -> None:
    arguments = ["prune", "--keep-last", "1", "--empty-trash", "--json"]
    result = inside.command("--root", repo.root, *arguments).json["result"]
    (row,) = result["models"]
    assert [(one["version"], one["keep"]) for one in row["decisions"]] == [
        *((4, True), (3, True)),
        *((2, False), (1, False)),
    ]
    assert [one["deleted"] for one in result["emptied"]] == [True, True]
    assert result["freed"] > 0
    assert result["trash_size"] == 0


def test_prune_without_a_rule_is_refused_and_says_which_rules_there_are(
    repo: OpenRepository,
) -> None:
    for arguments in (["prune"], ["prune", "ranker"], ["prune", "--keep-last", "0"]):
        done = inside.command("--root", repo.root, *arguments)
        refused(done, 2, "every version would go", "--keep-within 30d", "[models.NAME]")
    refused(inside.command("--root", repo.root, "prune", "--older-than", "1d"), 2, "--empty-trash")
    assert [row.version for row in repo.show("ranker").versions] == [4, 3, 2, 1]


def test_a_duration_that_is_none_is_refused(repo: OpenRepository) -> None:
    done = inside.command("--root", repo.root, "prune", "--keep-within", "1 month")
    refused(done, 2, "'1 month' is not a duration: write 12h, 30d", "--keep-within")


def test_restore_says_what_it_checked_and_what_to_type_next(repo: OpenRepository) -> None:
    inside.command("--root", repo.root, "prune", "--keep-last", "1")
    dry = inside.command("--root", repo.root, "restore", "ranker@1", "--dry-run")
    assert dry.out.startswith("dry run, nothing was changed: would restore ranker@1\n")
    done = inside.command("--root", repo.root, "restore", "ranker@1", "-m", "needed")
    assert done.code == 0
    assert done.out.startswith("ranker@1 restored\n")
    assert "every byte as in its record" in done.out
    assert "servingrepo serve ranker@1" in done.out
    refused(inside.command("--root", repo.root, "restore", "ranker@1"), 32, "it is on disk")
    refused(inside.command("--root", repo.root, "restore", "ranker"), 13, "does not name")
    repo.mark_bad("ranker@2", message="leaks")
    done = inside.command("--root", repo.root, "restore", "ranker@2", "--json")
    assert done.json["result"]["bad"] == "leaks"


def test_list_status_show_verify_and_history_say_what_is_in_the_trash(
    repo: OpenRepository,
) -> None:
    at = ["--root", str(repo.root)]
    inside.command(*at, "prune", "--keep-last", "1")
    assert "1, 2 (" in inside.command(*at, "list").out
    assert "trash: 1, 2 (" in inside.command(*at, "status").out
    shown = inside.command(*at, "show", "ranker").out
    assert "in the trash: 2 since 20" in shown
    assert "servingrepo restore ranker@2" in shown
    one = inside.command(*at, "show", "ranker@1").out
    assert "/models/ranker/.trash/1-" in one
    assert "servingrepo restore ranker@1" in one
    assert (
        inside.command(*at, "show", "ranker@1", "--json").json["result"]["trashed"]["version"] == 1
    )
    verified = inside.command(*at, "verify", "ranker@1")
    assert verified.out.startswith("ranker@1: ok; in the trash, restorable; ")
    assert "ranker@1" not in inside.command(*at, "verify").out
    history = inside.command(*at, "history").out.splitlines()[-1]
    assert "prune" in history
    assert "ranker@1, 2" in history
    assert "keep last 1" in history


def test_a_damaged_version_in_the_trash_is_no_damage_of_what_is_published(
    repo: OpenRepository,
) -> None:
    at = ["--root", str(repo.root)]
    inside.command(*at, "prune", "--keep-last", "1")
    (trashed,) = (repo.root / "models" / "ranker" / ".trash").glob("1-*")
    (trashed / "saved_model.pb").write_bytes(b"")
    assert inside.command(*at, "verify").code == 0
    refused(
        inside.command(*at, "restore", "ranker@1"), 35, "in the trash", "changed: saved_model.pb"
    )
    assert inside.command(*at, "verify", "ranker@1").code == 35


# where a policy comes from -----------------------------------------------------------------------------


def pruned_by(repo: OpenRepository, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = command("--root", repo.root, "prune", *arguments, "--dry-run", "--json", env=env)
    assert done.code == 0, done.out
    (row,) = json.loads(done.out)["result"]["models"]
    policy: str = row["policy"]
    return policy


def test_a_policy_comes_from_flag_then_environment_then_model_then_default(
    repo: OpenRepository,
) -> None:
    settings = repo.root / "servingrepo.toml"
    settings.write_text(
        '[prune]\nkeep_last = 9\nkeep_within = "30d"\n[models.other]\nkeep_last = 1\n'
    )
    assert pruned_by(repo) == "last 9, within 30d"
    settings.write_text(
        settings.read_text() + '[models.ranker]\nkeep_last = 7\nkeep_labelled = "stable"\n'
    )
    assert pruned_by(repo) == "last 7, within 30d, labelled stable"
    env = {"SERVINGREPO_PRUNE_KEEP_LAST": "5"}
    assert pruned_by(repo, env=env) == "last 5, within 30d, labelled stable"
    given = ["ranker", "--keep-last", "2", "--keep-within", "12h"]
    assert pruned_by(repo, *given, env=env) == "last 2, within 12h, labelled stable"


def test_emptying_the_trash_prunes_only_by_rules_that_are_typed(repo: OpenRepository) -> None:
    (repo.root / "servingrepo.toml").write_text("[prune]\nkeep_last = 1\n")
    done = command("--root", repo.root, "prune", "--empty-trash")
    assert done.out == "nothing in the trash to delete\n"
    assert [row.version for row in repo.show("ranker").versions] == [4, 3, 2, 1]
    done = command("--root", repo.root, "prune", "--empty-trash", "--keep-last", "2", "-q")
    assert done.out == "ranker@2\nranker@1\nranker@1\nranker@2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[prune]\nkeep_within = 'soon'\n", "prune.keep_within:"),
        ("[models.ranker]\nkeep_lst = 1\n", "models.ranker.keep_lst"),
        ("[models.ranker]\nkeep_daily = -1\n", "models.ranker.keep_daily"),
        ("[models.ranker]\nolder_than = '7d'\n", "models.ranker.older_than"),
    ],
)
def test_a_policy_in_the_settings_that_means_nothing_is_refused(
    text: str, said: str, repo: OpenRepository
) -> None:
    (repo.root / "servingrepo.toml").write_text(text)
    refused(command("--root", repo.root, "prune"), 10, said)


# after a promotion -------------------------------------------------------------------------------------


def promote(repo: OpenRepository, run: Path, *more: str) -> list[str | Path]:
    return ["--root", repo.root, "promote", run, "--model", "ranker", "--no-smoke", *more]


def test_promote_prunes_by_the_settings_when_told_to(repo: OpenRepository, run: Path) -> None:
    settings = repo.root / "servingrepo.toml"
    settings.write_text("[prune]\nkeep_last = 2\n[promote]\nprune = true\n")
    done = command(*promote(repo, run))
    assert done.code == 0, done.err
    assert "  pruned    1, 2, 3, " in done.out
    last = list(repo.history("ranker"))[-1]
    assert (last.action, last.versions) == ("prune", (1, 2, 3))
    assert last.why == "after the promotion of ranker@5: keep last 2"
    again = command(*promote(repo, run, "--json")).json["result"]
    assert again["pruned"]["models"][0]["policy"] == "last 2"
    assert again["prune_failed"] == ""


def test_a_dry_run_of_promote_says_which_versions_would_be_pruned(
    repo: OpenRepository, run: Path
) -> None:
    (repo.root / "servingrepo.toml").write_text("[prune]\nkeep_last = 2\n")
    done = inside.command(*promote(repo, run, "--prune", "--dry-run"))
    found = re.search(
        r"^  would prune (.*), \S+ kB, by the rules .*\(last 2\)$", done.out, re.MULTILINE
    )
    assert found is not None, done.out
    assert (
        inside.command(*promote(repo, run, "--prune")).out.count(f"  pruned    {found[1]}, ") == 1
    )
    for policy, said in (("keep_last = 9", "would prune nothing, by"), ("", "is empty")):
        (repo.root / "servingrepo.toml").write_text(f"[prune]\n{policy}\n")
        done = inside.command(*promote(repo, run, "--prune", "--dry-run"))
        assert said in done.out + done.err
    assert "would prune" not in inside.command(*promote(repo, run, "--dry-run")).out


def test_a_models_table_decides_whether_promote_prunes(repo: OpenRepository, run: Path) -> None:
    settings = repo.root / "servingrepo.toml"
    settings.write_text("[prune]\nkeep_last = 2\n[models.ranker]\nprune = true\n")
    assert command(*promote(repo, run, "--no-prune", "--json")).json["result"]["pruned"] is None
    assert command(*promote(repo, run, "--json")).json["result"]["pruned"] is not None
    settings.write_text(
        "[prune]\nkeep_last = 2\n[promote]\nprune = true\n[models.ranker]\nprune = false\n"
    )
    assert command(*promote(repo, run, "--json")).json["result"]["pruned"] is None


def test_promote_that_shall_prune_without_a_policy_is_refused_before_the_copy(
    repo: OpenRepository, run: Path
) -> None:
    refused(command(*promote(repo, run, "--prune")), 2, "every version would go")
    assert repo.show("ranker").highest == 4


def test_a_prune_that_fails_does_not_fail_the_promotion(repo: OpenRepository, run: Path) -> None:
    (repo.root / "servingrepo.toml").write_text("[prune]\nkeep_last = 1\n")
    env = {"SERVINGREPO_FAILPOINTS": "trash.before-rename=EIO"}
    done = command(*promote(repo, run, "--prune", "-q"), env=env)
    assert (done.code, done.out) == (0, "5\n")
    assert done.err.startswith("warning: ranker was not pruned afterwards: ")
    result = command(*promote(repo, run, "--prune", "--json"), env=env)
    assert result.err == ""
    assert "trash.before-rename" in result.json["result"]["prune_failed"]
    assert repo.show("ranker").served == 5
    assert [row.version for row in repo.show("ranker").versions] == [5, 4, 3, 2, 1]


def test_what_is_in_the_trash_with_the_same_content_is_said(
    repo: OpenRepository, tmp_path: Path
) -> None:
    inside.command("--root", repo.root, "prune", "--keep-last", "1")
    done = command(*promote(repo, tmp_path / "run1"))
    assert "ranker@1, which is in the trash, has this content too" in done.out
