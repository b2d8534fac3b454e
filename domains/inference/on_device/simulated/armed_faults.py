"""The faults that may still strike in this life of the worker."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from domains.device.simulated.fault_counts import ArmedFault
from domains.device.simulated.faults import Fault

Kind = TypeVar("Kind", bound=Fault)

Struck = Callable[[int, str], None]
"""Tells the front that a fault takes effect: its index, and the job that it strikes (empty: the order being carried out)."""


class ArmedFaults:
    """Counts down; the front counts too, and arms the worker's next life."""

    def __init__(self, armed: tuple[ArmedFault, ...], struck: Struck) -> None:
        self._armed = {fault.index: fault.fault for fault in armed}
        self._left = {fault.index: fault.strikes_left for fault in armed}
        self._struck = struck

    def strikes(self, kind: type[Kind], job_id: str, at_step: int | None = None) -> bool:
        """Whether a fault of this kind strikes here; the first that does is counted and told before this returns.

        `at_step` None: the kind has no step.
        """
        for index, fault in self._armed.items():
            here = isinstance(fault, kind) and (at_step is None or getattr(fault, "at_step", None) == at_step)
            if here and self._count(index):
                self._struck(index, job_id)
                return True
        return False

    def all_of(self, kind: type[Kind]) -> Iterator[Kind]:
        """Those that are always there and are not counted."""
        return (fault for fault in self._armed.values() if isinstance(fault, kind))

    def _count(self, index: int) -> bool:
        """Take one strike; False: there is none left."""
        left = self._left[index]
        if left is not None:
            self._left[index] = max(0, left - 1)
        return left is None or left > 0
