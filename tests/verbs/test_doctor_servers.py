"""doctor on running servers: whether what they have loaded is what disk and config say."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

from servingrepo.modelconfig import parse, to_proto
from servingrepo.servers.client import ServingClient
from servingrepo.testing.exports import write_export
from tests.support import live_server, new_repository
from tests.verbs.doctoring import configure, entry, examine, export, models, slugs, the

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf
LABEL = 'version_labels { key: "stable" value: 2 }'


def pinned(repo: OpenRepository, policy: str, labels: str = "") -> None:
    """Write models.config by hand, as a tree of others has it."""
    shelf = repo.root / "models"
    configure(shelf, entry("half", policy, base_path=str(shelf / "half"), labels=labels))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[OpenRepository, Endpoint]]:
    """A tree that a server has loaded: half, of which 1 and 2 are pinned and 2 is stable."""
    models(tmp_path / "serving", config=False)
    repo = new_repository(tmp_path / "serving")
    pinned(repo, "specific { versions: 1 versions: 2 }", LABEL)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        yield repo, endpoint


def test_a_server_that_agrees_has_no_findings(served: tuple[OpenRepository, Endpoint]) -> None:
    repo, endpoint = served
    assert slugs(examine(repo.root, endpoints=[endpoint])) == []


def test_versions_and_labels_that_differ_are_found(served: tuple[OpenRepository, Endpoint]) -> None:
    repo, endpoint = served
    export(repo.root / "models" / "half" / "3")
    pinned(
        repo,
        "specific { versions: 2 versions: 3 }",
        LABEL.replace("2", "3") + LABEL.replace("stable", "old"),
    )
    found = examine(repo.root, endpoints=[endpoint])
    assert set(slugs(found)) == {"server-differs", "server-label-differs"}
    assert found.exit_code == 68
    what = "\n".join(one.what for one in found.findings)
    assert "half@3 is pinned but not loaded" in what
    assert "half@1 is loaded but models.config does not pin it" in what
    assert "label old" in what


def test_a_version_that_failed_is_found(served: tuple[OpenRepository, Endpoint]) -> None:
    """The files are whole again by now, and the server never tries again."""
    repo, endpoint = served
    broken = export(repo.root / "models" / "half" / "3")
    shutil.move(broken / "saved_model.pb", broken / "away")
    pinned(repo, "specific { versions: 2 versions: 3 }")
    config = parse((repo.root / "models" / "models.config").read_text())
    with ServingClient(endpoint) as client:
        client.reload(to_proto(config), timeout=10)
        while not any(one.failed for one in client.status("half", timeout=5)):
            time.sleep(0.1)
    shutil.move(broken / "away", broken / "saved_model.pb")
    found = examine(repo.root, endpoints=[endpoint])
    assert slugs(found) == ["server-failed"]
    assert the(found, "server-failed").what.startswith(f"{endpoint}: half@3 failed to load: ")
    assert found.exit_code == 64


def test_without_a_config_the_highest_version_counts(
    served: tuple[OpenRepository, Endpoint], tmp_path: Path
) -> None:
    repo, endpoint = served
    shelf = repo.root / "models"
    shutil.copytree(shelf / "half", tmp_path / "bare" / "half")
    write_export(tmp_path / "bare" / "half" / "3")
    found = examine(tmp_path / "bare", endpoints=[endpoint])
    assert slugs(found) == ["server-differs"]
    assert "half@3 is the highest version on disk" in "".join(one.what for one in found.findings)
    export(tmp_path / "other" / "strange" / "1")
    found = examine(tmp_path / "other", endpoints=[endpoint])
    assert slugs(found) == []
    assert any("has none of these models: strange" in one for one in found.not_checked)
    (tmp_path / "nothing").mkdir()
    found = examine(tmp_path / "nothing", endpoints=[endpoint])
    assert f"{endpoint}: there is no model to ask it about" in found.not_checked


def test_a_server_that_does_not_answer_is_found(tmp_path: Path) -> None:
    models(tmp_path)
    found = examine(tmp_path, endpoints=["127.0.0.1:1"])
    assert slugs(found) == ["server-no-answer"]
    assert the(found, "server-no-answer").path == "127.0.0.1:1"
    assert found.exit_code == 65
