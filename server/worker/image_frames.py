"""Sends the bytes of a picture or checkpoint over a worker's pipe: raw frames, then the report without the bytes.

A frame has at most 16 MiB, and a picture of 4096 × 4096 px needs three times that. Pieces also delay other calls less than
a whole picture, and are not copied into a message.
"""

import msgspec

from domains.inference.outcome import CheckpointReady, ImageReady, LatentsReady
from server.stdio.peer import FramePeer
from server.worker import wire

WithBytes = ImageReady | LatentsReady | CheckpointReady
"""Reports whose bytes come in raw frames before them."""

_PIECE_BYTES = 1024 * 1024


def send_image(peer: FramePeer, call_id: int, image: WithBytes) -> None:
    """Send the report; blocks until the server has taken it."""
    for begin in range(0, len(image.data), _PIECE_BYTES):
        peer.send_raw(call_id, image.data[begin : begin + _PIECE_BYTES])
    peer.send(call_id, wire.encode(msgspec.structs.replace(image, data=b"")))


class ImagePieces:
    """Collects the pieces of a call's next picture or checkpoint, at the server's end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add a raw frame."""
        self._pieces.append(piece)

    def whole(self, image: WithBytes) -> WithBytes:
        """The report with the bytes of the collected pieces."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return msgspec.structs.replace(image, data=data)
