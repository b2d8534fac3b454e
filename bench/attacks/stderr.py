"""A stderr that is closed, full, slow, gone or read-only: how long the calls of a neighbour take while jobs log.

python -m bench.attacks.stderr [JOBS]      40 jobs where no count is given

The limit is 100 ms a call; the first line is a server whose stderr is a file, on the same machine at the same time.
"""

import fcntl
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from bench.attacks.harness import Neighbour, tell
from tests.server import asking, nursery_source
from tests.server.harness import RunningServer

JOBS = 40
_PAGE = 4096
QUICK = {"DEVICEOPS_DRAIN_READS_S": "0"}


@contextmanager
def opened(path: str, flags: int) -> Generator[int]:
    """A file as stderr."""
    descriptor = os.open(path, flags)
    yield descriptor
    os.close(descriptor)


@contextmanager
def piped(read: Callable[[int], None]) -> Generator[int]:
    """A pipe of one page, whose reader runs in a thread."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PAGE)
    reader = threading.Thread(target=read, args=(ours,), daemon=True)
    reader.start()
    yield theirs
    os.close(theirs)


def slowly(descriptor: int) -> None:
    """One byte a second."""
    while os.read(descriptor, 1):
        time.sleep(1)


def leaving(descriptor: int) -> None:
    """Read a line, and leave."""
    os.read(descriptor, _PAGE)
    os.close(descriptor)


CASES = {
    "a file": lambda: opened(os.devnull, os.O_WRONLY),
    "full": lambda: opened("/dev/full", os.O_WRONLY),
    "read-only": lambda: opened(os.devnull, os.O_RDONLY),
    "slow": lambda: piped(slowly),
    "gone later": lambda: piped(leaving),
}


def attacked(stderr: int, jobs: int) -> dict[str, object]:
    """Serve with this stderr, and time a neighbour's calls while jobs run."""
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(Path(folder) / "state", ["--device", "sim", "--log-format", "json"], QUICK, stderr)
        try:
            asking.watch(server, asking.submit(server))
            with Neighbour(server.address) as neighbour:
                for number in range(jobs):
                    asking.watch(server, asking.submit(server, asking.picture(steps=1, seed=number)))
            return {**neighbour.figures(), "sigterm": server.stop()}
        finally:
            server.close()


def main() -> int:
    """Print the figures of each case."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    figures = dict[str, dict[str, object]]()
    with nursery_source.opened():
        for name, case in CASES.items():
            with case() as stderr:
                figures[name] = attacked(stderr, jobs)
    return tell("stderr", jobs=jobs, **figures)


if __name__ == "__main__":
    raise SystemExit(main())
