"""The real methods of blobs over a real blob store that holds one blob of random bytes; nothing else, so it starts at once.

python -m bench.blob_server SIZE_BYTES      prints its port and the blob's id
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import grpc

from deviceops.memory.v1 import memory_service_pb2
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database
from server.errors import AnsweringErrors
from server.memory.blobs import BlobMethods
from server.register import register


async def serve(size: int) -> None:
    """Until killed."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(open_database(Path(folder)), Path(folder) / "blobs")
        blob = await store.keep(os.urandom(size), "application/octet-stream", "bench")
        server = grpc.aio.server()
        service = memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"]
        register(AnsweringErrors(server), service, BlobMethods(store))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, blob.id, flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
