"""The peer of the transport benchmarks: a grpc.aio server that answers fixed bytes and does nothing else.

python -m bench.bare_server SIZE_BYTES      prints its port

`/bare/Echo` answers SIZE_BYTES bytes, `/bare/Message` a message that holds as many, by protobuf's own serialiser.
`/bare/Follow` stores the request in a database, as durably as a job is stored, and streams one answer of SIZE_BYTES bytes.
"""

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator

import grpc

from deviceops.memory.v1 import memory_service_pb2


async def serve(size: int, folder: str) -> None:
    """Until killed. `folder`: for the database."""
    answer = bytes(size)

    async def echo(request: bytes, context: object) -> bytes:
        return answer

    async def message(request: bytes, context: object) -> memory_service_pb2.ReadBlobResponse:
        return memory_service_pb2.ReadBlobResponse(data=answer)

    database = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE jobs (request BLOB)")

    async def follow(request: bytes, context: object) -> AsyncIterator[bytes]:
        database.execute("INSERT INTO jobs VALUES (?)", (request,))  # a transaction of its own
        yield answer

    server = grpc.aio.server(options=[("grpc.max_send_message_length", 64 << 20)])
    serialise = memory_service_pb2.ReadBlobResponse.SerializeToString
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Message": grpc.unary_unary_rpc_method_handler(message, response_serializer=serialise),
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(int(sys.argv[1]), folder))
