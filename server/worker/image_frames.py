"""A picture's bytes on a worker's pipe: raw frames, then the report without them.

One frame has at most 16 MiB, and a picture of 4096 × 4096 px needs three times that. In pieces it also keeps no other
call waiting for long, and is not copied through a message.
"""

import msgspec

from domains.inference.outcome import ImageReady
from server.stdio.peer import FramePeer
from server.worker import wire

_PIECE_BYTES = 1024 * 1024


def send_image(peer: FramePeer, call_id: int, image: ImageReady) -> None:
    """Send the picture; waits for the front to take it."""
    for begin in range(0, len(image.data), _PIECE_BYTES):
        peer.send_raw(call_id, image.data[begin : begin + _PIECE_BYTES])
    peer.send(call_id, wire.encode(msgspec.structs.replace(image, data=b"")))


class ImagePieces:
    """The front's end: what has come of a call's next picture."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """A raw frame came."""
        self._pieces.append(piece)

    def whole(self, image: ImageReady) -> ImageReady:
        """The report that all these pieces were for."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return msgspec.structs.replace(image, data=data)
