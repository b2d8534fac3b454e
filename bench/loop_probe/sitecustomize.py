"""Put on a server's PYTHONPATH by `bench.loop_lag`: the event loop of that process tells how late it calls what is due.

Python imports this file at the start of every process. In one that runs an event loop and whose command line has the words
of DEVICEOPS_BENCH_LOOP (JSON: `words`, `begin`, `out`), a callback asks to be called again and again after `PAUSE_S`. Once
the file `begin` exists, what it was late is noted, and after `SAMPLES` of them written to `out` in milliseconds.
"""

import asyncio
import json
import os
import sys

PAUSE_S = 0.005
SAMPLES = 4000

_run_forever = asyncio.BaseEventLoop.run_forever


def _watched(self: asyncio.BaseEventLoop) -> None:
    settings = json.loads(os.environ["DEVICEOPS_BENCH_LOOP"])
    late_ms: list[float] = []
    begun = False

    def look(due: float) -> None:
        nonlocal begun
        begun = begun or os.path.exists(settings["begin"])
        if begun:
            late_ms.append((self.time() - due) * 1e3)
        if len(late_ms) < SAMPLES:
            again()
            return
        with open(settings["out"] + ".new", "w", encoding="utf-8") as file:
            json.dump(late_ms, file)
        os.replace(settings["out"] + ".new", settings["out"])

    def again() -> None:
        due = self.time() + PAUSE_S
        self.call_at(due, look, due)

    again()
    _run_forever(self)


def _is_meant() -> bool:
    with open("/proc/self/cmdline", "rb") as command:
        words = command.read().decode().split("\0")
    return set(json.loads(os.environ["DEVICEOPS_BENCH_LOOP"])["words"]) <= set(words)


if "DEVICEOPS_BENCH_LOOP" in os.environ and sys.platform == "linux" and _is_meant():
    asyncio.BaseEventLoop.run_forever = _watched
