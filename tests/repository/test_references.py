from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import (
    BadName,
    BadReference,
    BadVersionNumber,
    NoSuchVersion,
    NothingToRollBack,
    ServingRepoError,
)
from servingrepo.modelconfig import pin
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.repository.references import Kind, Reference, parse_reference, resolve

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", Reference("m", "default")),
        ("m@7", Reference("m", "number", number=7)),
        ("m@9223372036854775807", Reference("m", "number", number=2**63 - 1)),
        ("m@latest", Reference("m", "latest")),
        ("m@served", Reference("m", "served")),
        ("m@previous", Reference("m", "previous")),
        ("m@label:stable", Reference("m", "label", label="stable")),
        ("m.x-1_y@2", Reference("m.x-1_y", "number", number=2)),
    ],
)
def test_every_form_of_reference_is_read(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("m@", BadReference),
        ("m@newest", BadReference),
        ("m@label:", BadReference),
        ("m@label", BadReference),
        ("m@LATEST", BadReference),
        ("m@@7", BadReference),
        ("m@tag:stable", BadReference),
        ("m@0", BadVersionNumber),
        ("m@007", BadVersionNumber),
        ("m@-1", BadVersionNumber),
        ("m@+1", BadVersionNumber),
        ("m@1.5", BadVersionNumber),
        ("m@7x", BadVersionNumber),
        ("m@9223372036854775808", BadVersionNumber),
        ("m@٣", BadVersionNumber),
        ("", BadName),
        ("@7", BadName),
        ("a b@7", BadName),
        ("7@7", BadName),
        ("../m", BadName),
        ("models.config", BadName),
    ],
)
def test_every_other_form_is_refused(text: str, kind: type[ServingRepoError]) -> None:
    with pytest.raises(kind) as caught:
        parse_reference(text)
    assert caught.value.hint


def found(repo: OpenRepository, text: str, *, bare: Kind = "served") -> int:
    return resolve(repo.value, parse_reference(text), bare=bare)


def test_references_mean_the_versions_that_they_say(repo: OpenRepository, release: Release) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    repo.serve("m@2")
    config = pin(
        read_own_config(repo.value),
        name="m",
        base_path="/models/m",
        versions=[1, 2],
        labels={"stable": 1},
    )
    write_config(repo.value, config)
    assert found(repo, "m") == 2
    assert found(repo, "m", bare="latest") == 3
    assert found(repo, "m@latest") == 3
    assert found(repo, "m@served") == 2
    assert found(repo, "m@previous") == 3
    assert found(repo, "m@label:stable") == 1
    assert found(repo, "m@12") == 12


def test_a_bare_name_is_the_latest_where_nothing_is_served(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0, serve=False)
    assert found(repo, "m") == 1


def test_latest_passes_over_bad_versions(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)
    repo.mark_bad("m@2")
    assert found(repo, "m@latest") == 1
    repo.mark_bad("m@1")
    with pytest.raises(NoSuchVersion, match="no good version"):
        found(repo, "m@latest")


def test_what_is_not_there_is_said_with_what_there_is(
    repo: OpenRepository, release: Release
) -> None:
    with pytest.raises(NoSuchVersion, match="no model m ") as caught:
        found(repo, "m@latest")
    assert caught.value.hint == (
        "servingrepo promote RUN --model NAME publishes one; servingrepo adopt --all takes what is there"
    )
    release(1.0, serve=False)
    with pytest.raises(NoSuchVersion, match="no model other") as caught:
        found(repo, "other@1")
    assert caught.value.hint == "models here: m; servingrepo list shows unmanaged ones, too"
    with pytest.raises(NoSuchVersion, match="no version of m is served"):
        found(repo, "m@served")
    with pytest.raises(NoSuchVersion, match="has no label stable") as caught:
        found(repo, "m@label:stable")
    assert caught.value.hint == "labels of m: none"
    with pytest.raises(NothingToRollBack, match="it serves nothing"):
        found(repo, "m@previous")


def test_previous_without_an_earlier_good_version_lists_the_good_ones(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0, serve=False)
    with pytest.raises(NothingToRollBack, match="it serves 1") as caught:
        found(repo, "m@previous")
    assert caught.value.hint is not None
    assert caught.value.hint == (
        "name one: servingrepo rollback m --to 2; other good versions on disk: 2"
    )
    repo.mark_bad("m@2")
    with pytest.raises(NothingToRollBack, match="it serves 1") as caught:
        found(repo, "m@previous")
    assert caught.value.hint is not None
    assert "servingrepo mark-bad m@2 --clear" in caught.value.hint
    assert "name one" not in caught.value.hint


def test_previous_passes_over_versions_that_are_gone(
    repo: OpenRepository, release: Release
) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    gone = repo.value.layout.version("m", 2)
    gone.rename(gone.parent / ".gone")
    assert found(repo, "m@previous") == 1
