"""Bytes a second of ReadBlob's chunks, from the file, against one unary answer of as many bytes from memory."""

import grpc

from bench.bare import Echo, bare_echo, echo_stub
from bench.measure import interleave, ratio, result, spread
from deviceops.inference.v1 import generation_pb2, inference_service_pb2
from deviceops.memory.v1 import memory_service_pb2
from tests.server.harness import RunningServer, running_server

ROUNDS = 30
READS = 5
"""Reads a round."""


def large_blob(server: RunningServer) -> tuple[str, int]:
    """A picture that does not compress: one step away from noise, 1024x1024."""
    sampling = generation_pb2.Sampling(steps=1, guidance_scale=1.0, scheduler="euler", seed=1)
    generation = generation_pb2.Generation(prompt="", width_px=1024, height_px=1024, sampling=sampling)
    last = list(server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)))[-1]
    file = last.result.images[0].file
    return file.blob_id, file.size_bytes


def main() -> int:
    """Print how many times faster chunks are."""
    with running_server("--device", "cpu") as server:
        name, size = large_blob(server)
        request = memory_service_pb2.ReadBlobRequest(blob_id=name)

        def chunks() -> None:
            for _ in range(READS):
                got = sum(len(chunk.data) for chunk in server.memory.ReadBlob(request))
                assert got == size

        with bare_echo(size) as address:
            limit = [("grpc.max_receive_message_length", 64 << 20)]
            with grpc.insecure_channel(address, options=limit) as channel:
                echo = echo_stub(channel)
                samples = interleave({"chunks": chunks, "unary": lambda: whole(echo, size)}, ROUNDS)
    return result(
        "blob_read",
        ratio(samples["unary"], samples["chunks"]),
        target=3.5,
        peer=f"one unary answer, bare grpc.aio {grpc.__version__}",
        details={
            "blob bytes": size,
            "chunks GB/s": spread([READS * size / seconds / 1e9 for seconds in samples["chunks"]]),
            "unary GB/s": spread([READS * size / seconds / 1e9 for seconds in samples["unary"]]),
        },
    )


def whole(echo: Echo, size: int) -> None:
    """The peer's reads."""
    for _ in range(READS):
        assert len(echo(b"")) == size


if __name__ == "__main__":
    raise SystemExit(main())
