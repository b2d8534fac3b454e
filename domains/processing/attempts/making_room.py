"""The front's part of the ladder of degradation: unloads idle models from a device without memory, if the job permits it.

Idle models are unloaded first, because that does not change the pictures. While there are any, the worker reduces nothing.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from domains.failure import Failure
from domains.inference.fallback import NOTHING, OUT_OF_MEMORY, Fallback, Rung, next_rung, would_help
from domains.processing.jobs.job import Job
from domains.processing.jobs.outcome import Broken, Done, Halted
from domains.processing.memory.less_room import LessRoom
from domains.progress import Degraded, Receipt, Stage, added


class Evicting(Protocol):
    """The idle models of devices."""

    def evictable(self, device_id: str) -> bool:
        """Whether an idle model could leave the device."""
        ...

    async def evict(self, device_id: str, need_bytes: int) -> Sequence[str]:
        """Unload idle models until this many bytes are free, or all of them. Returns their ids."""
        ...


class MakingRoom:
    """What one attempt has unloaded to free memory, and the cost of its orders so far."""

    def __init__(self, job: Job, device_id: str, memory: Evicting) -> None:
        self._fallback = job.options.fallback
        self._device_id = device_id
        self._memory = memory
        self._taken = 0
        self._spent = Receipt()
        self._first = False
        self._stuck = False
        """Whether an idle model could not be unloaded."""

    def for_worker(self) -> Fallback:
        """What the worker may give up in its next order."""
        # The stage that will fail is not known yet; idle models can be unloaded in each.
        self._first = next_rung(Stage.LOADING, self._fallback, self._possible(), self._taken) is Rung.EVICTION
        left = self._fallback.max_attempts - self._taken
        return NOTHING if self._first else msgspec.structs.replace(self._fallback, max_attempts=left)

    def again(self, outcome: Done | Broken | Halted) -> bool:
        """Whether the order is to be given again."""
        return self._first and isinstance(outcome, Broken) and outcome.failure.reason in OUT_OF_MEMORY

    async def make(self, broken: Broken) -> Degraded | None:
        """Unload idle models; returns the report. None: none could be unloaded."""
        self._spent = added(self._spent, broken.receipt)
        facts = broken.failure.facts
        need = int(facts.get("needed_bytes", 1)) - int(facts.get("available_bytes", 0))
        gone = await self._memory.evict(self._device_id, max(1, need))
        if not gone:
            self._stuck = True
            return None
        self._taken += 1
        detail = f"{', '.join(gone)} left {self._device_id}, since {broken.failure.message}"
        told = Degraded(kind=str(Rung.EVICTION), reason=str(broken.failure.reason), detail=detail)
        self._spent = added(self._spent, Receipt(degradations=(told,)))
        return told

    def whole(self, job: Job, outcome: Done | Broken | Halted) -> Done | Broken | Halted:
        """The outcome with the cost of all orders, and with the permission that would have helped."""
        match outcome:
            case Halted():
                proof = outcome.proof
                told = proof and msgspec.structs.replace(proof, receipt=added(self._spent, proof.receipt))
                return msgspec.structs.replace(outcome, proof=told)
            case Done():
                return msgspec.structs.replace(outcome, receipt=added(self._spent, outcome.receipt))
            case Broken():
                receipt = added(self._spent, outcome.receipt)
                return msgspec.structs.replace(outcome, receipt=receipt, failure=self._advised(job, outcome.failure))

    def offload(self, less: LessRoom) -> Degraded:
        """Note that parts of the model wait in host memory, since it has no room as a whole."""
        self._taken += 1
        told = Degraded(kind=str(Rung.OFFLOAD), reason=str(less.why.reason), detail=less.told(self._device_id))
        self._spent = added(self._spent, Receipt(degradations=(told,)))
        return told

    def _possible(self) -> tuple[Rung, ...]:
        return (Rung.EVICTION,) if not self._stuck and self._memory.evictable(self._device_id) else ()

    def _advised(self, job: Job, failure: Failure) -> Failure:
        if failure.reason not in OUT_OF_MEMORY or self._fallback.permits(Rung.EVICTION):
            return failure
        names = [f"options.fallback.{field}" for field in would_help(job.stage, self._fallback, self._possible())]
        if not names:
            return failure
        told = ", ".join([failure.facts["would_help"], *names] if "would_help" in failure.facts else names)
        message = f"{failure.message}; idle models could go: permit {', '.join(names)}"
        return msgspec.structs.replace(failure, message=message, facts={**failure.facts, "would_help": told})
