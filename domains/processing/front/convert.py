"""A conversion of a model: a process of its own writes it, the front process makes it known."""

import asyncio
import time
from pathlib import Path

from domains.model.catalogue import Catalogue
from domains.model.conversion import Conversion, ConversionOrder, ConversionReport
from domains.model.conversion_check import layout_after
from domains.model.convert_model import convert_model
from domains.model.model import Model, ModelLayout
from domains.model.publish import discard, part_of, publish
from domains.model.register import Registration, Registrations
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import ConversionResult
from domains.processing.jobs.kinds import ConvertWork
from domains.processing.jobs.outcome import Done, Halted
from domains.progress import Progressed, Stage, StageStarted, Unit


class ConvertRunner:
    """Carries out conversions."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._registrations = Registrations(catalogue)

    async def run(self, work: ConvertWork, task: FrontTask) -> Done | Halted:
        """Convert until the end or a request to stop, which leaves no files."""
        begin, asked = time.monotonic(), work.asked
        task.tell(StageStarted(stage=Stage.CONVERTING))
        target = await self._catalogue.destination(asked)
        source = self._catalogue.get(asked.model_id)
        # The same name in each attempt, so that one that was killed leaves nothing for ever.
        part = part_of(target, task.job.id)
        await asyncio.to_thread(discard, part)
        order = ConversionOrder(
            model=source,
            layout=layout_after(asked, source),
            precision=asked.precision,
            keep=asked.keep,
            part=str(part),
        )

        def tell(done: int, total: int) -> None:
            task.tell(Progressed(stage=Stage.CONVERTING, completed=done, total=total, unit=Unit.BYTES))

        try:
            written = await task.unless_stopped(convert_model(order, tell))
            if written is None:
                return Halted()
            await asyncio.to_thread(publish, part, target)
        finally:
            await asyncio.shield(asyncio.to_thread(discard, part))
        model = await self._known(asked, target, order.layout)
        seconds = time.monotonic() - begin
        report = ConversionReport(model=model, source_model_id=source.id, written=written, duration_s=seconds)
        return Done.in_one_stage(ConversionResult(report=report), Stage.CONVERTING, seconds)

    async def _known(self, asked: Conversion, target: Path, layout: ModelLayout) -> Model:
        """The result as a model of the catalogue, with its hashes. If it cannot be one, its files go."""
        try:
            registration = Registration(model_id=asked.new_model_id, path=str(target))
            known = (await self._registrations.register(registration)).model
        except BaseException:
            await asyncio.shield(asyncio.to_thread(discard, target))
            raise
        if layout is ModelLayout.DIFFUSERS:
            await self._catalogue.rescan(lambda report: None, lambda: False, [str(target)])
        return self._catalogue.get(known.id)
