"""Kills a process at each point of a conversion in turn, and looks at what the next one makes of it.

    python -m tests.faults.conversion_crash folder|file

It prints how many points there were, and says on stderr what was not as promised.

A point is each moment before a transaction is committed, or a file of the model root is opened to write, made or removed.
The process that writes the tensors is replaced by a copy: what it leaves when it dies is the half of a hidden part.
"""

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from safetensors.numpy import save_file

from domains.model.catalogue import Catalogue
from domains.model.conversion import Conversion, ConversionOrder, Written
from domains.model.model import ModelLayout, ModelState
from domains.model.publish import is_part
from domains.model.roots import Roots
from domains.processing.front import convert
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ConvertWork
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.storage import open_database
from tests.domains.model.folders import age, write_model
from tests.domains.processing.front_attempt import attempt
from tests.faults.blob_crash import forked

_EVENTS = ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_MADE = os.O_CREAT | os.O_WRONLY | os.O_RDWR
WRITTEN = Written(converted=0, copied=3, written_bytes=9)
SOURCE = {"folder": "source", "file": "single"}
TARGET = {"folder": "made", "file": "made.safetensors"}
LAYOUTS = {"folder": ModelLayout.DIFFUSERS, "file": ModelLayout.FILE}


async def copied(order: ConversionOrder, tell: Callable[[int, int], None]) -> Written:
    """In the place of the process that converts."""
    source, part = Path(order.model.folder), Path(order.part)
    (shutil.copyfile if order.layout is ModelLayout.FILE else shutil.copytree)(source, part)
    return WRITTEN


class Process:
    """What a server has of models and of the jobs that convert them."""

    def __init__(self, database: sqlite3.Connection, folder: Path) -> None:
        self.root = folder / "models"
        self.jobs = Jobs(JobStore(database, folder), keep_s=1e12)
        self.catalogue = Catalogue(database, Roots([self.root]), "source")
        self.runner = convert.ConvertRunner(self.catalogue, self.jobs)
        convert.convert_model = copied

    async def go_on(self) -> None:
        """As a server does after its start."""
        self.runner.recover()
        self.jobs.recover()
        await self.catalogue.rescan(lambda report: None, lambda: False)
        for job in self.jobs.unfinished():
            await attempt(self.jobs, job, convert=self.runner.run)


async def set_up(process: Process, kind: str) -> None:
    write_model(process.root / "source")
    save_file({"emb_params": np.zeros((1, 768), np.float32)}, process.root / "single.safetensors")
    age(process.root)
    await process.catalogue.rescan(lambda report: None, lambda: False)
    target = str(process.root / TARGET[kind])
    asked = Conversion(model_id=SOURCE[kind], destination=target, layout=LAYOUTS[kind], new_model_id="wanted")
    process.jobs.submit(ConvertWork(asked=asked), JobOptions())


async def work(process: Process, kind: str) -> None:
    await process.go_on()


async def look(process: Process, kind: str) -> None:
    await process.go_on()
    assert not process.jobs.unfinished()
    (job,) = [process.jobs.get(name) for name in process.jobs.ids()]
    assert job.state is JobState.SUCCEEDED, job.failure
    source, target = process.root / SOURCE[kind], process.root / TARGET[kind]
    assert names(target) == names(source if kind == "folder" else process.root / "single.safetensors")
    left = [path.name for path in process.root.iterdir() if is_part(path.name)]
    assert left == [], left
    made = [model for model in process.catalogue.list() if model.folder == str(target)]
    assert [model.id for model in made] == ["wanted"], [model.id for model in made]
    assert kind == "file" or made[0].state is ModelState.AVAILABLE, made[0].problem


def names(place: Path) -> list[str]:
    """The files below a place."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*")) if place.is_dir() else ["file"]


def run_until(folder: Path, kind: str, do: Callable[[Process, str], object], point: int) -> None:
    """Do it and die before event number `point` of it; 0: never."""
    seen = 0

    def commits(statement: str) -> None:
        if statement.startswith("COMMIT"):
            count()

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _EVENTS or not str(arguments[0]).startswith(str(folder / "models")):
            return
        if event != "open" or (isinstance(arguments[2], int) and arguments[2] & _MADE):
            count()

    with closing(open_database(folder)) as database:
        process = Process(database, folder)
        if point:
            database.set_trace_callback(commits)
            sys.addaudithook(hear)
        asyncio.run(do(process, kind))  # pyright: ignore[reportArgumentType]


def main(kind: str) -> int:
    """Every point in turn, until the work comes to its end."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for point in range(1, 2000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "models").mkdir()
            begun = forked(partial(run_until, folder, kind, set_up, 0))
            status = forked(partial(run_until, folder, kind, work, point))
            found = forked(partial(run_until, folder, kind, look, 0))
        if begun or found or status not in (0, -signal.SIGKILL):
            print(f"not as promised after point {point}", file=sys.stderr)
            return 1
        if status == 0:
            print(point - 1)
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
