"""Bytes a second of ReadBlob's chunks, from the file, against one unary answer of as many bytes from memory.

Both are counted as they come off the wire, parsed by neither side. The chunks are put together and their hash compared once.
"""

import hashlib
from collections.abc import Iterable

import grpc

from bench.bare import Echo, bare_echo, echo_stub, started
from bench.measure import interleave, ratio, result, spread
from deviceops.memory.v1 import memory_service_pb2

SIZE = 32 * 1024 * 1024
ROUNDS = 30
METHOD = "/deviceops.memory.v1.MemoryService/ReadBlob"
_LIMIT = [("grpc.max_receive_message_length", 64 << 20)]


def main() -> int:
    """Print how many times faster chunks are."""
    with started("bench.blob_server", SIZE) as (port, blob_id), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = memory_service_pb2.ReadBlobRequest(blob_id=blob_id).SerializeToString()
        read = channel.unary_stream(METHOD)
        equal = hash_of(read(request))[:32] == blob_id.removeprefix("b-")

        def chunks() -> None:
            assert sum(len(message) for message in read(request)) > SIZE

        with bare_echo(SIZE) as address, grpc.insecure_channel(address, options=_LIMIT) as peer:
            echo = echo_stub(peer)
            samples = interleave({"chunks": chunks, "unary": lambda: whole(echo)}, ROUNDS)
    return result(
        "blob_read",
        ratio(samples["unary"], samples["chunks"]),
        target=3.5,
        peer=f"one unary answer, bare grpc.aio {grpc.__version__}",
        conditions={"bytes equal": equal},
        details={
            "blob bytes": SIZE,
            "chunks GB/s": spread([SIZE / seconds / 1e9 for seconds in samples["chunks"]]),
            "unary GB/s": spread([SIZE / seconds / 1e9 for seconds in samples["unary"]]),
        },
    )


def hash_of(messages: Iterable[bytes]) -> str:
    """SHA-256 of the chunks' data."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(memory_service_pb2.ReadBlobResponse.FromString(message).data)
    return digest.hexdigest()


def whole(echo: Echo) -> None:
    """The peer's read."""
    assert len(echo(b"")) == SIZE


if __name__ == "__main__":
    raise SystemExit(main())
