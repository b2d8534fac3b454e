"""Starts `echo_child.py` with a channel to it."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from server.stdio.channel import STREAM_LIMIT_BYTES, FrameChannel

ROOT = Path(__file__).resolve().parents[3]
PATH = os.pathsep.join((str(ROOT), str(ROOT / "generated" / "python")))


class Child(NamedTuple):
    """A running child."""

    process: asyncio.subprocess.Process
    channel: FrameChannel

    async def stderr(self) -> str:
        """All it wrote there; waits for its end."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@asynccontextmanager
async def started() -> AsyncGenerator[Child]:
    """A child that has said hello. It is gone at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("echo_child.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=STREAM_LIMIT_BYTES,
        env={**os.environ, "PYTHONPATH": PATH},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with FrameChannel(process.stdout, process.stdin) as channel:
            await channel.hello()
            yield Child(process, channel)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
