"""What a run gives up when the device is out of memory. `domains.inference.fallback` says in which order."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from structlog.contextvars import bound_contextvars

from domains.errors import DeviceOpsError, ErrorReason, ResourceExhausted
from domains.inference.fallback import OUT_OF_MEMORY, Rung, next_rung, would_help
from domains.inference.on_device.families.family import Abandoned
from domains.inference.on_device.offloading import Offloading
from domains.inference.on_device.run import Run
from domains.model.on_device import translate


@dataclass
class Attempt:
    """A unit of work that leaves its job as it was if it fails."""

    shortage: DeviceOpsError | None = None
    """The memory that it lacked; the next rung may help. None: it had enough."""


@contextmanager
def attempt(job: Run) -> Generator[Attempt]:
    """Context for such a unit. Raises its errors of other kinds.

    A rung is taken after the context, when the functions that have failed are gone: until then they hold what they
    computed, and the model that they computed it with.
    """
    tried = Attempt()
    try:
        yield tried
    except Abandoned:
        raise
    except Exception as error:
        with bound_contextvars(job_id=job.id):
            told = translate(error, job.device, str(job.stage))
        if told.reason not in OUT_OF_MEMORY:
            raise told from None
        # What was raised before has its functions, too.
        tried.shortage = told.with_traceback(None)
        told.__cause__ = told.__context__ = None


def give_way(job: Run, told: DeviceOpsError, offloading: Offloading) -> None:
    """Take the next rung after a unit of work that lacked memory (`told`), which is then done again.

    Raises the error if no rung is left, with the fields that would have helped.
    """
    rungs = [rung for rung in job.rungs() if rung is not Rung.OFFLOAD or offloading.permitted(job)]
    rung = next_rung(job.stage, job.given.fallback, rungs, len(job.taken))
    if rung is None:
        raise _final(job, told, rungs)
    if rung is Rung.OFFLOAD and job.has_model:
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
