"""Starts `echo_child.py` with a channel to it."""

import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NamedTuple

from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess

ROOT = Path(__file__).resolve().parents[3]
PATH = os.pathsep.join((str(ROOT), str(ROOT / "generated" / "python")))


class Child(NamedTuple):
    """A running child."""

    process: ChildProcess
    channel: FrameChannel
    errors: IO[bytes]

    async def stderr(self) -> str:
        """All it wrote there; waits for its end."""
        await self.process.wait()
        self.errors.seek(0)
        return self.errors.read().decode()


@asynccontextmanager
async def started() -> AsyncGenerator[Child]:
    """A child that has said hello. It is gone at the end of the block."""
    command = (sys.executable, str(Path(__file__).with_name("echo_child.py")))
    with tempfile.TemporaryFile() as errors:
        process = await ChildProcess.start(*command, env={**os.environ, "PYTHONPATH": PATH}, stderr=errors.fileno())
        try:
            async with FrameChannel(process) as channel:
                await channel.hello()
                yield Child(process, channel, errors)
        finally:
            process.kill()
            await process.wait()
            process.close()
