"""The child of the pipe tests: a script, so that its pipe is real. It serves these methods, in any service:

/echo      sends back each message as it came, raw or not; closes after the half-close
/burst     sends as many 1 KiB messages as its message says, waiting for credit, then closes
/newest    sends as many as there is credit for, and tells in its close how many of its message's number it dropped
/picture   sends one raw payload of as many bytes as its message says
/until     stays open until cancelled, then tells the reason and closes CANCELLED
/noise     prints and writes to fd 1 in every way it can, then echoes
/garbage   writes bytes into the pipe that are no frame
/compute   keeps the serving thread busy, without reading its inbox, until the file named in the message exists
/refuse    closes with a status that has every part
/again     sends back a message of the contract as Python has read it; its type comes first, as `module:Message` and a NUL
"""

import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path

from server.stdio.pipe import protect_stdout

IN_FD, OUT_FD = protect_stdout()

from server.stdio.command import CallCancelled, Ended, HalfClosed, Message, Opened  # noqa: E402 - the order is what is tested
from server.stdio.ending import Code  # noqa: E402
from server.stdio.peer import FramePeer  # noqa: E402


class Server:
    """One method a call, by its first message."""

    def __init__(self) -> None:
        self.peer = FramePeer(IN_FD, OUT_FD)
        self.methods: dict[int, str] = {}

    def serve(self) -> None:
        """Until the pipe ends."""
        while True:
            match self.peer.next():
                case Opened(call_id, method):
                    self.methods[call_id] = "/" + method.rpartition("/")[2]
                case Message() as message:
                    self.answer(message)
                case HalfClosed(call_id) if self.methods[call_id] in ("/echo", "/noise"):
                    self.peer.close(call_id)
                case CallCancelled(call_id, reason):
                    self.peer.send(call_id, reason.encode())
                    self.peer.close(call_id, Code.CANCELLED, reason)
                case Ended(cause):
                    print(f"ended: {cause.kind}", file=sys.stderr, flush=True)
                    return
                case _:
                    pass

    def answer(self, message: Message) -> None:
        """Do what the call's method says."""
        method, call_id = self.methods[message.call_id], message.call_id
        if method in ("/echo", "/noise"):
            if method == "/noise":
                make_noise()
            (self.peer.send_raw if message.raw else self.peer.send)(call_id, message.data)
        elif method == "/again":
            self.peer.send(call_id, written_again(message.data))
            self.peer.close(call_id)
        elif method == "/burst":
            for number in range(int(message.data)):
                self.peer.send(call_id, number.to_bytes(1024, "big"))
            self.peer.close(call_id)
        elif method == "/newest":
            dropped = sum(not self.peer.try_send(call_id, b"preview") for _ in range(int(message.data)))
            self.peer.close(call_id, message=str(dropped))
        elif method == "/picture":
            self.peer.send_raw(call_id, bytes(int(message.data)))
            self.peer.close(call_id)
        elif method == "/garbage":
            os.write(OUT_FD, b"Loading weights: 100%\n")
        elif method == "/compute":
            while not Path(message.data.decode()).exists():
                sum(range(10_000))
            self.peer.close(call_id)
        elif method == "/refuse":
            self.peer.close(call_id, Code.NOT_FOUND, "no such thing", details=b"\x08\x05", trailers=[("a", "b")])


def written_again(request: bytes) -> bytes:
    """The message that follows its type, from the values that Python has seen in it."""
    from google.protobuf import json_format

    name, _, data = request.partition(b"\0")
    module, _, type_name = name.decode().partition(":")
    kind = getattr(importlib.import_module(module), type_name)
    return json_format.Parse(json_format.MessageToJson(kind.FromString(data)), kind()).SerializeToString()


def make_noise() -> None:
    """All the ways in which libraries write to stdout."""
    print("a print", flush=True)
    os.write(1, b"a native library\n")
    sys.__stdout__.write("the original object\n") if sys.__stdout__ else None
    libc = ctypes.CDLL(None)  # its own buffer of stdout
    libc.puts(b"a C library")
    libc.fflush(None)
    subprocess.run(["echo", "a child of the child"], check=True)


if __name__ == "__main__":
    Server().serve()
