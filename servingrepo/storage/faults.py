"""Faults as data: a plan of what goes wrong at which step of a writing command.

A writing command names each of its steps (`Disk.step`). A fault plan is a text such as
`c1.before-rename=kill,config.after-write=ENOSPC`; the tests pass it to a real process through the environment.
`record=PATH` writes every reached step into a file: so a sweep visits all steps that exist, and no person keeps a
list of them. Without a plan a step only reads two fields.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from pathlib import Path
from typing import Self

import msgspec

from servingrepo.errors import SettingsError

_SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "stop": signal.SIGSTOP,
}
_ERRNOS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
_ACTION = re.compile("|".join([*_SIGNALS, *_ERRNOS, r"sleep:\d+(\.\d+)?"]))


class Faults(msgspec.Struct, frozen=True):
    """A plan: an action for each step name, and perhaps a file that records the reached steps.

    `STEP@N` means the Nth time that the step is reached, `STEP` every time. The actions are `kill`, `term`, `int`
    and `stop` (a signal to this process), `ENOSPC`, `EIO`, `EACCES` (an OSError) and `sleep:SECONDS`.
    """

    plan: dict[str, str] = {}
    record: Path | None = None
    reached: dict[str, int] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `STEP=ACTION,…`.

        Raises:
            SettingsError: A part cannot be read.
        """
        plan: dict[str, str] = {}
        record: Path | None = None
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            step, equals, action = part.partition("=")
            if step == "record" and equals:
                record = Path(action)
            elif step and equals and _ACTION.fullmatch(action):
                plan[step] = action
            else:
                raise SettingsError(
                    f"cannot read the failpoint {part!r}",
                    hint=f"STEP=ACTION with an action of {', '.join([*_SIGNALS, *_ERRNOS])}, sleep:S",
                )
        return cls(plan=plan, record=record)

    def reach(self, step: str, path: Path | None = None) -> None:
        """Do the action that the plan has for this step.

        Raises:
            OSError: The plan has an error for this step.
        """
        if not self.plan and self.record is None:
            return
        count = self.reached[step] = self.reached.get(step, 0) + 1
        if self.record is not None:
            with self.record.open("a") as record:
                record.write(f"{step}@{count}\n")
        action = self.plan.get(f"{step}@{count}", self.plan.get(step))
        if action is None:
            return
        if action in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[action])
        elif action in _ERRNOS:
            number = _ERRNOS[action]
            raise OSError(number, os.strerror(number), str(path or step))
        else:
            time.sleep(float(action.removeprefix("sleep:")))
