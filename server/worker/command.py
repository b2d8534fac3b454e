"""How the process of a worker is started."""

import sys
from pathlib import Path


def worker_command(name: str, *, uuid: str = "", python: Path | None = None) -> tuple[str, ...]:
    """`uuid`: of the GPU that is to be the only one that the process sees; empty: it counts by itself.

    `python`: of an environment of its own, where deviceops is installed too; None: our own interpreter.
    """
    pinned = (uuid,) if uuid else ()
    return (str(python or sys.executable), "-m", "server.worker.process", name, *pinned)
