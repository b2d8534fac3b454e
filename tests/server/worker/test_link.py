"""The front's end of a worker, over a real pipe."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from domains.inference.outcome import ImageReady, RunFinished
from domains.processing.workers.worker import MeasureOrder
from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess
from server.stdio.frames import MAX_BODY_BYTES
from server.worker.link import WorkerLink
from tests.server.stdio.child import PATH
from tests.server.worker.drawing_child import picture


@asynccontextmanager
async def drawing() -> AsyncGenerator[WorkerLink]:
    command = (sys.executable, str(Path(__file__).with_name("drawing_child.py")))
    process = await ChildProcess.start(*command, env={**os.environ, "PYTHONPATH": PATH})
    try:
        async with FrameChannel(process) as channel:
            yield WorkerLink(channel, lambda why: None, lambda index: None)
    finally:
        process.kill()
        await process.wait()
        process.close()


async def test_pictures_of_any_size_come_whole_and_in_their_order() -> None:
    sizes = (0, 10, 1024 * 1024, MAX_BODY_BYTES + 5_000_001)
    async with drawing() as link:
        order = MeasureOrder(order_id=",".join(map(str, sizes)))
        reports = [report async for report in link.carry_out(order)]
    images = [report for report in reports if isinstance(report, ImageReady)]
    assert [(image.index, image.data == picture(size)) for image, size in zip(images, sizes, strict=True)] == [
        (index, True) for index in range(len(sizes))
    ]
    assert isinstance(reports[-1], RunFinished)
