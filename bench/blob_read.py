"""Bytes a second of ReadBlob, from the file, against one unary message of as many bytes from memory.

Each side as a client has it: messages that the server serialises and the client parses. What of it is the wire's alone
(bytes as they come off it, parsed by neither side) is told beside. The chunks are put together and their hash compared once.
"""

import hashlib
from collections.abc import Iterable

import grpc

from bench.bare import bare_echo, echo_stub, message_stub, started
from bench.measure import interleave, ratio, result, spread
from deviceops.memory.v1 import memory_service_pb2
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub

SIZE = 32 * 1024 * 1024
ROUNDS = 30
METHOD = "/deviceops.memory.v1.MemoryService/ReadBlob"
_LIMIT = [("grpc.max_receive_message_length", 64 << 20)]


def main() -> int:
    """Print how many times faster chunks are."""
    with started("bench.blob_server", SIZE) as (port, blob_id), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = memory_service_pb2.ReadBlobRequest(blob_id=blob_id)
        read, raw, request = (
            MemoryServiceStub(channel).ReadBlob,
            channel.unary_stream(METHOD),
            asked.SerializeToString(),
        )
        equal = hash_of(read(asked))[:32] == blob_id.removeprefix("b-")

        def chunks() -> None:
            assert sum(len(message.data) for message in read(asked)) == SIZE

        def chunks_off_the_wire() -> None:
            assert sum(len(message) for message in raw(request)) > SIZE

        with bare_echo(SIZE) as address, grpc.insecure_channel(address, options=_LIMIT) as peer:
            one, echo = message_stub(peer), echo_stub(peer)

            def unary() -> None:
                assert len(one(b"").data) == SIZE

            def unary_off_the_wire() -> None:
                assert len(echo(b"")) == SIZE

            ways = (chunks, unary, chunks_off_the_wire, unary_off_the_wire)
            samples = interleave({way.__name__: way for way in ways}, ROUNDS)
    return result(
        "blob_read",
        ratio(samples["unary"], samples["chunks"]),
        target=3.5,
        peer=f"one unary message, bare grpc.aio {grpc.__version__}",
        conditions={"bytes equal": equal},
        details={
            "blob bytes": SIZE,
            "ratio off the wire": ratio(samples["unary_off_the_wire"], samples["chunks_off_the_wire"]),
            **{f"{way} GB/s": spread([SIZE / seconds / 1e9 for seconds in taken]) for way, taken in samples.items()},
        },
    )


def hash_of(messages: Iterable[memory_service_pb2.ReadBlobResponse]) -> str:
    """SHA-256 of the chunks' data."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(message.data)
    return digest.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
