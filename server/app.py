"""Runs the server from its start to a signal. `serving` shows the order of stopping."""

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog

from domains import storage
from domains.storage import Durability
from domains.threads import ThreadPool
from server import log
from server.lifetime import leave_no_core_dump, take_children_along
from server.listen import listen
from server.server import Server
from server.settings import Settings

_LAST_WORDS_S = 1.0
"""Seconds that open streams have to send the last events of their jobs before the ports close."""

_YOUNG_OBJECTS = 10_000
"""New objects after which Python looks for cycles. Its own 700 are fewer than one call makes."""

_log = structlog.get_logger()


@asynccontextmanager
async def serving(
    settings: Settings, begin_s: float, stdio_fds: tuple[int, int] | None = None, stop: asyncio.Event | None = None
) -> AsyncGenerator[Server]:
    """A running server. Its parts stop in the reverse order of the lines below.

    `stdio_fds`: also serve the process at the other end of this pipe; `stop` is set when the pipe ends.
    """
    with (
        storage.owned(settings.state),
        contextlib.closing(storage.open_database(settings.state, Durability(settings.durability))) as database,
    ):
        app = Server(settings, database, begin_s)
        transport = app.transport()
        app.view.addresses = listen(transport, settings, only_named=stdio_fds is not None)
        app.begin()
        await transport.start()
        stdio = app.stdio(stdio_fds, stop) if stdio_fds else None
        app.view.served()
        await app.tell_health()
        _log.info("serving", addresses=app.view.addresses, after_s=round(app.view.serving_s or 0.0, 3))
        try:
            yield app
        finally:
            # health NOT_SERVING → jobs ended or left to the next start → pictures read → streams cut → server stopped →
            # workers ended
            await app.drain()
            await asyncio.gather(transport.stop(_LAST_WORDS_S), *([stdio.stop(_LAST_WORDS_S)] if stdio else []))
            await app.end_tasks()
    _log.info("stopped")


async def _serve(settings: Settings, begin_s: float, stdio_fds: tuple[int, int] | None) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPool(thread_name_prefix="asyncio"))
    _on_signals(loop, stop)
    async with serving(settings, begin_s, stdio_fds, stop) as app:
        _leave_lasting_objects_alone()
        # The parent process may wait for this line. If it has closed stdout, the server serves other clients.
        with contextlib.suppress(OSError):
            addresses = ["stdio"] if stdio_fds else []
            print(f"deviceops: serving on {' '.join([*addresses, *app.view.addresses])}", flush=True)
        await stop.wait()


def _leave_lasting_objects_alone() -> None:
    """Keep Python's search for cycles away from the objects that the start made; they stay until the process ends.

    They are about 100,000, and one search through them stops the event loop for 30 to 70 ms.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if sys.platform == "win32":
        # The event loop of Windows has no `add_signal_handler`; a signal wakes it, so that these handlers run.
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK):
            signal.signal(name, lambda number, frame: stop.set())
    else:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)


def run(settings: Settings, stdio_fds: tuple[int, int] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the pipe. Raises the errors of the ports and of the state folder."""
    begin_s = time.monotonic()
    with log.writing(settings.log_format, settings.log_level):
        take_children_along()
        leave_no_core_dump()
        asyncio.run(_serve(settings, begin_s, stdio_fds))
    return 0
