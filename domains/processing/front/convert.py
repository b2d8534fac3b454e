"""A conversion of a model: a process of its own writes it, the front process makes it known."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from domains.errors import DeviceOpsError
from domains.model.catalogue import Catalogue
from domains.model.conversion import Conversion, ConversionOrder, ConversionReport, Written
from domains.model.conversion_check import layout_after
from domains.model.convert_model import convert_model
from domains.model.model import Model, ModelLayout
from domains.model.publish import discard, part_of, publish
from domains.model.publish_note import finished, forget_note, take_back, write_note
from domains.model.register import Registration, Registrations
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import ConversionResult
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ConvertWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.jobs.state import JobState
from domains.progress import Progressed, Stage, StageStarted, Unit

_KIND = "convert_model"
_LOOKED = 100
"""Number of newest conversions that `recover` looks at: a crash leaves files of one that has just ended."""


class ConvertRunner:
    """Carries out conversions."""

    def __init__(self, catalogue: Catalogue, jobs: Jobs) -> None:
        self._catalogue = catalogue
        self._registrations = Registrations(catalogue)
        self._jobs = jobs
        jobs.listeners.append(self._changed)

    def recover(self) -> None:
        """Delete the files that a crash left beside the results of the newest conversions that had ended."""
        page, _ = self._jobs.page(JobFilter(kinds=(_KIND,)), None, _LOOKED)
        for listed in page:
            job = self._jobs.find(listed.id)
            if job is not None:
                self._changed(job)

    async def run(self, work: ConvertWork, task: FrontTask) -> Done | Halted:
        """Convert until the end or a request to stop, which leaves no files."""
        begin, asked = time.monotonic(), work.asked
        task.tell(StageStarted(stage=Stage.CONVERTING))
        place = self._catalogue.place_of(asked)
        written = await asyncio.to_thread(finished, place, task.job.id)
        source = self._catalogue.get(asked.model_id)
        layout = layout_after(asked, source)
        if written is None:
            written = await self._written(asked, source, layout, task)
        if written is None:
            return Halted()
        model = await self._known(asked, place, layout)
        seconds = time.monotonic() - begin
        report = ConversionReport(model=model, source_model_id=source.id, written=written, duration_s=seconds)
        return Done.in_one_stage(ConversionResult(report=report), Stage.CONVERTING, seconds)

    async def _written(self, asked: Conversion, source: Model, layout: ModelLayout, task: FrontTask) -> Written | None:
        """Write and publish the result. None: the task is to stop."""
        target = await self._catalogue.destination(asked)
        # The same name in each attempt, so that one that was killed leaves nothing for ever.
        part = part_of(target, task.job.id)
        await asyncio.to_thread(discard, part)
        order = ConversionOrder(model=source, layout=layout, precision=asked.precision, keep=asked.keep, part=str(part))

        def tell(done: int, total: int) -> None:
            task.tell(Progressed(stage=Stage.CONVERTING, completed=done, total=total, unit=Unit.BYTES))

        try:
            written = await task.unless_stopped(convert_model(order, tell))
            if written is not None:
                await asyncio.to_thread(write_note, target, task.job.id, written)
                await asyncio.to_thread(publish, part, target)
            return written
        finally:
            await asyncio.shield(asyncio.to_thread(discard, part))

    def _changed(self, job: Job) -> None:
        """After a conversion, delete its note; if it did not succeed, also the result that an attempt published."""
        if isinstance(job.work, ConvertWork) and job.state.ended:
            with suppress(DeviceOpsError, OSError):
                place = self._catalogue.place_of(job.work.asked)
                if job.state is not JobState.SUCCEEDED:
                    take_back(place, job.id)
                forget_note(place, job.id)

    async def _known(self, asked: Conversion, target: Path, layout: ModelLayout) -> Model:
        """The result as a model of the catalogue, with its hashes. If it cannot be one, its files are deleted."""
        try:
            registration = Registration(model_id=asked.new_model_id, path=str(target))
            known = (await self._registrations.register(registration)).model
        except BaseException:
            await asyncio.shield(asyncio.to_thread(discard, target))
            raise
        if layout is ModelLayout.DIFFUSERS:
            await self._catalogue.rescan(lambda report: None, lambda: False, [str(target)])
        return self._catalogue.get(known.id)
