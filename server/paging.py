"""Pages of a list: their size, and the opaque token for the place where the next page begins."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from domains import limits
from domains.errors import InvalidRequest, Violation

DEFAULT_SIZE = 50
MAX_SIZE = 1000
_TOKEN_BYTES = 8


def size_of(asked: int) -> int:
    """The size of a page: 50 if the caller asks for 0, and at most 1000."""
    if not 0 <= asked <= MAX_SIZE:
        message = f"{asked} is not within 0..{MAX_SIZE}"
        raise InvalidRequest([Violation(field="page_size", message=message, allowed=f"0..{MAX_SIZE}")])
    return asked or DEFAULT_SIZE


def token_of(place: int | None) -> str:
    """The token for a place in the list; empty: no further page."""
    return "" if place is None else base64.urlsafe_b64encode(place.to_bytes(_TOKEN_BYTES, "big")).decode()


def place_of(token: str) -> int | None:
    """The place that a token names; None: the beginning."""
    if not token:
        return None
    try:
        place = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        place = b""
    if len(place) != _TOKEN_BYTES or place[0] & 0x80:
        message = "is no token that this server gave; leave it empty for the first page"
        raise InvalidRequest([Violation(field="page_token", message=message)])
    return int.from_bytes(place, "big")


Item = TypeVar("Item")
Shown = TypeVar("Shown", bound=Message)


def fill(
    read: Callable[[int], tuple[Sequence[Item], int | None]], size: int, show: Callable[[Item], Shown]
) -> tuple[list[Shown], str]:
    """The messages of one page and the token of the next: at most `size` that fit into PAGE_BYTES, and at least one.

    `read` returns up to a number of items, and the place where the next page begins (None: the end).
    """
    items, following = read(size)
    page, room = list[Shown](), limits.PAGE_BYTES
    for item in items:
        message = show(item)
        room -= message.ByteSize() + _ENTRY_BYTES
        if page and room < 0:
            _, following = read(len(page))
            break
        page.append(message)
    return page, token_of(following)


_ENTRY_BYTES = 6
"""Most bytes of the tag and the length of a repeated message."""
