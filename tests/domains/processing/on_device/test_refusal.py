"""A worker that sees one GPU alone speaks of it by the name that everybody uses, and says why it serves no device."""

import errno
import os
from collections.abc import Callable

import pytest

from domains.device.on_device.torch_device import cannot_use
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.inference.outcome import RunFailed
from domains.processing.on_device.channel import Closed, Command, Describe
from domains.processing.on_device.refusal import begun, renamed
from domains.progress import Receipt


class Asked:
    """A channel whose server asks for the device's description. Implements `OrderChannel`."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.closed: list[int] = []

    def next(self, timeout_s: float | None) -> Command | None:
        return Closed() if self.closed else Describe(call=7)

    def send(self, call: int, report: object) -> None:
        self.sent.append(report)

    def try_send(self, call: int, report: object) -> None:
        raise AssertionError("an answer is not dropped")

    def close(self, call: int) -> None:
        self.closed.append(call)


def failing(error: Exception) -> Callable[[], None]:
    def begin() -> None:
        raise error

    return begin


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InternalError("no driver", ErrorReason.DRIVER_ERROR), ErrorReason.DRIVER_ERROR),
        (RuntimeError("can't start new thread"), ErrorReason.QUOTA_EXCEEDED),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ErrorReason.QUOTA_EXCEEDED),
        (OSError(errno.EIO, os.strerror(errno.EIO)), ErrorReason.STORAGE_FAILED),
        (MemoryError(), ErrorReason.HOST_OUT_OF_MEMORY),
    ],
)
def test_a_worker_that_cannot_begin_says_why(error: Exception, reason: ErrorReason) -> None:
    channel = Asked()
    assert begun(channel, failing(error)) is None
    (told,) = channel.sent
    assert isinstance(told, RunFailed)
    assert (told.reason, channel.closed) == (reason, [7])


def test_a_fault_of_the_worker_is_raised() -> None:
    channel = Asked()
    with pytest.raises(ZeroDivisionError):
        begun(channel, failing(ZeroDivisionError()))
    assert not channel.sent


def test_a_device_is_not_blamed_for_what_the_system_refuses() -> None:
    error: DeviceOpsError = cannot_use("cpu", RuntimeError("can't start new thread"))
    assert error.reason is ErrorReason.QUOTA_EXCEEDED
    assert cannot_use("cpu", RuntimeError("no kernel image")).reason is ErrorReason.DRIVER_ERROR


def test_an_error_names_the_device_as_the_server_does() -> None:
    told = RunFailed(
        reason=ErrorReason.DRIVER_ERROR,
        message="the driver of cuda:0 failed",
        facts={"device": "cuda:0", "doing": "decoding"},
        receipt=Receipt(),
    )
    here = renamed(told, "cuda:0", "cuda:3")
    assert here.message == "the driver of cuda:3 failed"
    assert here.facts == {"device": "cuda:3", "doing": "decoding"}
    assert renamed(told, "cuda:0", "cuda:0") is told
