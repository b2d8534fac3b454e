"""Errors of the system that any code can raise: no memory, no thread, no descriptor, a disk that is full or fails."""

import errno
import os
import re

from domains.descriptors import none_left
from domains.errors import DeviceOpsError, ErrorReason, InternalError, ResourceExhausted

NO_FRAME = "error return without exception set"
"""What Python says where it gets no memory to call a function."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust name an error of the system."""
_FAILED = (errno.EIO, errno.ESTALE, errno.EROFS)


def system_error(error: BaseException) -> DeviceOpsError | None:
    """The error that a caller receives. None: the system is not at fault."""
    if isinstance(error, MemoryError) or (isinstance(error, SystemError) and str(error) == NO_FRAME):
        return no_memory()
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return _no_process()
    return _of_number(error.errno or 0, error) if isinstance(error, OSError) else None


def check_left(error: OSError) -> None:
    """Raise QUOTA_EXCEEDED or HOST_OUT_OF_MEMORY if no file descriptor or memory is left: the file to open is not at
    fault."""
    if error.errno == errno.ENOMEM:
        raise no_memory() from error
    if known := none_left(error):
        raise known from error


def wrapped_system_error(error: BaseException) -> DeviceOpsError | None:
    """As `system_error`, of a library's error: it may have been raised from one of the system, or name its number only."""
    one: BaseException | None = error
    while one is not None:
        named = _RUST.search(str(one))
        if known := system_error(one) or (named and _of_number(int(named[1]), OSError(int(named[1]), ""))):
            return known
        one = one.__cause__ or one.__context__
    return None


def _of_number(number: int, error: OSError) -> DeviceOpsError | None:
    if number == errno.ENOMEM:
        return no_memory()
    if number == errno.EAGAIN:
        return _no_process()
    if number in _FULL:
        message = f"a disk of this machine is full ({os.strerror(number)}); free some space, then retry"
        return ResourceExhausted(message, ErrorReason.STORAGE_FULL)
    if number in _FAILED:
        message = (
            f"a disk of this machine returned an error ({os.strerror(number)}); have its operator look, then retry"
        )
        return InternalError(message, ErrorReason.STORAGE_FAILED, problem=os.strerror(number))
    return none_left(error)


def _no_process() -> ResourceExhausted:
    message = (
        "the system starts no more processes or threads; retry, or raise its limit (ulimit -u, TasksMax, pids.max)"
    )
    return ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED)


def no_memory() -> ResourceExhausted:
    """The error of a system that gives this process no more memory."""
    message = "the system gives the server no more memory; retry, end other programs, or raise its limit"
    return ResourceExhausted(message, ErrorReason.HOST_OUT_OF_MEMORY)
