"""What a worker says that cannot serve its device: why, to whoever asks for its description. Then it ends."""

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.outcome import Failed
from domains.progress import Receipt
from server.stdio.command import Ended, Message, Opened
from server.stdio.peer import FramePeer
from server.worker import wire


def failed(error: DeviceOpsError) -> Failed:
    """An error as the last report of an order."""
    return Failed(reason=ErrorReason(error.reason), message=error.message, facts=dict(error.facts), receipt=Receipt())


def refuse(peer: FramePeer, error: DeviceOpsError) -> None:
    """Answer the first question with the error."""
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
