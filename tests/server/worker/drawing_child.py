"""A worker without torch: answers every order with pictures of as many bytes as its job id says: `3,5`."""

import hashlib

from domains.inference.outcome import ImageReady, RunFinished
from domains.progress import Receipt
from server.stdio.command import Ended, Message
from server.stdio.peer import FramePeer
from server.stdio.pipe import protect_stdout
from server.worker import wire
from server.worker.image_frames import send_image


def picture(size: int) -> bytes:
    """Bytes of which no part is like another."""
    return b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(-(-size // 32)))[:size]


def main() -> None:
    """Until the pipe ends."""
    peer = FramePeer(*protect_stdout())
    while not isinstance(command := peer.next(), Ended):
        if isinstance(command, Message):
            call_id, sizes = command.call_id, wire.decode_order(command.data).order_id.split(",")
            for index, size in enumerate(sizes):
                data = picture(int(size))
                send_image(
                    peer,
                    call_id,
                    ImageReady(index=index, seed=1, media_type="image/png", width_px=1, height_px=1, data=data),
                )
            peer.send(call_id, wire.encode(RunFinished(receipt=Receipt())))
            peer.close(call_id)


if __name__ == "__main__":
    main()
