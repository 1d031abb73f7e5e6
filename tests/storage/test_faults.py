from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servingrepo.errors import NoPermission, NoSpace, SettingsError, StorageFailed
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults


def test_a_plan_is_read_from_text() -> None:
    faults = Faults.parse("a.b=kill, c@2=ENOSPC ,record=/tmp/x,d=sleep:0.5,")
    assert faults.plan == {"a.b": "kill", "c@2": "ENOSPC", "d": "sleep:0.5"}
    assert faults.record == Path("/tmp/x")


@pytest.mark.parametrize("text", ["a", "a=", "a=explode", "=kill,b=sleepy", "record", "a=sleep:x"])
def test_a_plan_that_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Faults.parse(text)
    assert caught.value.hint


def test_no_plan_does_nothing() -> None:
    Faults().reach("any")
    Faults.parse("other=EIO").reach("any")


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EACCES"])
def test_an_error_is_raised_with_its_number_and_path(name: str) -> None:
    with pytest.raises(OSError, match="/some/path") as caught:
        Faults.parse(f"a={name}").reach("a", Path("/some/path"))
    assert caught.value.errno == getattr(errno, name)


@pytest.mark.parametrize(
    ("name", "kind"), [("ENOSPC", NoSpace), ("EIO", StorageFailed), ("EACCES", NoPermission)]
)
def test_a_disk_turns_the_error_into_ours(name: str, kind: type[StorageFailed]) -> None:
    with pytest.raises(kind) as caught:
        Disk(faults=Faults.parse(f"a={name}")).step("a")
    assert type(caught.value) is kind


def test_a_step_with_a_number_fails_only_then() -> None:
    faults = Faults.parse("a@2=EIO")
    faults.reach("a")
    with pytest.raises(OSError, match="error"):
        faults.reach("a")
    faults.reach("a")


def test_a_step_without_a_number_fails_every_time() -> None:
    faults = Faults.parse("a=EIO")
    for _ in range(2):
        with pytest.raises(OSError, match="error"):
            faults.reach("a")


def test_two_plans_count_apart() -> None:
    Faults.parse("a@2=EIO").reach("a")
    Faults.parse("a@2=EIO").reach("a")


def test_steps_are_recorded_in_order_with_their_number(tmp_path: Path) -> None:
    faults = Faults.parse(f"record={tmp_path / 'steps'}")
    for step in ("a", "b", "a"):
        faults.reach(step)
    assert (tmp_path / "steps").read_text().split() == ["a@1", "b@1", "a@2"]


def test_sleep_waits() -> None:
    start = time.monotonic()
    Faults.parse("a=sleep:0.05").reach("a")
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize(
    ("name", "number"),
    [("kill", signal.SIGKILL), ("term", signal.SIGTERM), ("int", signal.SIGINT)],
)
def test_a_signal_is_sent_to_the_process_itself(name: str, number: signal.Signals) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "from servingrepo.storage.faults import Faults\n"
        f"Faults.parse('a={name}').reach('a')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -number
