"""The outcome of an operation as TensorFlow Serving expresses it: a code and a text.

Errors are values, because GetModelStatus shows them, other errors quote them, and a failed load is an ordinary
state of a version. The codes are those of absl::Status and gRPC.
"""

from __future__ import annotations

import errno
from enum import IntEnum

import msgspec

__all__ = ["OK", "Code", "Status", "from_os_error"]


class Code(IntEnum):
    """absl::StatusCode."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Status(msgspec.Struct, frozen=True):
    """An outcome. `str()` is the text of absl::Status, which other texts quote."""

    code: Code
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return self.code is Code.OK

    def __str__(self) -> str:
        return "OK" if self.ok else f"{self.code.name}: {self.message}"


OK = Status(Code.OK)

# TensorFlow's codes for errno: tsl/platform/errors.cc, IOError.
_ERRNO = {
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
    errno.E2BIG: Code.INVALID_ARGUMENT,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENODEV: Code.NOT_FOUND,
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EROFS: Code.PERMISSION_DENIED,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EISDIR: Code.FAILED_PRECONDITION,
    errno.EBADF: Code.FAILED_PRECONDITION,
    errno.EBUSY: Code.FAILED_PRECONDITION,
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.EFBIG: Code.OUT_OF_RANGE,
    errno.ENOSYS: Code.UNIMPLEMENTED,
    errno.EAGAIN: Code.UNAVAILABLE,
    errno.EINTR: Code.UNAVAILABLE,
}


def from_os_error(error: OSError, path: str) -> Status:
    """Return the status that TensorFlow's file system gives for this error at this path."""
    code = _ERRNO.get(error.errno or 0, Code.UNKNOWN)
    return Status(code, f"{path}; {error.strerror}")
