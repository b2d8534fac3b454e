"""Answers a request whose bytes are not a message of the method's type with INVALID_FIELD.

If a deserialiser raises, grpc.aio answers UNKNOWN with the exception's text and prints a traceback. So deserialisers here
return an `Unreadable` instead, and `AnsweringErrors` refuses it.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from domains.errors import InvalidRequest, Violation

Deserialiser = Callable[[bytes], Any]


class Unreadable(msgspec.Struct, frozen=True):
    """A request that could not be decoded."""

    size_bytes: int


def tolerant(deserialise: Deserialiser | None) -> Deserialiser | None:
    """The deserialiser, which returns an `Unreadable` instead of raising."""
    if deserialise is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialise(data)
        except (DecodeError, ValueError):  # ValueError: its pure-Python reader
            return Unreadable(len(data))

    return read


def readable(request: Any) -> Any:
    """The request. Raises `InvalidRequest` for an `Unreadable`."""
    if isinstance(request, Unreadable):
        text = f"the {request.size_bytes} bytes of the request are no message of the method's type; send that type"
        raise InvalidRequest([Violation(field="", message=text)], size_bytes=request.size_bytes)
    return request


async def readable_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The requests, up to the first `Unreadable`: see `readable`."""
    async for request in requests:
        yield readable(request)
