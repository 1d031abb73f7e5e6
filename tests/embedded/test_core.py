"""Reloads, labels and waiting (tfserving: model_servers/server_core.cc)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.embedded.config import ServerConfig
from servingrepo.embedded.core import CustomConfigError
from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.versions import VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.embedded.config import ModelEntry
    from tests.embedded.conftest import Bench

INVALID, PRECONDITION = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION


def find_label(bench: Bench, name: str, label: str) -> Status | int:
    found = bench.core.find(name, label=label)
    if isinstance(found, Status):
        return found
    with found as handle:
        return handle.id.version


class TestStart:
    def test_broken_newest_version_fails_although_an_older_one_is_good(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.put("m/2", "broken")
        assert str(bench.reload("m")) == (
            "UNKNOWN: 1 servable(s) did not become available: "
            "{{{name: m version: 2} due to error: DATA_LOSS: broken}, }"
        )

    def test_all_is_rescued_by_no_one_when_the_highest_fails_first(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.put("m/2", "broken")
        entry = bench.entry("m", policy=VersionPolicy("all"))
        assert bench.reload(entry).code is Code.UNKNOWN

    @pytest.mark.parametrize("made", [False, True])
    def test_base_path_without_versions_is_waited_for(
        self, bench: Bench, hangs: type[Exception], *, made: bool
    ) -> None:
        if made:
            (bench.base / "m").mkdir()
        with pytest.raises(hangs):
            bench.reload("m")

    def test_two_failures_are_both_named_in_order(self, bench: Bench) -> None:
        bench.put("b/1", "broken b")
        bench.put("a/1", "broken a")
        assert bench.reload("b", "a").message == (
            "2 servable(s) did not become available: "
            "{{{name: a version: 1} due to error: DATA_LOSS: broken a}, "
            "{{name: b version: 1} due to error: DATA_LOSS: broken b}, }"
        )

    def test_empty_config_then_a_list_is_a_first_config(self, bench: Bench) -> None:
        assert bench.core.reload(ServerConfig()).ok
        assert bench.source is None
        assert find_label(bench, "m", "x") == Status(
            Code.UNAVAILABLE, "Model labels does not init yet.x"
        )
        bench.put("m/1", "broken")
        assert "1 servable(s) did not" in bench.reload("m").message

    def test_empty_list_has_labels_but_none(self, bench: Bench) -> None:
        assert bench.reload().ok
        assert find_label(bench, "m", "x") == Status(
            INVALID, "Unrecognized servable version label: x"
        )

    def test_custom_config_aborts(self, bench: Bench) -> None:
        with pytest.raises(CustomConfigError):
            bench.core.reload(ServerConfig("custom"))


class TestValidation:
    def test_list_to_something_else_is_refused(self, bench: Bench) -> None:
        bench.reload()
        for kind in (ServerConfig(), ServerConfig("custom")):
            refused = bench.core.reload(kind)
            assert refused.code is PRECONDITION
            assert refused.message.startswith("Cannot transition to requested config.")

    def test_a_name_listed_twice(self, bench: Bench) -> None:
        assert bench.reload("m", "m") == Status(
            INVALID, "Illegal to list model m multiple times in config list"
        )

    @pytest.mark.parametrize("path", ["", "models/m", "~/m", "./m"])
    def test_relative_base_path(self, bench: Bench, path: str) -> None:
        assert bench.reload(bench.entry("m", base_path=path)) == Status(
            INVALID, f"Expected model m to have an absolute path or URI; got base_path()={path}"
        )

    def test_platform_errors(self, bench: Bench) -> None:
        neither = bench.reload(bench.entry("m", platform=""))
        assert neither.message.startswith("Illegal setting neither ModelServerConfig::model_type")
        assert neither.message.endswith("model name is m")

    def test_both_platform_and_type(self, bench: Bench) -> None:
        both = bench.reload(bench.entry("m", model_type=1))
        assert both.message.startswith("Illegal setting both ModelServerConfig::model_type")

    def test_other_model_type(self, bench: Bench) -> None:
        other = bench.reload(bench.entry("m", platform="", model_type=2))
        assert other.message == "ModelServerConfig::model_type choice 2 not supported."

    def test_deprecated_type_is_the_platform(self, bench: Bench) -> None:
        bench.put("m/1")
        assert bench.reload(bench.entry("m", platform="", model_type=1)).ok
        assert bench.reload("m").ok

    def test_platform_changed(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.reload("m")
        assert bench.reload(bench.entry("m", platform="x")).message == (
            "Illegal to change a model's platform. For model m platform was tensorflow "
            "and new platform requested is x"
        )
        assert bench.reload("m").ok

    def test_new_model_without_platform_bricks_every_later_reload(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.put("m/1")
        bench.reload("m")
        attempts: list[list[str | ModelEntry]] = [["m", bench.entry("n", platform="")], ["m"], []]
        for attempt in attempts:
            refused = bench.reload(*attempt)
            assert refused.message.endswith("model name is n")
        assert bench.answers("m") == 1
        assert "every later reload will be refused" in caplog.text

    def test_unsupported_platform_needs_a_reload_without_the_model(self, bench: Bench) -> None:
        bench.reload()
        bench.put("m/1")
        refused = bench.reload(bench.entry("m", platform="x"))
        assert refused.message == "Model m requests unsupported platform x"
        assert bench.reload("m").message.startswith("Illegal to change a model's platform")
        assert bench.reload().ok
        assert bench.reload("m").ok

    def test_logging_config_fails_after_it_was_applied(self, bench: Bench) -> None:
        bench.reload()
        bench.put("m/1")
        refused = bench.reload(bench.entry("m", has_logging=True))
        assert refused == Status(INVALID, "No request-logger-creator provided.")
        assert bench.answers("m") == 1
        assert bench.reload("m").ok


class TestReload:
    def test_removed_model_unloads_at_the_next_tick(self, bench: Bench) -> None:
        bench.put("a/1")
        bench.put("b/1")
        bench.reload("a", "b")
        assert bench.reload("a").ok
        assert bench.answers("b") == 1
        bench.turn()
        assert bench.answers("b") is None
        assert bench.states("b") == {1: "END"}

    def test_new_model_without_versions_hangs(self, bench: Bench, hangs: type[Exception]) -> None:
        bench.reload()
        with pytest.raises(hangs):
            bench.reload("m")

    def test_new_versions_of_known_models_are_not_waited_for(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.put("m/2")
        bench.reload(bench.entry("m", policy=VersionPolicy("specific", specific=(1,))))
        assert bench.reload("m").ok
        assert bench.states("m") == {1: "AVAILABLE"}

    def test_broken_new_model_says_models(self, bench: Bench) -> None:
        bench.reload()
        bench.put("m/1", "broken")
        assert bench.reload("m").message == (
            "1 model(s) did not become available: "
            "{{{name: m version: 1} due to error: DATA_LOSS: broken}, }"
        )

    def test_readding_at_once_takes_the_unload_for_the_outcome(self, bench: Bench) -> None:
        bench.put("b/1")
        bench.reload("b")
        assert bench.reload().ok
        assert bench.reload("b") == Status(
            Code.UNKNOWN, "1 model(s) did not become available: {{{name: b version: 1}}, }"
        )
        bench.turn(2)
        assert bench.answers("b") == 1
        assert bench.reload("b").ok


class TestLabels:
    @pytest.fixture(autouse=True)
    def two_versions(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.put("m/2")

    def entry(self, bench: Bench, labels: dict[str, int]) -> ModelEntry:
        return bench.entry("m", policy=VersionPolicy("all"), labels=labels)

    def test_at_start_are_refused(self, bench: Bench) -> None:
        assert bench.reload(self.entry(bench, {"stable": 1})) == Status(
            PRECONDITION,
            "Request to assign label to version 1 of model m, which is not currently available "
            "for inference",
        )

    def test_at_start_with_the_flag_work(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(labels_for_unavailable=True)
        assert bench.reload(self.entry(bench, {"stable": 2})).ok
        assert find_label(bench, "m", "stable") == 2

    def test_move_swap_and_vanish(self, bench: Bench) -> None:
        bench.reload(self.entry(bench, {}))
        bench.turn()
        for labels in ({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"": 1}):
            assert bench.reload(self.entry(bench, labels)).ok
            for label, version in labels.items():
                assert find_label(bench, "m", label) == version
        assert find_label(bench, "m", "a") == Status(
            INVALID, "Unrecognized servable version label: a"
        )

    def test_existing_label_moves_to_available_versions_only_even_with_the_flag(
        self, make_bench: Callable[..., Bench]
    ) -> None:
        bench = make_bench(labels_for_unavailable=True)
        bench.reload(self.entry(bench, {"a": 1}))
        bench.turn()
        refused = bench.reload(self.entry(bench, {"a": 3, "new": 9}))
        assert refused.code is PRECONDITION
        assert find_label(bench, "m", "a") == 1
        assert bench.reload(self.entry(bench, {"a": 2, "new": 9})).ok
        assert find_label(bench, "m", "new") == Status(
            Code.NOT_FOUND, "Servable not found for request: Specific(m, 9)"
        )

    def test_unchanged_config_is_refused_once_the_version_is_gone(self, bench: Bench) -> None:
        bench.reload(self.entry(bench, {}))
        bench.turn()
        labelled = self.entry(bench, {"old": 1})
        assert bench.reload(labelled).ok
        bench.delete("m/1")
        bench.turn()
        assert find_label(bench, "m", "old") == Status(
            Code.NOT_FOUND, "Servable not found for request: Specific(m, 1)"
        )
        assert bench.reload(labelled).code is PRECONDITION

    def test_refused_config_is_stored_all_the_same(self, bench: Bench) -> None:
        bench.reload("m")
        new = bench.entry("n", platform="x", labels={"l": 1})
        assert bench.reload("m", new).code is PRECONDITION
        refused = bench.reload("m", "n")
        assert refused.message.startswith("Illegal to change a model's platform. For model n")

    def test_refused_config_is_not_applied(self, bench: Bench) -> None:
        bench.reload("m")
        refused = bench.entry("m", policy=VersionPolicy("specific", specific=(1,)), labels={"x": 1})
        assert bench.reload(refused).code is PRECONDITION
        bench.turn(2)
        assert bench.answers("m") == 2


def test_find_says_what_was_asked_for(bench: Bench) -> None:
    assert bench.core.find("") == Status(INVALID, "ModelSpec has no name specified.")
    assert bench.core.find("m") == Status(
        Code.NOT_FOUND, "Servable not found for request: Latest(m)"
    )
    assert bench.core.find("m", version=0) == Status(
        Code.NOT_FOUND, "Servable not found for request: Specific(m, 0)"
    )
