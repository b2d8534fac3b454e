"""Hands out one picture on demand in one of three ways, for `bench/stdio_picture.py`.

python -m bench.picture_server stdio     frames over stdin and stdout, and gRPC over TCP; the method `PORT` answers the port
python -m bench.picture_server lines     base64 in lines of JSON: a line for each line that it reads
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

SIZE = 3 * 1024 * 1024
"""Bytes of the picture; a PNG of 1024 x 1024 pixels has as many at most."""
SERVICE = "bench.Pictures"


def picture() -> bytes:
    """Its bytes: no two runs of it are equal, so that nothing compresses."""
    import random

    return random.Random(1).randbytes(SIZE)


def lines() -> None:
    """Until stdin ends."""
    data = picture()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps({"image": base64.b64encode(data).decode()}) + "\n")
        sys.stdout.flush()


async def frames(fds: tuple[int, int]) -> None:
    """Until the pipe ends."""
    import grpc

    from server.errors import AnsweringErrors
    from server.stdio.hello import own_hello
    from server.stdio.transport import StdioTransport

    data = picture()
    ended = asyncio.Event()
    server = grpc.aio.server(options=[("grpc.max_send_message_length", 16 << 20)])
    port = server.add_insecure_port("127.0.0.1:0")

    async def image(request: bytes, context: Any) -> bytes:
        return data

    async def told(request: bytes, context: Any) -> bytes:
        return str(port).encode()

    methods: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {"Get": image, "PORT": told}
    handler = grpc.method_handlers_generic_handler(
        SERVICE, {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    )
    stdio = StdioTransport(fds, 16 << 20, ended)
    for host in (server, stdio):
        AnsweringErrors(host).add_generic_rpc_handlers((handler,))
    await server.start()
    stdio.start(own_hello())
    await ended.wait()
    await server.stop(0)


if __name__ == "__main__":
    if sys.argv[1] == "lines":
        lines()
    else:
        from server.stdio.pipe import protect_stdout

        asyncio.run(frames(protect_stdout()))
