"""Heartbeats: a stream that follows something sends a message at least once a period.

`register` wraps every server stream that is not in `FINITE`, so a new watch has heartbeats without a line of its own. A
heartbeat is a message without content: an empty response, or the result of the stream's own `beat` (the reader's position).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Generic, TypeVar

from google.protobuf.descriptor import MethodDescriptor

from server.leaving import Streams, gone

M = TypeVar("M")

HEARTBEAT_S = 10.0
"""The longest silence that the contract allows."""
_FIRST_S = 2.0
"""Longest wait for a stream's first message; a call to a driver may take as long, see `domains.device.driver_thread`."""
FINITE = frozenset({"deviceops.memory.v1.MemoryService.ReadBlob"})
"""Streams without heartbeats. All bytes of a blob exist when the read begins, so only the transport or a slow reader can
delay them, and a heartbeat would be an empty chunk among the bytes."""


class Followed(Generic[M]):
    """A stream whose heartbeats tell the reader's position."""

    def __init__(self, messages: AsyncGenerator[M], beat: Callable[[], M]) -> None:
        """`beat`: the heartbeat of this moment."""
        self.messages = messages
        self.beat = beat


def follows(method: MethodDescriptor) -> bool:
    """Whether the method's stream has heartbeats."""
    return bool(method.server_streaming) and method.full_name not in FINITE


async def with_heartbeats(
    messages: AsyncIterator[M], beat: Callable[[], M], every_s: float = HEARTBEAT_S, streams: Streams | None = None
) -> AsyncGenerator[M]:
    """The messages, and a heartbeat after `every_s` without one; the first message comes within 2 s.

    A slow reader's time does not count: the next message is requested when the last one was taken. Raises DRAINING when
    `streams` are cut.
    """
    wait_s = min(_FIRST_S, every_s)
    coming: asyncio.Future[M | _End] | None = None
    with (streams or Streams()).open() as cut:
        try:
            while True:
                # A task, since a timeout round `anext` itself would end the generator.
                coming = coming or asyncio.ensure_future(anext(messages, _END))
                done, _ = await asyncio.wait({coming, cut}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                wait_s = every_s
                if coming not in done:
                    if done:
                        raise gone()
                    yield beat()
                    continue
                message, coming = coming.result(), None
                if isinstance(message, _End):
                    return
                yield message
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            if isinstance(messages, AsyncGenerator):
                await messages.aclose()


class _End:
    """The type of `_END`."""


_END = _End()
"""The end of the messages."""
