"""Wraps each method of a servicer: checks the request before the call, and the size of each answer after it."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from domains import limits
from server.request_check import RequestCheck, too_large

Behaviour = Callable[..., Any]

_log = structlog.get_logger()


def guarded(method: MethodDescriptor, behaviour: Behaviour) -> Behaviour:
    """The method with these checks. Raises the errors of `RequestCheck`, and MESSAGE_TOO_LARGE for an answer."""
    check = RequestCheck(method)

    async def checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            check(request)
            yield request

    def admitted(request: Any) -> Any:
        if method.client_streaming:
            return checked(request)
        check(request)
        return request

    async def unary(request: Any, context: object) -> bytes:
        return _serialised(await behaviour(admitted(request), context), method)

    async def stream(request: Any, context: object) -> AsyncIterator[bytes]:
        async with aclosing(behaviour(admitted(request), context)) as messages:
            async for message in messages:
                yield _serialised(message, method)

    return stream if method.server_streaming else unary


def _serialised(answer: Message | bytes, method: MethodDescriptor) -> bytes:
    """The answer's bytes. Raises MESSAGE_TOO_LARGE, with the size, for an answer that clients cannot receive."""
    data = answer if isinstance(answer, bytes) else answer.SerializeToString()
    if len(data) > limits.ANSWER_BYTES:
        _log.error("an answer is too large", method=method.full_name, size_bytes=len(data))
        raise too_large(f"the answer has {len(data)} bytes; ask for less at once", len(data), limits.ANSWER_BYTES)
    return data
