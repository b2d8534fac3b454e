"""Errors of a worker as reports: an order that failed, and a device that this process cannot serve."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.outcome import RunFailed
from domains.processing.on_device.channel import Closed, Describe, OrderChannel
from domains.progress import Receipt
from domains.system_errors import wrapped_system_error

_Loop = TypeVar("_Loop")


def failed(error: DeviceOpsError) -> RunFailed:
    """An error as the last report of an order."""
    return RunFailed(
        reason=ErrorReason(error.reason), message=error.message, facts=dict(error.facts), receipt=Receipt()
    )


def renamed(failure: RunFailed, here: str, everywhere: str) -> RunFailed:
    """Replace torch's device name in an error: `cuda:0` in a process that sees one GPU may be the server's `cuda:3`."""
    if here == everywhere:
        return failure
    facts = {name: everywhere if value == here else value for name, value in failure.facts.items()}
    return msgspec.structs.replace(failure, message=failure.message.replace(here, everywhere), facts=facts)


def begun(channel: OrderChannel, begin: Callable[[], _Loop]) -> _Loop | None:
    """What `begin` makes. None: the process cannot serve the device, which is answered where the device or the system is at
    fault; another error is raised."""
    try:
        return begin()
    except Exception as error:
        known = error if isinstance(error, DeviceOpsError) else wrapped_system_error(error)
        if known is None:
            raise
    refuse(channel, known)
    return None


def refuse(channel: OrderChannel, error: DeviceOpsError) -> None:
    """Answer the request for the device's description with the error."""
    while not isinstance(command := channel.next(None), Closed):
        if isinstance(command, Describe):
            channel.send(command.call, failed(error))
            channel.close(command.call)
            return
