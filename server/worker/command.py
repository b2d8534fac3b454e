"""What a worker process is started with."""

import sys
from pathlib import Path

import msgspec

_FORKED = ("cpu", "sim", "cuda")
"""Devices whose workers were seen to live as forks, by how their names begin."""


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
        """Whether the nursery may fork it: where forks were seen to live. An interpreter of its own needs a new process."""
        return self.python is None and self.name.startswith(_FORKED)

    def command(self) -> tuple[str, ...]:
        """The command line of a new process."""
        pinned = (self.uuid,) if self.uuid else ()
        return (str(self.python or sys.executable), "-m", "server.worker.process", self.name, *pinned)
