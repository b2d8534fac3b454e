"""What a worker process is started with."""

import sys
from pathlib import Path

import msgspec


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker to start, and with what."""

    name: str
    """Of the device: `cpu`, `cuda:0`, `sim-0`."""
    uuid: str = ""
    """Of the GPU that is to be the only one that the process sees; empty: the process sees all, and counts them itself."""
    python: Path | None = None
    """Interpreter of an environment of its own, where deviceops is installed too; None: the server's interpreter."""

    @property
    def forkable(self) -> bool:
        """Whether the nursery may fork it.

        A GPU's worker is a new process: that a fork is ready sooner there, and always ready, has not been shown on a GPU
        yet. An interpreter of its own needs a process of its own.
        """
        return self.python is None and (self.name == "cpu" or self.name.startswith("sim"))

    def command(self) -> tuple[str, ...]:
        """The command line of a new process."""
        pinned = (self.uuid,) if self.uuid else ()
        return (str(self.python or sys.executable), "-m", "server.worker.process", self.name, *pinned)
