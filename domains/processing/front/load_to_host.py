"""A load into the RAM tier: the front process reads the files, and every device's worker finds them in the page cache."""

import time

from domains.model.catalogue import Catalogue
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import LoadResult
from domains.processing.jobs.kinds import HostLoadWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.memory.host_loads import HostLoad, HostLoads
from domains.progress import Progressed, Stage, StageStarted, Unit


class HostLoadRunner:
    """Carries out loads into the RAM tier."""

    def __init__(self, catalogue: Catalogue, loads: HostLoads) -> None:
        self._catalogue = catalogue
        self._loads = loads

    async def run(self, work: HostLoadWork, task: FrontTask) -> Done | Halted:
        """Load until the end or a request to stop, which keeps nothing."""
        options = task.job.options
        ask = HostLoad(
            stay=work.stay,
            job_id=task.job.id,
            session_id=options.session_id,
            reservation_id=options.reservation_id,
        )

        def tell(done: int, total: int) -> None:
            task.tell(Progressed(stage=Stage.LOADING, completed=done, total=total, unit=Unit.BYTES))

        async def keep_on() -> bool:
            return not task.is_stopping()

        begin = time.monotonic()
        task.tell(StageStarted(stage=Stage.LOADING))
        loaded = await self._loads.load(self._catalogue.get(work.model_id), ask, tell, keep_on)
        if loaded is None:
            return Halted()
        result = LoadResult(loaded=loaded[0], reused=loaded[1])
        return Done.in_one_stage(result, Stage.LOADING, time.monotonic() - begin)
