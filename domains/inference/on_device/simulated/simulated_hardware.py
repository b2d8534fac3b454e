"""Implements `Hardware` for a simulated device."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from domains.device.simulated.fault_counts import SimSetup
from domains.device.simulated.faults import (
    Crash,
    DriverError,
    HungStep,
    Leak,
    NotFinite,
    OutOfMemory,
    SlowLoad,
    WrongResult,
)
from domains.errors import ErrorReason, InternalError
from domains.inference.on_device.hardware import Mark, job_owner, model_owner
from domains.inference.on_device.simulated.armed_faults import ArmedFaults, Struck
from domains.inference.on_device.simulated.device_clock import DeviceClock, TimedFence
from domains.inference.on_device.simulated.memory_book import MemoryBook
from domains.memory.measure import MemoryMeasure
from domains.progress import Stage


class SimulatedHardware:
    """See `Hardware`. Follows its script."""

    def __init__(self, setup: SimSetup, struck: Struck, clock: Callable[[], float] = time.perf_counter) -> None:
        """`struck` must have passed its report to the operating system when it returns: the process may die next."""
        self._struck = struck
        self._clock = DeviceClock(clock)
        self._memory = MemoryBook(setup.device)
        self.set_up(setup)

    def set_up(self, setup: SimSetup) -> None:
        """Follow a changed script. Held and leaked memory stays."""
        self.device = setup.device
        self._memory.device = setup.device
        self._clock.speed = setup.device.speed
        self._faults = ArmedFaults(setup.armed, self._struck)

    def mark(self) -> Mark:
        """A moment on the CPU's clock."""
        return self._clock.now_s()

    def fence(self, began: Mark) -> TimedFence:
        """A fence that passes when the scripted device would have finished."""
        return self._clock.fence(began if isinstance(began, float) else self._clock.now_s())

    def before_unit(self, job_id: str, stage: Stage) -> None:
        """Be out of memory, if the script says so."""
        if self._faults.strikes(OutOfMemory, job_id, stage=stage):
            raise self._memory.refusal(job_owner(job_id), max(1, self._memory.held(job_owner(job_id))), 0)

    def before_step(self, job_id: str, step: int, held_bytes: Callable[[], int]) -> None:
        """Check that the job's tensors have room, then apply the script's faults for this step."""
        held = held_bytes()
        self._memory.hold(job_owner(job_id), held)
        self._fail(job_owner(job_id), job_id, step, held)

    def after_step(self, job_id: str, step: int, latents: Tensor) -> None:
        """Corrupt the result, if the script says so."""
        if self._faults.strikes(NotFinite, job_id, step):
            latents.fill_(torch.nan)
        elif self._faults.strikes(WrongResult, job_id):
            latents.neg_()

    def after_job(self, job_id: str) -> None:
        """Free the job's memory, except what leaks."""
        self._memory.free(job_owner(job_id))
        for leak in self._faults.all_of(Leak):
            self._memory.leak(leak.bytes_per_job)

    def load_piece(self, job_id: str, model_id: str, read_bytes: int, more_bytes: int) -> TimedFence:
        """Check that a piece has room; the fence passes after its scripted time."""
        owner = model_owner(model_id)
        if read_bytes == 0 and not self._memory.held(owner):
            self._fail(owner, job_id, 0, 0)
        self._memory.hold(owner, self._memory.held(owner) + more_bytes)
        rates = [slow.bytes_per_second for slow in self._faults.all_of(SlowLoad)]
        return self._clock.after(read_bytes / min(rates) if rates else 0.0)

    def hold(self, owner: str, size_bytes: int) -> None:
        """Hold scripted memory."""
        self._memory.hold(owner, size_bytes)

    def free(self, owner: str) -> None:
        """Free scripted memory."""
        self._memory.free(owner)

    def corrupt(self, result: Tensor) -> Tensor:
        """Change every element, if the script says so."""
        if not self._faults.strikes(WrongResult, ""):
            return result
        return -result - 1 if result.is_floating_point() else torch.bitwise_not(result)

    def room(self) -> int | None:
        """Bytes that the scripted memory still has."""
        return self._memory.room_bytes

    def peak_bytes(self) -> int | None:
        """Most bytes of models and jobs since the last call."""
        return self._memory.peak_of_owners()

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The scripted memory, with the real owners."""
        return self._memory.measured(measure)

    def _fail(self, owner: str, job_id: str, step: int, held: int) -> None:
        """Apply the script's faults for this step; 0: the begin of a load."""
        if self._faults.strikes(Crash, job_id, step):
            _die()
        if self._faults.strikes(HungStep, job_id, step):
            _hang()
        if self._faults.strikes(DriverError, job_id, step):
            message = f"the driver of {self.device.id} failed, as its script says, while {owner} was in step {step}"
            raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=self.device.id, step=step)
        if self._faults.strikes(OutOfMemory, job_id, step):
            # The error is the same as if another process had just taken the rest.
            raise self._memory.refusal(owner, max(1, held), 0)


def _die() -> NoReturn:
    """Die at once: without exception handlers, flush or an exit code of the server's."""
    if sys.platform != "win32":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


def _hang() -> NoReturn:
    """Hang until the process is killed."""
    while True:
        threading.Event().wait()
