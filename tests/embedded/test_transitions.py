"""The manager's behaviour over time, and its traps (tfserving: core/aspired_versions_manager.cc)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.embedded.harness import Retries
from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.versions import VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.embedded.conftest import Bench

ALL = VersionPolicy("all")


def test_first_version_goes_start_loading_available(bench: Bench) -> None:
    bench.put("m/1")
    assert bench.reload("m").ok
    assert bench.history("m") == [(1, "START"), (1, "LOADING"), (1, "AVAILABLE")]
    assert bench.answers("m") == 1


def test_new_version_is_loaded_before_the_old_one_goes(bench: Bench) -> None:
    bench.put("m/1")
    bench.reload("m")
    bench.put("m/2")
    bench.turn()
    assert bench.history("m")[3:] == [
        (2, "START"),
        (2, "LOADING"),
        (2, "AVAILABLE"),
        (1, "UNLOADING"),
        (1, "END"),
    ]
    assert bench.answers("m") == 2
    assert bench.answers("m", 1) is None
    assert bench.runtime.sessions[0].closed


def test_latest_two_unloads_before_it_loads(bench: Bench) -> None:
    for number in (1, 2):
        bench.put(f"m/{number}")
    bench.reload(bench.entry("m", policy=VersionPolicy("latest", 2)))
    bench.turn()
    bench.events.clear()
    bench.put("m/3")
    bench.turn()
    order = [one for one in bench.history("m") if one[1] in ("END", "AVAILABLE")]
    assert order == [(1, "END"), (3, "AVAILABLE")]


def test_specific_goes_down_by_loading_first(bench: Bench) -> None:
    for number in (4, 5):
        bench.put(f"m/{number}")
    bench.reload(bench.entry("m", policy=VersionPolicy("specific", specific=(5,))))
    bench.reload(bench.entry("m", policy=VersionPolicy("specific", specific=(4,))))
    bench.events.clear()
    bench.turn()
    assert [one for one in bench.history("m") if one[1] in ("END", "AVAILABLE")] == [
        (4, "AVAILABLE"),
        (5, "END"),
    ]


def test_several_new_versions_load_highest_first(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.put(f"m/{number}")
    bench.reload(bench.entry("m", policy=ALL))
    bench.turn()
    assert bench.runtime.attempts == ["m/3", "m/2", "m/1"]


def test_unloads_come_before_loads_across_models(bench: Bench) -> None:
    bench.put("a/1")
    bench.put("z/1")
    bench.reload("a", "z")
    bench.put("a/2")
    bench.delete("z/1")
    bench.poll()
    first, second = bench.manager.tick(), bench.manager.tick()
    assert first is not None
    assert second is not None
    assert [str(first.id), str(second.id)] == ["{name: z version: 1}", "{name: a version: 2}"]


def test_emptied_base_path_unloads_everything(bench: Bench) -> None:
    bench.put("m/1")
    bench.reload("m")
    bench.delete("m/1")
    bench.turn()
    assert bench.states("m") == {1: "END"}
    assert bench.failure("m", 1).ok
    assert bench.answers("m") is None


def test_missing_base_path_freezes_all_models(bench: Bench) -> None:
    bench.put("a/1")
    bench.put("b/1")
    bench.reload("a", "b")
    bench.delete("b")
    bench.put("a/2")
    bench.turn(3)
    assert bench.states("a") == {1: "AVAILABLE"}
    assert bench.answers("b") == 1
    bench.put("b/1")
    bench.turn()
    assert bench.states("a") == {2: "AVAILABLE", 1: "END"}


def test_files_replaced_in_place_change_nothing(bench: Bench) -> None:
    bench.put("m/1", "old")
    bench.reload("m")
    bench.put("m/1", "new")
    bench.turn(2)
    assert [session.text for session in bench.runtime.sessions] == ["old"]


def test_base_path_changed_keeps_the_numbers_that_are_loaded(bench: Bench) -> None:
    bench.put("m/1", "old")
    bench.put("elsewhere/1", "new")
    bench.reload("m")
    assert bench.reload(bench.entry("m", base_path=str(bench.base / "elsewhere"))).ok
    bench.turn(2)
    assert [session.text for session in bench.runtime.sessions] == ["old"]


def test_first_of_two_directories_with_same_number_serves(bench: Bench) -> None:
    bench.put("m/2", "plain")
    bench.put("m/002", "zeros")
    bench.reload(bench.entry("m", policy=ALL))
    bench.turn(2)
    bench.delete("m/002")
    bench.turn(2)
    assert [session.text for session in bench.runtime.sessions] == ["zeros"]


class TestFailedVersion:
    @pytest.fixture(autouse=True)
    def failed(self, bench: Bench) -> None:
        """Version 1 serves, version 2 failed."""
        bench.put("m/1")
        bench.reload("m")
        bench.put("m/2", "broken")
        bench.turn()
        assert bench.states("m") == {2: "END", 1: "AVAILABLE"}
        assert bench.failure("m", 2).code is Code.DATA_LOSS

    def test_is_not_tried_again_when_repaired_in_place(self, bench: Bench) -> None:
        bench.put("m/2")
        bench.turn(3)
        assert bench.states("m") == {2: "END", 1: "AVAILABLE"}

    def test_is_not_tried_again_when_deleted_and_published_again(self, bench: Bench) -> None:
        bench.delete("m/2")
        bench.turn(3)
        bench.put("m/2")
        bench.turn(3)
        assert bench.states("m") == {2: "END", 1: "AVAILABLE"}
        assert bench.answers("m") == 1

    def test_keeps_the_old_one_even_when_its_directory_goes(self, bench: Bench) -> None:
        bench.delete("m/1")
        bench.turn(3)
        assert bench.answers("m") == 1
        bench.delete("m/2")
        bench.turn(3)
        assert bench.answers("m") is None
        bench.put("m/2")
        bench.turn()
        assert bench.answers("m") == 2

    def test_gives_way_to_a_higher_number(self, bench: Bench) -> None:
        bench.put("m/3")
        bench.turn()
        assert bench.states("m") == {3: "AVAILABLE", 2: "END", 1: "END"}

    def test_going_back_to_the_old_number_is_a_no_op_that_looks_right(self, bench: Bench) -> None:
        pinned = bench.entry("m", policy=VersionPolicy("specific", specific=(1,)))
        assert bench.reload(pinned).ok
        bench.turn(3)
        assert bench.states("m") == {2: "END", 1: "AVAILABLE"}
        # 1 is still unaspired in there: as soon as 2 could be forgotten, nothing would hold 1.
        bench.delete("m/1")
        bench.turn(3)
        assert bench.answers("m") is None

    def test_is_forgotten_when_the_model_leaves_the_config(self, bench: Bench) -> None:
        bench.put("m/2")
        assert bench.reload().ok
        bench.turn()
        assert bench.reload("m").ok
        assert bench.answers("m") == 2


def test_the_trap_is_explained_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.put("m/1")
    bench.reload("m")
    bench.put("m/2", "broken")
    bench.turn()
    bench.delete("m/2")
    bench.turn(4)
    told = [r for r in caplog.records if "because version 2 failed" in r.getMessage()]
    assert len(told) == 1


def test_failed_version_loads_again_after_its_removal(bench: Bench) -> None:
    bench.put("m/1", "broken")
    assert bench.reload("m").code is Code.UNKNOWN
    # The server would have ended there; a reload on an idle server goes on.
    assert bench.reload("m").code is Code.UNKNOWN
    bench.delete("m/1")
    bench.turn()
    bench.put("m/1")
    bench.turn()
    assert bench.answers("m") == 1


class TestRetries:
    def test_a_load_is_tried_one_time_more_than_retries(
        self, make_bench: Callable[..., Bench]
    ) -> None:
        bench = make_bench(retries=3)
        bench.put("m/1", "broken")
        assert bench.reload("m").code is Code.UNKNOWN
        assert bench.runtime.attempts == ["m/1"] * 4
        assert bench.slept == 3

    def test_minus_one_is_no_retry(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(retries=-1)
        bench.put("m/1", "broken")
        bench.reload("m")
        assert bench.runtime.attempts == ["m/1"]

    def test_other_negative_numbers_are_no_end(self) -> None:
        attempts = iter(range(1000))
        retries = Retries(number=-2, interval=-1, sleep=lambda _: None)
        failure = Status(Code.UNKNOWN, "x")
        outcome = retries.attempt(
            lambda: failure, wanted=lambda: next(attempts) < 500, what="loading"
        )
        assert outcome == failure
        assert next(attempts) == 501

    def test_files_repaired_during_the_retries_are_picked_up(
        self, make_bench: Callable[..., Bench]
    ) -> None:
        bench = make_bench(retries=3)
        bench.put("m/1", "broken")
        bench.sleeps = [lambda: None, lambda: bench.put("m/1")]
        assert bench.reload("m").ok
        assert bench.runtime.attempts == ["m/1"] * 3
        assert bench.history("m") == [(1, "START"), (1, "LOADING"), (1, "AVAILABLE")]

    def test_other_models_wait_meanwhile(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(retries=2)
        bench.put("a/1")
        bench.put("b/1")
        bench.reload("a", "b")
        bench.put("a/2", "broken")
        seen: list[dict[int, str]] = []

        def look() -> None:
            bench.put("b/2")
            bench.poll()
            seen.append(bench.states("b"))

        bench.sleeps = [look, look]
        bench.turn()
        assert seen == [{1: "AVAILABLE"}] * 2
        assert bench.states("a") == {2: "END", 1: "AVAILABLE"}
        assert bench.states("b") == {2: "AVAILABLE", 1: "END"}

    def test_the_next_version_waits_in_start(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(retries=1)
        bench.put("m/1")
        bench.reload(bench.entry("m", policy=ALL))
        bench.put("m/2")
        bench.put("m/3", "broken")
        seen: list[dict[int, str]] = []
        bench.sleeps = [lambda: seen.append(bench.states("m"))]
        bench.turn()
        assert seen == [{3: "LOADING", 2: "START", 1: "AVAILABLE"}]

    def test_no_resources_no_loading_state(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(retries=2)
        bench.put("m/1")
        bench.reload("m")
        (bench.base / "m" / "7").write_text("a plain file")
        bench.turn()
        assert bench.history("m")[3:] == [(7, "START"), (7, "END")]
        assert bench.slept == 2
        assert str(bench.failure("m", 7)) == (
            "FAILED_PRECONDITION: Error while attempting to reserve resources to load servable "
            f"{{name: m version: 7}}: {bench.base}/m/7; Not a directory"
        )

    def test_a_broken_symlink_is_not_found(self, bench: Bench) -> None:
        bench.put("m/1")
        bench.reload("m")
        (bench.base / "m" / "9").symlink_to("gone")
        bench.turn()
        assert str(bench.failure("m", 9)) == (
            "NOT_FOUND: Error while attempting to reserve resources to load servable "
            f"{{name: m version: 9}}: {bench.base}/m/9 not found"
        )


class TestLoadFailures:
    @pytest.mark.parametrize(
        ("files", "code", "text"),
        [
            (
                [],
                Code.NOT_FOUND,
                "Specified file path does not appear to contain a SavedModel bundle",
            ),
            (
                ["variables/x"],
                Code.NOT_FOUND,
                "(should have a file called `saved_model.pb`)\nSpecified",
            ),
            (
                ["export.meta", "saved_model.pb"],
                Code.UNIMPLEMENTED,
                "Session Bundle is deprecated and removed.",
            ),
        ],
    )
    def test_a_directory_that_is_no_saved_model(
        self, bench: Bench, files: list[str], code: Code, text: str
    ) -> None:
        version: Path = bench.base / "m" / "1"
        version.mkdir(parents=True)
        for name in files:
            (version / name).parent.mkdir(exist_ok=True)
            (version / name).write_text("good")
        bench.reload("m")
        assert bench.failure("m", 1).code is code
        assert text in bench.failure("m", 1).message
        assert bench.runtime.attempts == []
