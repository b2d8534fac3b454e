"""The last rung of the ladder of degradation: a job whose device is out of memory moves to another one, if it permits it."""

from collections.abc import Callable

import msgspec

from domains.inference.fallback import FIELD_OF, OUT_OF_MEMORY, Rung, next_rung, would_help
from domains.processing.jobs.job import Job
from domains.processing.jobs.outcome import Broken, Moved
from domains.progress import Degraded, Receipt, added

Elsewhere = Callable[[Job, str], bool]
"""Whether a device other than this one (id) may run the job now."""


def nowhere(job: Job, device_id: str) -> bool:
    """There is no other device."""
    return False


def moved(job: Job, device_id: str, broken: Broken, elsewhere: Elsewhere) -> Broken | Moved:
    """The move, or the failure with the permission that would have helped. `job`: as it is now."""
    if broken.failure.reason not in OUT_OF_MEMORY or not device_id:
        return broken
    possible = (Rung.OTHER_DEVICE,) if elsewhere(job, device_id) else ()
    fallback, taken = job.options.fallback, _taken(added(job.spent, broken.receipt))
    if next_rung(job.stage, fallback, possible, taken) is None:
        return _advised(broken, would_help(job.stage, fallback, possible))
    detail = f"it leaves {device_id} for another device, since {broken.failure.message}"
    told = Degraded(kind=str(Rung.OTHER_DEVICE), reason=str(broken.failure.reason), detail=detail)
    return Moved(
        device_id=device_id,
        failure=broken.failure,
        receipt=added(broken.receipt, Receipt(degradations=(told,))),
        checkpoint=broken.checkpoint,
    )


def _taken(receipt: Receipt) -> int:
    """Number of rungs that all attempts have taken."""
    return sum(one.kind in set(FIELD_OF) for one in receipt.degradations)


def _advised(broken: Broken, fields: tuple[str, ...]) -> Broken:
    """The failure, with the permissions (`fields`) with which another device could have run the job."""
    if not fields:
        return broken
    failure = broken.failure
    names = ", ".join(f"options.fallback.{field}" for field in fields)
    known = failure.facts.get("would_help", "")
    if names in known:
        return broken
    facts = {**failure.facts, "would_help": f"{known}, {names}" if known else names}
    message = f"{failure.message}; another device could run it: permit {names}"
    return msgspec.structs.replace(broken, failure=msgspec.structs.replace(failure, message=message, facts=facts))
