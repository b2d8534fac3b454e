"""A model of one device: on its way there, then ready. All runs that need it share one object."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import nn

from domains.inference.on_device.attending import attending
from domains.inference.on_device.compiling import compiling
from domains.inference.on_device.families.family import Family, KeepOn, regardless
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.fence import EventFence, Fence
from domains.inference.on_device.hardware import Hardware, model_owner
from domains.inference.on_device.in_turns import InTurns
from domains.model.execution import Execution
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.on_device import Loading, OnDeviceModel, Placed
from domains.model.ways import Ways
from domains.model.weight_quantization import UNQUANTIZED

_TURN_ALONE_S = 0.02
_TURN_S = 0.002
"""Seconds that a load may use the computing thread before other jobs have their turn."""


class ModelLoad:
    """Loads a model, a few pieces at a time."""

    def __init__(
        self,
        model: Model,
        execution: Execution,
        loading: Loading,
        hardware: Hardware,
        account: Callable[[], None],
        keep_on: KeepOn = regardless,
    ) -> None:
        """`account` is called when the size of the loaded model is known; raises DEVICE_OUT_OF_MEMORY. `keep_on`: see
        `InTurns`."""
        self.model = model
        self._execution = execution
        self.placed = Placed(0, 0)
        self.there: tuple[OnDeviceModel, Family] | None = None
        """What jobs can compute with. None: it is not there yet."""
        self.settled = False
        """Whether the load is over: all values are on the device, and the files are still those of the last scan."""
        self.failure: Exception | None = None
        """Why the load has ended. None: it has not failed."""
        self.users: set[str] = set()
        """Jobs that wait for the load."""
        self._loading = loading
        self._hardware = hardware
        self._account = account
        self._keep_on = keep_on
        self._fence: Fence = EventFence()
        """Passes after the piece's time on simulated hardware."""
        self._begun = False

    @property
    def ready(self) -> bool:
        """Whether `advance` has something to do."""
        return self.settled or self.failure is not None or self._goes_on

    @property
    def _goes_on(self) -> bool:
        return self.placed.ready.passed() and self._fence.passed()

    @property
    def size_bytes(self) -> int:
        """Bytes of the model; while it loads, of the pieces that are placed."""
        return self._placed_bytes if self.there is None else self.there[0].size_bytes

    @property
    def _placed_bytes(self) -> int:
        """Bytes on the device of the pieces that are placed."""
        return sum(self.placed.parts.values())

    @property
    def in_turns(self) -> bool:
        """Whether the components take turns on the device."""
        return self._execution.in_turns

    @property
    def ways(self) -> Ways:
        """How it computes."""
        return self._execution.ways

    def offloads_as(self, execution: Execution) -> bool:
        """Whether its offloading is the one of another execution."""
        own = self._execution
        same = own.offload_budget_bytes == execution.offload_budget_bytes or not own.by_layer
        return (own.in_turns, own.by_layer) == (execution.in_turns, execution.by_layer) and same

    @property
    def told_offload(self) -> str:
        """Its offloading, for people."""
        if self._execution.by_layer:
            return f"with layers that pass through {self._execution.offload_budget_bytes} bytes"
        return "with components that take turns" if self.in_turns else "as a whole"

    def precision_of(self, component: str) -> str:
        """The precision of a component. Empty: it is not there yet, and its load was asked for none."""
        if self.there is None:
            return self._execution.asked_of(component)
        return self.there[0].precision_of(component) if component in self.there[0].modules else ""

    @property
    def quantization(self) -> str:
        """How the denoiser's weights are stored in fewer bits; `none`: they are not."""
        return self._execution.quantization or UNQUANTIZED

    def quantization_of(self, component: str) -> str:
        """The quantization of a component. Empty: none."""
        return self._execution.quantization_of(component, FAMILIES[self.model.family].denoiser.id)

    def size_beside(self, seen: set[nn.Module]) -> int:
        """The same without the components in `seen`; adds those of this model to it."""
        if self.there is None:
            return self._placed_bytes
        loaded = self.there[0]
        new = {name for name, module in loaded.modules.items() if module not in seen}
        seen.update(loaded.modules.values())
        return sum(size for name, size in loaded.held_bytes.items() if name in new)

    def advance(self, job_id: str, *, alone: bool = False, early: bool = False) -> None:
        """Load what is ready, for a job, but not for longer than its turn, which is longer if no other job runs.

        `early`: the job computes with the model as soon as all copies are enqueued; its work waits for them on the device,
        like all that is enqueued later. The job then calls `settle` until the load is over.
        Raises as `domains.model.on_device.loading`, for every job that asks.
        """
        if self.failure is not None:
            raise self.failure
        until_s = time.perf_counter() + (_TURN_ALONE_S if alone else _TURN_S)
        with self._failing():
            while not self.settled and self._goes_on:
                self._place(job_id)
                if early and self._come():
                    return
                if time.perf_counter() >= until_s:
                    return

    def settle(self) -> bool:
        """Go on with the load of a model that computes already; whether it is over. Raises as `advance`."""
        if self.failure is not None:
            raise self.failure
        with self._failing():
            while not self.settled and self._goes_on:
                self._place("")
        return self.settled

    @contextmanager
    def _failing(self) -> Generator[None]:
        """Notes why the load has failed."""
        try:
            # Weights that are made in inference mode could never be changed outside of it.
            with torch.inference_mode(mode=False), torch.no_grad():
                yield
        except Exception as error:
            self.close()
            self.failure = error
            raise

    def _place(self, job_id: str) -> None:
        step = _next(self._loading)
        if isinstance(step, OnDeviceModel):
            self.there = step, self._family(step) if self.there is None else self.there[1]
            self.settled = True
            # Components that were there before, and buffers that no file carries.
            self._account()
            return
        before, self.placed = (self.placed.completed, self._placed_bytes), step
        piece = step.completed - before[0]
        if piece or not self._begun:
            more = self._placed_bytes - before[1]
            self._fence = self._hardware.load_piece(job_id, self.model.id, piece, more)
            self._begun = True

    def _come(self) -> bool:
        """Let jobs compute with the model if all of it is on its way; whether they can."""
        coming = self.placed.coming
        if self.there is None and coming is not None and not self.placed.ready.passed():
            coming.hold_computing()
            self.there = coming.model, self._family(coming.model)
            self._account()
        return self.there is not None

    def _family(self, loaded: OnDeviceModel) -> Family:
        owner = model_owner(self.model.id)
        hold = partial(self._hardware.hold, owner)
        family = (
            family_of(loaded) if loaded.turns is None else InTurns(loaded, loaded.turns, family_of, hold, self._keep_on)
        )
        ways = self._execution.ways
        # Outside of the code, as it knows the kernel only while it is made.
        return attending(self.model, compiling(loaded, family, ways), ways)

    def rest(self) -> None:
        """Take the components off the device that were there for their turn."""
        if self.there is not None and self.there[0].turns is not None and self.there[0].held_bytes:
            cast(InTurns, self.there[1]).rest()

    def wait(self) -> None:
        """Wait until the next piece can be loaded, or at least for a while."""
        (self._fence if self.placed.ready.passed() else self.placed.ready).wait()

    def close(self) -> None:
        """Cancel the load, or drop the model: nothing of it stays in memory."""
        self._loading.close()
        if self.there is not None and self.there[0].turns is not None:
            self.there[0].turns.close()
        self.there, self.settled = None, False
        self._hardware.free(model_owner(self.model.id))


def _next(steps: Loading) -> Placed | OnDeviceModel:
    """The next step of a load; its result after the last one."""
    try:
        return next(steps)
    except StopIteration as end:
        return end.value
