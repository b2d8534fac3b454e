"""Decodes untrusted pictures in a separate process, so that a crash or an exploit of a decoder affects no other work.

The process lives for many pictures, one at a time; after a death the next picture gets a new one. The frames are in
`decoder_frames`, the process's own side in `decoder_child`.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from domains.errors import InternalError, InvalidRequest, Violation
from domains.imaging.bad_image import bad_image
from domains.imaging.decoder_frames import (
    ANSWER,
    ASK,
    PICTURE,
    READY,
    REFUSED,
    REFUSED_BYTES,
    TEXTS,
    TEXTS_BYTES,
    Refused,
)

COMMAND = (sys.executable, "-m", "domains.imaging.decoder_child")
ANSWER_S = 10.0
"""Longest wait for one picture. A decoder that computes for longer than `decoder_child.COMPUTE_S` is ended earlier."""
_START_S = 60.0
_STARTS = 2
"""A process that dies before it is ready, where the system is short of memory, is started once more."""
_NAMES = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "WINDIR", "LANG")
"""Variables of the environment that Python needs to start; secrets have other names."""


Answer = TypeVar("Answer")


class PictureDecoder:
    """Starts its process with the first picture. One event loop."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self.deaths = 0
        """Number of pictures whose decoder died or was killed."""

    async def decode(
        self, data: bytes, *, max_pixels: int, channels: Literal[1, 3, 4] = 3, field: str = "image"
    ) -> NDArray[np.uint8]:
        """The pixels, as `domains.imaging.decode` returns them. `field` is the picture's path in the request.

        Raises InvalidRequest(BAD_IMAGE) for a file that `decode` refuses, that ends its decoder, or that takes too long.
        """
        return await self._asked(data, lambda process: _exchange(process, data, max_pixels, channels), field)

    async def texts(self, data: bytes, *, field: str = "image") -> dict[str, str]:
        """The texts that say how a picture was made, as `domains.imaging.texts` reads them. Raises as `decode`."""
        return await self._asked(data, lambda process: _texts(process, data), field)

    async def _asked(
        self, data: bytes, exchange: Callable[[asyncio.subprocess.Process], Awaitable[Answer]], field: str
    ) -> Answer:
        async with self._turn:
            process = await self._running()
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await exchange(process)
            except InvalidRequest as error:
                violations = [Violation(field=field, message=one.message) for one in error.violations]
                raise InvalidRequest(violations, error.reason, **error.facts) from None
            except (OSError, EOFError, TimeoutError, msgspec.DecodeError):
                self.deaths += 1
                await self._end()
                message = "the image ends its decoder, or takes too long to decode"
                raise InvalidRequest([Violation(field=field, message=message)], bad_image("").reason) from None
            except BaseException:
                # Cancelled in the middle of an answer.
                await asyncio.shield(self._end())
                raise

    async def close(self) -> None:
        """End the process. Another picture starts it again."""
        async with self._turn:
            await self._end()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        for _ in range(_STARTS):
            if (process := await self._started()) is not None:
                return process
        raise _not_started()

    async def _started(self) -> asyncio.subprocess.Process | None:
        """A new process that is ready. None: it has ended. Raises `OSError` if the system refuses it, InternalError if it
        hangs."""
        environment = {name: os.environ[name] for name in _NAMES if name in os.environ}
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=nowhere, env={**environment, "OPENBLAS_NUM_THREADS": "1"}
        )
        try:
            async with asyncio.timeout(_START_S):
                assert process.stdout is not None
                if await process.stdout.readexactly(len(READY)) == READY:
                    return process
        except TimeoutError:
            await self._end()
            raise _not_started() from None
        except (OSError, EOFError):
            pass
        except BaseException:
            await asyncio.shield(self._end())
            raise
        await self._end()
        return None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _not_started() -> InternalError:
    return InternalError("the process that decodes pictures did not start")


async def _exchange(
    process: asyncio.subprocess.Process, data: bytes, max_pixels: int, channels: int
) -> NDArray[np.uint8]:
    """Send a picture to the process and return its pixels. The answer is checked: the process may be compromised."""
    stdout, kind, height, width = await _send(process, data, max_pixels, channels)
    if kind == PICTURE and 0 < height * width <= max_pixels:
        pixels = bytearray(await stdout.readexactly(height * width * channels))
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.frombuffer(pixels, np.uint8).reshape(shape)
    raise await _refused(stdout, kind, height)


async def _texts(process: asyncio.subprocess.Process, data: bytes) -> dict[str, str]:
    """Send a file to the process and return its texts. The answer is checked, as in `_exchange`."""
    stdout, kind, size, _ = await _send(process, data, 0, 0)
    if kind == TEXTS and 0 < size <= TEXTS_BYTES:
        return msgspec.msgpack.decode(await stdout.readexactly(size), type=dict[str, str])
    raise await _refused(stdout, kind, size)


async def _send(
    process: asyncio.subprocess.Process, data: bytes, max_pixels: int, channels: int
) -> tuple[asyncio.StreamReader, int, int, int]:
    """Send the file to the process; return its stdout, and kind, height and width from the head of its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(ASK.pack(max_pixels, channels, len(data)))
    process.stdin.write(data)
    await process.stdin.drain()
    kind, first, second = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
    return process.stdout, kind, first, second


async def _refused(stdout: asyncio.StreamReader, kind: int, size: int) -> InvalidRequest:
    """Read the refusal that follows the head. Raises EOFError if the answer is not a refusal."""
    if kind != REFUSED or not 0 < size <= REFUSED_BYTES:
        raise EOFError
    refused = msgspec.msgpack.decode(await stdout.readexactly(size), type=Refused)
    return bad_image(refused.problem, **refused.facts)
