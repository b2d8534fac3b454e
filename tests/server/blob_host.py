"""The blob plane of MemoryService on a gRPC server of its own: no device, no models, up in a moment.

python -m tests.server.blob_host STATE_FOLDER [ROOT …]      prints its port
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc

from deviceops.memory.v1 import memory_service_pb2
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database
from server.errors import AnsweringErrors
from server.memory.blobs import BlobMethods
from server.register import register


@asynccontextmanager
async def hosted(
    state: Path, roots: list[Path], limits: BlobLimits | None = None
) -> AsyncGenerator[tuple[str, BlobStore]]:
    """Its address and its store, until left. `state` is a folder that is there."""
    with closing(open_database(state)) as database:
        store = BlobStore(database, state / "blobs", roots=BlobRoots(roots), limits=limits)
        store.sweep(lambda owner: True)
        server = grpc.aio.server()
        register(
            AnsweringErrors(server), memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"], BlobMethods(store)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}", store
        finally:
            await server.stop(None)


async def _serve(state: Path, roots: list[Path]) -> None:
    async with hosted(state, roots) as (address, _):
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    asyncio.run(_serve(Path(sys.argv[1]), [Path(root) for root in sys.argv[2:]]))
