"""Counts the faults that can still strike in the present worker process."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from domains.device.simulated.fault_counts import ArmedFault
from domains.device.simulated.faults import Fault
from domains.progress import Stage

Kind = TypeVar("Kind", bound=Fault)

Struck = Callable[[int, str], None]
"""Called when a fault takes effect, with its index and the id of the job that it strikes (empty: the running order)."""


class ArmedFaults:
    """Counts strikes down. The front process counts them too, and arms the next worker process."""

    def __init__(self, armed: tuple[ArmedFault, ...], struck: Struck) -> None:
        self._armed = {fault.index: fault.fault for fault in armed}
        self._left = {fault.index: fault.strikes_left for fault in armed}
        self._struck = struck

    def strikes(
        self, kind: type[Kind], job_id: str, at_step: int | None = None, stage: Stage = Stage.DENOISING
    ) -> bool:
        """Whether a fault of this kind strikes here. The first that does is counted and reported before this returns.

        `at_step` None: the kind, or the stage, has no step.
        """
        for index, fault in self._armed.items():
            here = isinstance(fault, kind) and (at_step is None or getattr(fault, "at_step", None) == at_step)
            here = here and getattr(fault, "stage", Stage.DENOISING) == stage
            if here and self._count(index):
                self._struck(index, job_id)
                return True
        return False

    def all_of(self, kind: type[Kind]) -> Iterator[Kind]:
        """The permanent faults of a kind, which are not counted."""
        return (fault for fault in self._armed.values() if isinstance(fault, kind))

    def _count(self, index: int) -> bool:
        """Count one strike; False: none is left."""
        left = self._left[index]
        if left is not None:
            self._left[index] = max(0, left - 1)
        return left is None or left > 0
