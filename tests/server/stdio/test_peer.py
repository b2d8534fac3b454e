import os
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from deviceops.stdio.v1.frame_pb2 import (
    Frame,
    FrameCancel,
    FrameCredit,
    FrameHalfClose,
    FrameHello,
    FrameOpen,
    FramePing,
)
from server.stdio.command import CallCancelled, Command, Ended, HalfClosed, Message, Opened
from server.stdio.ending import EndKind
from server.stdio.frames import FrameDecoder, Raw, encode, encode_raw_header
from server.stdio.peer import FramePeer

HELLO = Frame(hello=FrameHello(protocol_version=1, initial_credit_messages=2))
OPEN = Frame(call_id=1, open=FrameOpen(method="/m"))


class Caller:
    """The other end of a peer's two pipes, frame by frame."""

    def __init__(self) -> None:
        self.peer_in, self.out_fd = os.pipe()
        self.in_fd, self.peer_out = os.pipe()
        self.peer = FramePeer(self.peer_in, self.peer_out)
        self.decoder = FrameDecoder()
        self.unread: list[Frame | Raw] = []
        assert isinstance(hello := self.read(), Frame)
        assert hello.HasField("hello")

    def write(self, *frames: Frame | Raw) -> None:
        for frame in frames:
            os.write(
                self.out_fd,
                encode(frame) if isinstance(frame, Frame) else encode_raw_header(*frame) + frame.payload,
            )

    def read(self) -> Frame | Raw | None:
        """The next frame of the peer; None at the end of its pipe."""
        while not self.unread:
            chunk = os.read(self.in_fd, 65536)
            if not chunk:
                return None
            self.unread.extend(self.decoder.feed(chunk))
        return self.unread.pop(0)

    def told(self) -> Command:
        """The next command; the test's own time limit is the only one."""
        command = self.peer.next(30)
        assert command is not None
        return command


@pytest.fixture
def caller() -> Generator[Caller]:
    caller = Caller()
    yield caller
    if caller.out_fd >= 0:
        os.close(caller.out_fd)
    while caller.read() is not None:
        pass
    os.close(caller.in_fd)


def test_commands_come_in_order(caller: Caller) -> None:
    begin = FrameOpen(method="/m")
    begin.timeout.FromMilliseconds(1500)
    begin.metadata.add(key="a", value="b")
    caller.write(HELLO, Frame(call_id=1, open=begin), Frame(call_id=1, message=b"x"), Raw(1, b"y"))
    caller.write(Frame(call_id=1, half_close=FrameHalfClose()), Frame(call_id=1, cancel=FrameCancel(reason="z")))
    assert [caller.told() for _ in range(5)] == [
        Opened(1, "/m", 1.5, (("a", "b"),)),
        Message(1, b"x"),
        Message(1, b"y", raw=True),
        HalfClosed(1),
        CallCancelled(1, "z"),
    ]
    assert caller.peer.next(0) is None


def test_nothing_is_sent_beyond_the_credit(caller: Caller) -> None:
    caller.write(HELLO, OPEN)
    caller.told()
    assert [caller.peer.try_send(1, b"p") for _ in range(3)] == [True, True, False]
    assert not caller.peer.send(1, b"p", timeout_s=0.01)
    caller.write(Frame(call_id=1, credit=FrameCredit(messages=1)))
    assert caller.peer.send(1, b"p")
    assert not caller.peer.try_send(1, b"p")


def test_a_sender_without_credit_is_freed_by_the_end_of_the_pipe(caller: Caller) -> None:
    caller.write(HELLO, Frame(call_id=1, open=FrameOpen(method="/m")))
    caller.told()
    while caller.peer.try_send(1, b"p"):
        pass
    sent: list[bool] = []
    sender = threading.Thread(target=lambda: sent.append(caller.peer.send(1, b"waits")))
    sender.start()
    os.close(caller.out_fd)
    caller.out_fd = -1
    sender.join(30)
    assert sent == [False]
    assert isinstance(end := caller.told(), Ended)
    assert end.cause.kind == EndKind.END_OF_STREAM


def test_frames_that_cross_with_a_close_are_dropped(caller: Caller) -> None:
    caller.write(HELLO, OPEN)
    caller.told()
    assert caller.peer.close(1)
    assert not caller.peer.close(1)
    assert not caller.peer.send(1, b"late")
    caller.write(Frame(call_id=1, message=b"x"), Raw(1, b"x"), Frame(call_id=1, credit=FrameCredit(messages=1)))
    caller.write(Frame(call_id=1, cancel=FrameCancel()), Frame(call_id=3, open=FrameOpen(method="/next")))
    assert caller.told() == Opened(3, "/next")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([OPEN], "not a hello"),
        ([Frame(hello=FrameHello(protocol_version=2))], "protocol 2"),
        ([HELLO, HELLO], "hello"),
        ([HELLO, Frame(call_id=2, open=FrameOpen())], "odd"),
        ([HELLO, OPEN, OPEN], "rise"),
        ([HELLO, Frame(call_id=1, message=b"x")], "never opened"),
        ([HELLO, Raw(1, b"x")], "never opened"),
        ([HELLO, OPEN, *[Frame(call_id=1, message=b"x")] * 17], "without credit"),
        ([HELLO, OPEN, Frame(call_id=1, credit=FrameCredit(messages=0))], "at least 1"),
    ],
)
def test_a_broken_rule_ends_the_pipe_with_go_away(caller: Caller, frames: list[Frame | Raw], words: str) -> None:
    caller.write(*frames)
    assert isinstance(frame := caller.read(), Frame)
    assert words in frame.go_away.reason
    assert caller.read() is None
    while not isinstance(command := caller.told(), Ended):
        pass
    assert command.cause.kind == EndKind.BAD_FRAME


def test_frames_of_many_threads_stay_whole(caller: Caller) -> None:
    caller.write(HELLO)
    calls = range(1, 17, 2)
    for call_id in calls:
        caller.write(Frame(call_id=call_id, open=FrameOpen(method="/m")))
        caller.write(Frame(call_id=call_id, credit=FrameCredit(messages=100)))
        caller.told()
    caller.write(Frame(ping=FramePing(token=9)))  # its pong tells that the credit before it has arrived
    payload = os.urandom(100_000)

    def work(call_id: int) -> None:
        for _ in range(20):
            assert caller.peer.send_raw(call_id, payload)
        caller.peer.close(call_id)

    threads = [threading.Thread(target=work, args=(call_id,)) for call_id in calls]
    for thread in threads:
        thread.start()
    got = [caller.read() for _ in range(1 + 21 * len(calls))]
    assert all(got.count(Raw(call_id, payload)) == 20 for call_id in calls)
    for thread in threads:
        thread.join()


def test_stdout_can_be_taken_once_only() -> None:
    code = (
        "import sys; from server.stdio.pipe import protect_stdout as take\n"
        "import os; take()\n"
        "try: take()\n"
        "except RuntimeError as error: print(error)\n"
        "print(sys.stdin.read() == '', 'torch' in sys.modules, 'google' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], input="frames", capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "taken already" in done.stderr
    assert "True False False" in done.stderr
