"""The outcome of an operation as TensorFlow Serving expresses it: a code and a text.

Errors are values, because GetModelStatus shows them, other errors quote them, and a failed load is an ordinary
state of a version. The codes are those of absl::Status and gRPC.
"""

from __future__ import annotations

import errno
from enum import IntEnum

import msgspec

__all__ = ["OK", "Code", "Status", "from_os_error", "invalid"]


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


def invalid(text: str) -> Status:
    """Return an INVALID_ARGUMENT."""
    return Status(Code.INVALID_ARGUMENT, text)


# TensorFlow's codes for errno: tsl/platform/errors.cc, IOError.
_ERRNO = {
    **dict.fromkeys((errno.EINVAL, errno.ENAMETOOLONG, errno.E2BIG), Code.INVALID_ARGUMENT),
    **dict.fromkeys((errno.ENOENT, errno.ENODEV), Code.NOT_FOUND),
    errno.EEXIST: Code.ALREADY_EXISTS,
    **dict.fromkeys((errno.EPERM, errno.EACCES, errno.EROFS), Code.PERMISSION_DENIED),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.EBADF, errno.EBUSY), Code.FAILED_PRECONDITION
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM), Code.RESOURCE_EXHAUSTED
    ),
    errno.EFBIG: Code.OUT_OF_RANGE,
    errno.ENOSYS: Code.UNIMPLEMENTED,
    **dict.fromkeys((errno.EAGAIN, errno.EINTR), Code.UNAVAILABLE),
}


def from_os_error(error: OSError, path: str) -> Status:
    """Return the status that TensorFlow's file system gives for this error at this path."""
    code = _ERRNO.get(error.errno or 0, Code.UNKNOWN)
    return Status(code, f"{path}; {error.strerror}")
