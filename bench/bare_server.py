"""The peer of the transport benchmarks: a grpc.aio server that answers fixed bytes and does nothing else.

python -m bench.bare_server SIZE_BYTES      prints its port; `/bare/Echo` answers SIZE_BYTES bytes
"""

import asyncio
import sys

import grpc


async def serve(size: int) -> None:
    """Until killed."""
    answer = bytes(size)

    async def echo(request: bytes, context: object) -> bytes:
        return answer

    server = grpc.aio.server(options=[("grpc.max_send_message_length", 64 << 20)])
    handler = grpc.method_handlers_generic_handler("bare", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
