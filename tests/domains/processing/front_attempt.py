"""Carries out an attempt at a job of the front process, without a queue."""

from typing import Any, cast

from domains.draining import Draining
from domains.processing.attempts.attempt import Attempt, AttemptTools
from domains.processing.attempts.front_task import FrontRunners
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.lanes.lane import Lane
from tests.domains.processing.dispatch_bench import Memory

_NONE = cast(Any, None)


async def attempt(jobs: Jobs, job: Job, *, transfer: object = _NONE, convert: object = _NONE) -> None:
    """To its end. `transfer`, `convert`: the methods that carry out transfers and conversions."""
    tools = AttemptTools(
        jobs=jobs,
        devices=_NONE,
        catalogue=_NONE,
        loaded=_NONE,
        blobs=_NONE,
        inputs=_NONE,
        reproductions=_NONE,
        memory=Memory(),
        runners=FrontRunners(
            scan=_NONE,
            reset=_NONE,
            transfer=cast(Any, transfer),
            validate=_NONE,
            load_to_host=_NONE,
            convert=cast(Any, convert),
        ),
        wishes=PreviewWishes(),
        draining=Draining(),
        silences=_NONE,
        stall_limit_s=60,
        stop_limit_s=60,
    )
    await Attempt(job, Lane(lambda: 1, front=type(job.work)), tools).run()
