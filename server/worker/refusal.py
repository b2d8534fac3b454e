"""Errors of a worker as reports: an order that failed, and a device that this process cannot serve."""

import msgspec

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.outcome import Failed
from domains.progress import Receipt
from server.stdio.command import Ended, Message, Opened
from server.stdio.peer import FramePeer
from server.worker import wire


def failed(error: DeviceOpsError) -> Failed:
    """An error as the last report of an order."""
    return Failed(reason=ErrorReason(error.reason), message=error.message, facts=dict(error.facts), receipt=Receipt())


def renamed(told: Failed, here: str, everywhere: str) -> Failed:
    """Replace torch's device name in an error: `cuda:0` in a process that sees one GPU may be the server's `cuda:3`."""
    if here == everywhere:
        return told
    facts = {name: everywhere if value == here else value for name, value in told.facts.items()}
    return msgspec.structs.replace(told, message=told.message.replace(here, everywhere), facts=facts)


def refuse(peer: FramePeer, error: DeviceOpsError) -> None:
    """Answer each request for the device's description with the error."""
    methods: dict[int, str] = {}
    while not isinstance(command := peer.next(None), Ended):
        match command:
            case Opened():
                methods[command.call_id] = command.method
            case Message() if methods.get(command.call_id) == wire.DESCRIBE:
                peer.send(command.call_id, wire.encode(failed(error)))
                peer.close(command.call_id)
                return
            case _:
                pass
