"""Forecasts what a generation costs: where it would run, its memory, its time, and what would be unloaded for it."""

from collections.abc import Sequence

import msgspec

from domains.inference.fallback import Rung
from domains.inference.generation import ResolvedGeneration
from domains.model.catalogue import Catalogue
from domains.model.execution import AS_USUAL, by_layer, in_turns
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.jobs.job import JobOptions
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue
from domains.processing.memory.estimates import Estimate, Estimates, Shape, shape_of
from domains.processing.memory.run_times import RunForecast, RunTimes


class GenerationForecast(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a generation on one device."""

    estimate: Estimate
    """What the load of the model and its use cost."""
    run: RunForecast
    peak_bytes: int | None
    """Highest allocation on the device, weights of all models included. None: not measured yet, or not measurable."""
    later_bytes: tuple[tuple[str, int], ...] = ()
    """The models of later passes with the bytes that their loads add. 0: it is there."""
    starts_at_once: bool
    """Whether the device has room for it now and nothing waits before it."""


class GenerationPlans:
    """Makes the forecasts, with the code that admits jobs and estimates models."""

    def __init__(
        self,
        estimates: Estimates,
        runs: RunTimes,
        catalogue: Catalogue,
        loaded: LoadedModels,
        lanes: Lanes,
        queue: JobQueue,
    ) -> None:
        self._estimates = estimates
        self._runs = runs
        self._catalogue = catalogue
        self._loaded = loaded
        self._lanes = lanes
        self._queue = queue

    async def of(self, resolved: ResolvedGeneration, options: JobOptions) -> GenerationForecast | None:
        """The forecast for the device that the dispatcher would try first, of those whose memory suffices. None: no device
        that may run the job takes work."""
        shape = shape_of(resolved)
        model = self._catalogue.get(resolved.runs_as)
        found = await self._estimates.of(model, AS_USUAL, options.device_ids, shape, allow_cpu=options.allow_cpu)
        if not found:
            return None
        best = next((one for one in found if not one.shortfall_bytes), found[0])
        if best.shortfall_bytes and options.fallback.permits(Rung.OFFLOAD) and options.fallback.max_attempts:
            best = await self._offloaded(model, options, shape, found) or best
        await self._estimates.read_headers(resolved)
        return GenerationForecast(
            estimate=best,
            run=self._runs.forecast(best.device.id, resolved),
            peak_bytes=self._peak(best, resolved),
            later_bytes=self._estimates.later_bytes(resolved, best.device),
            starts_at_once=self._free(best.device.id),
        )

    async def _offloaded(
        self, model: Model, options: JobOptions, shape: Shape, found: Sequence[Estimate]
    ) -> Estimate | None:
        """The forecast for the first device that has room for the model with parts in host memory. None: none has."""
        executions = [in_turns(AS_USUAL)]
        executions += [by_layer(AS_USUAL, one.available_bytes) for one in found if one.available_bytes is not None]
        devices = [options.device_ids, *([one.device.id] for one in found if one.available_bytes is not None)]
        for execution, device_ids in zip(executions, devices, strict=True):
            able = await self._estimates.of(model, execution, device_ids, shape, allow_cpu=options.allow_cpu)
            if fits := next((one for one in able if not one.shortfall_bytes), None):
                return fits
        return None

    def _peak(self, estimate: Estimate, resolved: ResolvedGeneration) -> int | None:
        if estimate.activation_bytes is None:
            return None
        there = sum(one.resident_bytes for one in self._loaded.list() if one.device_id == estimate.device.id)
        gone = sum(size for _, size in estimate.evictions)
        guides = self._estimates.guides_bytes(resolved, estimate.device)
        # The networks that read its pictures have left the device before the steps compute.
        readers = self._estimates.readers_bytes(resolved, estimate.device)
        return there - gone + estimate.weights_bytes + guides + max(estimate.activation_bytes, readers)

    def _free(self, device_id: str) -> bool:
        lane = self._lanes.of(device_id)
        if lane is None or not lane.room:
            return False
        return not self._queue.count(lambda placement: self._lanes.fits(lane, placement))
