"""Converts a model in a separate process, so that the system frees its memory when it ends or is cancelled."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from domains.errors import FAMILY_OF, DeviceOpsError, InternalError
from domains.failure import Failure
from domains.model.conversion import ConversionOrder, Ended, Told, Written

COMMAND = (sys.executable, "-m", "domains.model.on_device.convert_child")
_NAMES = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "WINDIR", "LANG")
"""Variables of the environment that Python needs to start; secrets have other names."""
_NO_DEVICE = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_LINE_BYTES = 4 * 1024 * 1024

_line = msgspec.json.Decoder(Told | Ended).decode


async def convert_model(
    order: ConversionOrder, tell: Callable[[int, int], None], command: Sequence[str] = COMMAND
) -> Written:
    """Write the result at the order's `part`. A cancellation ends the process; what it wrote stays.

    `tell` takes bytes written and all bytes. Raises what `convert_child.convert` raises.
    """
    environment = {name: os.environ[name] for name in _NAMES if name in os.environ}
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=nowhere, env={**environment, **_NO_DEVICE}, limit=_LINE_BYTES
    )
    try:
        return await _follow(process, order, tell)
    finally:
        await asyncio.shield(_end(process))


async def _follow(
    process: asyncio.subprocess.Process, order: ConversionOrder, tell: Callable[[int, int], None]
) -> Written:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):  # it died: its end is told below
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdin.drain()
    async for line in process.stdout:
        match _said(line):
            case Told() as told:
                tell(told.written, told.total)
            case Ended(failure=Failure() as failure):
                raise _error_of(failure)
            case Ended(written=Written() as written):
                return written
            case _:
                break
    raise InternalError(f"the process that converts the model ended with status {await process.wait()}")


def _said(line: bytes) -> Told | Ended | None:
    """The message in a line of the process. None: the process died in the middle of the line."""
    try:
        return _line(line)
    except msgspec.DecodeError:
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _error_of(failure: Failure) -> DeviceOpsError:
    """The failure as an error of its family."""
    error = DeviceOpsError.__new__(FAMILY_OF[failure.reason])
    DeviceOpsError.__init__(error, failure.message, failure.reason, **failure.facts)
    return error
