"""Metadata of calls: gRPC has bytes under keys that end in `-bin`, frames have base64."""

import base64
import binascii
from collections.abc import Iterable

Entry = tuple[str, str | bytes]
DETAILS_KEY = "grpc-status-details-bin"
"""The trailer in which gRPC has the serialised `google.rpc.Status`; frames have a field for it."""


def to_frame(entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """The entries as frames have them. Raises `ValueError` for bytes under a key that does not end in `-bin`."""
    return tuple((key, _text(key, value)) for key, value in entries)


def from_frame(entries: Iterable[tuple[str, str]]) -> tuple[Entry, ...]:
    """The entries as gRPC has them. Raises `ValueError` for text that is not base64 under a key that ends in `-bin`."""
    return tuple((key, _bytes(key, value) if key.endswith("-bin") else value) for key, value in entries)


def _text(key: str, value: str | bytes) -> str:
    if key.endswith("-bin"):
        return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
    if isinstance(value, bytes):
        raise ValueError(f"metadata {key!r} is bytes; only keys that end in -bin carry bytes")
    return value


def _bytes(key: str, value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"metadata {key!r} is not base64") from error
