"""Starts worker processes on this machine: forked from the nursery where there is one, else as new processes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from domains.inference.code_folder import CODE_FOLDER
from server.stdio.adopted import can_adopt
from server.stdio.child import ChildProcess
from server.worker.allowed_environment import allowed
from server.worker.command import WorkerStart
from server.worker.fork_order import ForkOrder
from server.worker.given_nursery import given_nursery
from server.worker.nursery_keeper import NurseryKeeper
from server.worker.process_life import ProcessLife

_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # CUDA counts GPUs in NVML's order, so `cuda:1` is the same GPU in server and worker.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
# How long OpenMP's idle threads spin before they sleep: briefly where several workers compute on the same cores. Torch
# processes that spin on for each other's cores slow each other up to thirtyfold, depending on the kernel. One worker is
# left to OpenMP's own measure: with the embedded model on 2 cores, a picture takes as long either way on one machine, and
# on a virtual one, which loses a core as soon as a thread sleeps, 3.9 s instead of 4.4 to 9.4 s.
_BRIEF = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}


def environment(shared: bool = True) -> dict[str, str]:
    """Environment variables of each worker, and of the nursery. `shared`: several workers compute on the same cores."""
    spinning = _BRIEF if shared else {}
    return {**spinning, **allowed(os.environ), **_ENVIRONMENT}


class ProcessLauncher:
    """Implements `Launcher`."""

    def __init__(
        self, start: Callable[[str], WorkerStart], code_folder: Path | None = None, shared: bool = True
    ) -> None:
        """`start`: returns how to start the worker of a device, by name. `code_folder`: for compiled code; what workers that
        were killed have left there is removed. None: among temporary files. `shared`: see `environment`."""
        self.environment = environment(shared)
        """Environment variables of each worker, and of the nursery."""
        if code_folder is not None:
            shutil.rmtree(code_folder, ignore_errors=True)
            self.environment[CODE_FOLDER] = str(code_folder.absolute())
        self.nursery: NurseryKeeper | None = None
        if can_adopt():
            self.nursery = NurseryKeeper(self.environment, given=given_nursery())
        self._start = start

    async def launch(self, name: str, end: Callable[[str], None], on_fault: Callable[[int], None]) -> ProcessLife:
        """Start the worker of the device of this name. Raises `OSError`."""
        return ProcessLife(await self._process(self._start(name)), end, on_fault)

    async def close(self) -> None:
        """End the nursery. Its workers are ended by their keepers."""
        if self.nursery is not None:
            await self.nursery.close()

    async def _process(self, start: WorkerStart) -> ChildProcess:
        if self.nursery is not None and start.forkable:
            forked = await self.nursery.fork(ForkOrder(name=start.name, uuid=start.uuid))
            if forked is not None:
                return forked
        return await ChildProcess.start(*start.command(), env=self.environment)
