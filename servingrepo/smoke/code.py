"""The caller's own Python code: functions that make cases, and predicates that judge answers.

The code runs in a child process. So it can be stopped when it hangs, nothing that it imports (TensorFlow, say) stays
in this process, and what it prints goes nowhere. It is trusted: the caller named it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import msgspec

from servingrepo.children import environment, python
from servingrepo.smoke.cases import Document, SmokeCase, read_case
from servingrepo.smoke.tensors import TENSOR_LIMIT, Array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from servingrepo.smoke.tensors import Tensor

__all__ = ["CaseCode", "CodeFailed", "Predicates"]

CASE_SECONDS = 60.0
"""The longest wait for one case of a function."""
PREDICATE_SECONDS = 10.0
"""The longest wait for one verdict of a predicate."""
_IMPORT_SECONDS = 60.0
"""The longest wait for the child to start and to import the module."""
_LENGTH = struct.Struct("<Q")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_FRAME_LIMIT = 2 * TENSOR_LIMIT


class CodeFailed(Exception):
    """The caller's code raised, hangs, or ended its process; the message says which."""


class CaseCode(msgspec.Struct, frozen=True, kw_only=True):
    """A function that makes cases, as `MODULE:FUNCTION`; each iteration calls it anew."""

    what: str
    seconds: float = CASE_SECONDS

    @staticmethod
    def names(text: str) -> bool:
        """Tell whether a text has the form `MODULE:FUNCTION`."""
        return _NAME.fullmatch(text) is not None

    def __iter__(self) -> Iterator[SmokeCase]:
        """Yield the cases that the function gives; a last one with a problem, if it fails."""
        position = 0
        document = Document(cases=[])
        with _Child() as child:
            try:
                child.send({"do": "cases", "what": self.what})
                child.receive(_IMPORT_SECONDS)
                while True:
                    told = child.receive(self.seconds)
                    if "end" in told:
                        break
                    position += 1
                    if "broken" in told:
                        why = (told["broken"],)
                        yield SmokeCase(file=self.what, position=position, problems=why)
                        continue
                    yield read_case(
                        _with_arrays(told["case"]),
                        file=self.what,
                        position=position,
                        document=document,
                        runs_code=True,
                    )
            except CodeFailed as failed:
                yield SmokeCase(file=self.what, position=position + 1, problems=(str(failed),))
                return
        if not position:
            yield SmokeCase(file=self.what, position=1, problems=("it gave no case",))


class Predicates:
    """Predicates that are asked about answers. One child serves all; after one that hangs comes a new one."""

    def __init__(self, *, seconds: float = PREDICATE_SECONDS) -> None:
        self._seconds = seconds
        self._child: _Child | None = None
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def problem(self, what: str, case: SmokeCase, outputs: Mapping[str, Tensor]) -> str:
        """Return what a predicate has against an answer; empty if it accepts it.

        A predicate that raises, or gives no verdict in time, does not accept.
        """
        if self._child is None:
            self._child = _Child()
        about = {
            "name": case.name,
            "file": case.file,
            "position": case.position,
            "signature_name": case.signature,
        }
        given = {alias: _plain(one) for alias, one in outputs.items()}
        asked = {"do": "check", "what": what, "case": about, "outputs": given}
        try:
            self._child.send(asked)
            if what not in self._known:  # the child says when it has imported the module
                self._child.receive(_IMPORT_SECONDS)
                self._known.add(what)
            said = self._child.receive(self._seconds)
        except CodeFailed as failed:
            self._end()
            return f"predicate {what} {failed}"
        problem = said["problem"]
        return f"predicate {what}: {problem}" if problem else ""

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None
        self._known.clear()


class _Child:
    """The child process. Messages go both ways as msgpack, each with its length in front."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # nosec B603 # our own module, by the interpreter that runs us
            [*python("servingrepo.smoke.code_child"), "--parent", str(os.getpid())],
            env={**environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            CodeFailed: The child has ended.
        """
        data = msgspec.msgpack.encode(message)
        assert self._process.stdin is not None  # nosec B101 # noqa: S101 - it is a pipe
        try:
            left = memoryview(_LENGTH.pack(len(data)) + data)
            while left:
                left = left[self._process.stdin.write(left) :]
        except OSError as error:
            raise CodeFailed(self._ended()) from error

    def receive(self, seconds: float) -> dict[str, Any]:
        """Return the next message.

        Raises:
            CodeFailed: None came in time, the child has ended, or the code raised.
        """
        ends = time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, ends, seconds))
        if length > _FRAME_LIMIT:
            raise CodeFailed("gave more than can be sent")
        said: dict[str, Any] = msgspec.msgpack.decode(self._read(length, ends, seconds))
        if "raised" in said:
            raise CodeFailed(said["raised"])
        return said

    def _read(self, size: int, ends: float, seconds: float) -> bytes:
        assert self._process.stdout is not None  # nosec B101 # noqa: S101 - it is a pipe
        descriptor, data = self._process.stdout.fileno(), bytearray()
        while len(data) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise CodeFailed(f"did not answer within {seconds:.3g} s, and was stopped")
            piece = os.read(descriptor, min(size - len(data), 1 << 20))
            if not piece:
                raise CodeFailed(self._ended())
            data += piece
        return bytes(data)

    def _ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        return f"ended its process ({self._process.returncode})"


def _with_arrays(value: Any) -> Any:
    """Return an object of a function with Arrays in place of what stands for them."""
    if isinstance(value, dict):
        if value.keys() == {"__array__"}:
            return msgspec.convert(value["__array__"], Array)
        return {key: _with_arrays(one) for key, one in value.items()}
    return value


def _plain(tensor: Tensor) -> dict[str, Any]:
    values = tensor.values
    if any(isinstance(one, complex) for one in values[:1]):
        values = tuple(part for one in values for part in (one.real, one.imag))
    return {"dtype": tensor.dtype, "shape": tensor.shape, "values": values}
