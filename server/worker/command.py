"""How the process of a worker is started."""

import sys


def worker_command(name: str) -> tuple[str, ...]:
    """With our own interpreter."""
    return (sys.executable, "-m", "server.worker.process", name)
