"""The order loop's channel over a pipe of frames. Implements `domains.processing.on_device.channel.OrderChannel`."""

import time

from domains.processing.on_device.channel import Begin, Closed, Command, Describe, SetUp, Show, StopCall
from domains.processing.workers.worker import Report
from server.stdio import command as frames
from server.stdio.ending import Code
from server.stdio.peer import FramePeer
from server.worker import wire
from server.worker.image_frames import WithBytes, send_image


class FrameOrders:
    """Converts frames to commands, and reports to frames. A call's number is the call id of its frames."""

    def __init__(self, peer: FramePeer) -> None:
        self._peer = peer
        self._methods: dict[int, str] = {}
        """By call: the method of a call without a message yet."""

    def next(self, timeout_s: float | None) -> Command | None:
        """See `OrderChannel.next`."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (frame := self._peer.next(timeout_s)) is not None:
            if (command := self._command(frame)) is not None:
                return command
            timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
        return None

    def send(self, call: int, report: Report) -> None:
        """See `OrderChannel.send`."""
        if isinstance(report, WithBytes):
            send_image(self._peer, call, report)
        else:
            self._peer.send(call, wire.encode(report))

    def try_send(self, call: int, report: Report) -> None:
        """See `OrderChannel.try_send`."""
        self._peer.try_send(call, wire.encode(report))

    def close(self, call: int) -> None:
        """See `OrderChannel.close`."""
        self._peer.close(call)

    def _command(self, frame: frames.Command) -> Command | None:
        """The command of a frame; None: more frames complete the command, or the frame needs none."""
        match frame:
            case frames.Opened():
                self._methods[frame.call_id] = frame.method
                return None
            case frames.Message() if frame.call_id in self._methods:
                return self._begin(frame.call_id, self._methods.pop(frame.call_id), frame.data)
            case frames.Message():
                return Show(call=frame.call_id, previews=wire.decode_previews(frame.data).previews)
            case frames.CallCancelled():
                return StopCall(call=frame.call_id, stop=wire.decode_stop(frame.reason))
            case frames.Ended():
                return Closed()
            case frames.HalfClosed():
                return None

    def _begin(self, call: int, method: str, data: bytes) -> Command | None:
        match method:
            case wire.DESCRIBE:
                return Describe(call=call)
            case wire.CARRY_OUT:
                return Begin(call=call, order=wire.decode_order(data))
            case wire.SETUP:
                return SetUp(call=call, setup=wire.decode_setup(data))
            case _:
                self._peer.close(call, Code.UNIMPLEMENTED, f"no method {method}")
                return None
