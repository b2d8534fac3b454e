"""The start of a worker process: its device, interpreter and command line."""

import sys
from pathlib import Path

import msgspec

_FORKED = ("cpu", "sim", "cuda")
"""Prefixes of the names of devices whose workers were tested as forks."""


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True):
    """The worker to start."""

    name: str
    """The device's name: `cpu`, `cuda:0`, `sim-0`."""
    uuid: str = ""
    """UUID of the only GPU that the process sees; empty: the process sees all GPUs and counts them itself."""
    python: Path | None = None
    """Interpreter of another environment with deviceops in it; None: the server's interpreter."""

    @property
    def forkable(self) -> bool:
        """Whether the nursery may fork the worker. A worker with another interpreter needs a new process."""
        return self.python is None and self.name.startswith(_FORKED)

    def command(self) -> tuple[str, ...]:
        """The command line of a new process."""
        pinned = (self.uuid,) if self.uuid else ()
        return (str(self.python or sys.executable), "-m", "server.worker.process", self.name, *pinned)
