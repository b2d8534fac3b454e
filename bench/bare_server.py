"""The peer of the transport benchmarks: a grpc.aio server that answers fixed bytes and does nothing else.

python -m bench.bare_server SIZE_BYTES      prints its port

`/bare/Echo` answers SIZE_BYTES bytes, `/bare/Message` a message that holds as many, by protobuf's own serialiser.
"""

import asyncio
import sys

import grpc

from deviceops.memory.v1 import memory_service_pb2


async def serve(size: int) -> None:
    """Until killed."""
    answer = bytes(size)

    async def echo(request: bytes, context: object) -> bytes:
        return answer

    async def message(request: bytes, context: object) -> memory_service_pb2.ReadBlobResponse:
        return memory_service_pb2.ReadBlobResponse(data=answer)

    server = grpc.aio.server(options=[("grpc.max_send_message_length", 64 << 20)])
    serialise = memory_service_pb2.ReadBlobResponse.SerializeToString
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Message": grpc.unary_unary_rpc_method_handler(message, response_serializer=serialise),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
