"""Frames of a worker's pipe as commands of its order loop."""

from collections import deque
from typing import Any

from domains.device.simulated.fault_counts import SimSetup
from domains.device.simulated.script import SimDevice
from domains.inference.generation import Previews
from domains.processing.on_device.channel import Begin, Closed, Command, Describe, SetUp, Show, StopCall
from domains.processing.workers.worker import MeasureOrder, PreviewOrder
from domains.stop import Stop, StopKind
from server.stdio import command as frames
from server.stdio.ending import Code, EndKind, PipeEnd
from server.worker import wire
from server.worker.frame_orders import FrameOrders

ENDED = frames.Ended(PipeEnd(kind=EndKind.END_OF_STREAM, detail=""))


class PlayedPeer:
    """A pipe with all frames in it already."""

    def __init__(self, *commands: frames.Command) -> None:
        self._commands = deque(commands)
        self.closed: list[tuple[int, Code]] = []

    def next(self, timeout_s: float | None) -> frames.Command | None:
        return self._commands.popleft() if self._commands else None

    def close(self, call_id: int, code: Code = Code.OK, message: str = "") -> bool:
        self.closed.append((call_id, code))
        return True


def commands_of(*played: frames.Command) -> tuple[list[Command], PlayedPeer]:
    peer: Any = PlayedPeer(*played)
    orders, found = FrameOrders(peer), list[Command]()
    while (command := orders.next(0)) is not None:
        found.append(command)
    return found, peer


def test_the_first_message_of_a_call_begins_what_its_method_says() -> None:
    order, setup = MeasureOrder(order_id="measure"), SimSetup(device=SimDevice(id="sim-0"), armed=())
    found, _ = commands_of(
        frames.Opened(1, wire.SETUP),
        frames.Opened(2, wire.CARRY_OUT),
        frames.Message(2, wire.encode(order)),
        frames.Message(1, wire.encode(setup)),
        frames.HalfClosed(1),
        frames.Opened(3, wire.DESCRIBE),
        frames.Message(3, b""),
        ENDED,
    )
    assert found == [Begin(call=2, order=order), SetUp(call=1, setup=setup), Describe(call=3), Closed()]


def test_further_messages_change_the_previews_and_a_cancel_carries_its_stop() -> None:
    previews, stop = Previews(every_steps=2, max_edge_px=64), Stop(kind=StopKind.PREEMPT, cause="a more urgent job")
    found, _ = commands_of(
        frames.Message(1, wire.encode(PreviewOrder(previews=previews))),
        frames.CallCancelled(1, wire.encode_stop(stop)),
        frames.CallCancelled(2, "left"),
    )
    assert found == [
        Show(call=1, previews=previews),
        StopCall(call=1, stop=stop),
        StopCall(call=2, stop=Stop(kind=StopKind.CANCEL, cause="left")),
    ]


def test_an_unknown_method_is_refused_and_the_next_command_is_found() -> None:
    found, peer = commands_of(frames.Opened(1, "/unknown"), frames.Message(1, b""), ENDED)
    assert found == [Closed()]
    assert peer.closed == [(1, Code.UNIMPLEMENTED)]
