"""What a run gives up when the device is out of memory. `domains.inference.fallback` says in which order."""

from collections.abc import Collection
from typing import Any

from domains.errors import DeviceOpsError, ErrorReason, ResourceExhausted
from domains.inference.fallback import OUT_OF_MEMORY, Rung, next_rung, would_help
from domains.inference.on_device.offloading import Offloading
from domains.inference.on_device.run import Run
from domains.model.on_device import forget_locals, translate


def give_way(job: Run, error: Exception, offloading: Offloading) -> None:
    """Take the next rung after an error that left the job as it was before its unit of work, which is then done again.

    Raises the error if it is of another kind, or if no rung is left; then with the fields that would have helped.
    """
    told = translate(error, job.device, str(job.stage))
    if told.reason not in OUT_OF_MEMORY:
        raise told
    rungs = [rung for rung in job.rungs() if rung is not Rung.OFFLOAD or offloading.permitted(job)]
    rung = next_rung(job.stage, job.given.fallback, rungs, len(job.taken))
    if rung is None:
        raise _final(job, told, rungs) from error
    if rung is Rung.OFFLOAD and job.has_model:
        # The variables of the functions that have failed hold what they computed.
        forget_locals(error)
        offloading.offload(job, told)
        return
    job.give_up(rung, told)


def _final(job: Run, told: DeviceOpsError, rungs: Collection[Rung]) -> DeviceOpsError:
    fields = would_help(job.stage, job.given.fallback, rungs)
    if not fields:
        return told
    names = ", ".join(f"options.fallback.{field}" for field in fields)
    message = f"{told.message}; permitting more would have helped: {names}"
    facts: dict[str, Any] = {**told.facts, "would_help": names}
    return ResourceExhausted(message, ErrorReason(told.reason), **facts)
