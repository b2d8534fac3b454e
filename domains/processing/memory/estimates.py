"""Forecasts what a load and its use cost on each device that could take it, with what would be evicted for it."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from domains.amounts import bytes_told
from domains.device.device import Device
from domains.device.devices import Devices
from domains.errors import ErrorReason
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_prompts import TIMED
from domains.inference.kept_readings import kept_readings
from domains.inference.pass_plan import detectors_of, largest_batch, models_of, upscaler_of
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.model.device_fit import lacked
from domains.model.execution import AS_FLOAT32, AS_USUAL, Execution
from domains.model.finding import ModelFinding
from domains.model.footprints import Footprints, PartFootprint, added_bytes
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.placement import Placement
from domains.processing.memory.care import pool_of

_REMEMBERED = 16
"""Runs per model, device and size."""
_ALL = 2**62
_ABOVE = 1.25
"""Smallest ratio of a peak to the bytes of the networks that read pictures; a lower peak may be that of these networks."""
MAX_BATCH = 64


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Size and number of the pictures that are made at once."""

    width_px: int
    height_px: int
    images: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of all pictures."""
        return self.width_px * self.height_px * self.images


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a load and its use cost on one device. None: not known."""

    device: Device
    parts: tuple[PartFootprint, ...]
    activation_bytes: int | None
    free_bytes: int | None
    """Bytes that are free now."""
    evictable_bytes: int
    """Bytes that unloading the unused models would free."""
    evictions: tuple[tuple[str, int], ...]
    """Loaded models that would be unloaded, in this order, with their bytes."""
    load_s: float | None
    step_s: float | None
    sample_count: int
    execution: Execution = AS_USUAL
    """How the model shall compute."""
    unsupported: tuple[str, ...] = ()
    """What is asked for and the device does not have, for people."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights that are on the device at once, beyond those that are there."""
        return added_bytes(self.parts, self.execution)

    @property
    def available_bytes(self) -> int | None:
        """Bytes that the load can have, evictions included."""
        return None if self.free_bytes is None else max(0, self.free_bytes) + self.evictable_bytes

    @property
    def shortfall_bytes(self) -> int | None:
        """Bytes that are still missing after all evictions. 0: the load fits."""
        if self.available_bytes is None:
            return None
        return max(0, self.weights_bytes + (self.activation_bytes or 0) - self.available_bytes)

    def findings(self) -> list[ModelFinding]:
        """The reasons against the load."""
        told = list[ModelFinding]()
        if self.unsupported:
            text = f"{self.device.id} lacks {' and '.join(self.unsupported)}"
            told.append(ModelFinding(reason=ErrorReason.NOT_SUPPORTED_ON_DEVICE, message=text))
        if self.shortfall_bytes:
            text = (
                f"{self.device.id} lacks {bytes_told(self.shortfall_bytes)}, although all unused models were unloaded"
            )
            on_host = self.device.id == "cpu"
            reason = ErrorReason.HOST_OUT_OF_MEMORY if on_host else ErrorReason.DEVICE_OUT_OF_MEMORY
            told.append(ModelFinding(reason=reason, message=text))
        return told

    def max_batch(self, shape: Shape) -> int | None:
        """How many pictures of the size fit at once."""
        if not self.activation_bytes or self.available_bytes is None:
            return None
        room = self.available_bytes - self.weights_bytes
        return max(0, min(MAX_BATCH, room * shape.images // self.activation_bytes))


class Estimates:
    """Makes the forecasts. Learns from each job that succeeded."""

    def __init__(
        self,
        footprints: Footprints,
        jobs: Jobs,
        loaded: LoadedModels,
        devices: Devices,
        lanes: Lanes,
        pools: Pools,
        reclaiming: Reclaiming,
        steps: StepTimes,
    ) -> None:
        self._footprints = footprints
        self._loaded = loaded
        self._devices = devices
        self._lanes = lanes
        self._pools = pools
        self._reclaiming = reclaiming
        self._steps = steps
        self._runs: defaultdict[tuple[str, str, Ways], dict[Shape, deque[int | None]]] = defaultdict(dict)
        """By model, device and ways to compute, which change the bytes as tiles do: bytes that runs of a size held on the
        device beside the loaded models. None: they cannot be measured there."""
        jobs.listeners.append(self._learn)

    async def of(
        self, model: Model, execution: Execution, device_ids: Sequence[str], shape: Shape, *, allow_cpu: bool
    ) -> list[Estimate]:
        """One forecast for each device that could take the load, in the order in which the load would try them.

        Raises DEVICE_NOT_FOUND.
        """
        named = frozenset(self._devices.get(name).device.id for name in device_ids)
        placement = Placement(front=None, device_ids=named, allow_cpu=allow_cpu)
        lanes = [lane for lane in self._lanes.best_first() if lane.worker and self._lanes.fits(lane, placement)]
        devices = [self._devices.get(lane.device_id).device for lane in lanes if self._lanes.takes_work(lane)]
        return [await self._on(model, execution, device, shape) for device in devices]

    async def _on(self, model: Model, execution: Execution, device: Device, shape: Shape) -> Estimate:
        if execution == AS_USUAL:
            execution = self._loaded.comes_back_as(model.id, device.id)
        way = self._loaded_way(model.id, device.id)
        if not execution.quantization:
            execution = msgspec.structs.replace(execution, quantization=way.quantization)
        if not execution.offload:
            execution = msgspec.structs.replace(
                execution, offload=way.offload, offload_budget_bytes=way.offload_budget_bytes
            )
        if execution.reads_headers:
            await self._footprints.read_headers([model.id])
        if execution.ways == AS_THE_SERVER_CHOOSES:
            execution = msgspec.structs.replace(execution, ways=way.ways)
        parts = tuple(self._footprints.parts(model, device, execution))
        weights = added_bytes(parts, execution)
        activation, runs = self._activation(model.id, device.id, execution.ways, shape)
        step = self._steps.usual(device.id, model, shape.width_px, shape.height_px, shape.images)
        free = await self._free(pool_of(device.id))
        own = {one.id for one in self._loaded.list() if one.device_id == device.id and one.model_id == model.id}
        evictable = [one for one in self._victims(device.id, _ALL) if one[0] not in own]
        missing = 0 if free is None else weights + (activation or 0) - free
        return Estimate(
            device=device,
            execution=execution,
            parts=parts,
            activation_bytes=activation,
            free_bytes=free,
            evictable_bytes=sum(size for _, size in evictable),
            evictions=tuple(one for one in self._victims(device.id, missing) if one[0] not in own),
            load_s=self._footprints.load_s(model, device.id, weights) if weights else 0.0,
            step_s=None if step is None else step.seconds,
            sample_count=self._footprints.load_count(model, device.id) + runs,
            unsupported=lacked(execution, device),
        )

    def _loaded_way(self, model_id: str, device_id: str) -> Execution:
        """How the model computes if it is on the device: what a job does not name is as it is there."""
        there = (one for one in self._loaded.list() if (one.device_id, one.model_id) == (device_id, model_id))
        return next((one.way for one in there), AS_USUAL)

    async def read_headers(self, resolved: ResolvedGeneration) -> None:
        """Read what `guides_bytes` needs of models' headers, beside the event loop."""
        await self._footprints.read_headers(one.model_id for some in kept_readings(resolved) for one in some)

    def guides_bytes(self, resolved: ResolvedGeneration, device: Device) -> int:
        """Bytes of the models and networks that a generation has on a device in its steps beside its base, each once."""
        named = {one.model_id for one in resolved.controls if not one.t2i_adapter} | {*models_of(resolved)[1:]}
        named |= {one.model_id for one in resolved.image_prompts if resolved.family in TIMED}
        of_pixels = [name for name in (upscaler_of(resolved), *detectors_of(resolved)) if name]
        beside = self._footprints.named_bytes(of_pixels, device, AS_FLOAT32)
        return self._footprints.named_bytes(named, device) + beside + self.readings_bytes(resolved, device)

    def readings_bytes(self, resolved: ResolvedGeneration, device: Device) -> int:
        """Bytes of what ControlNets keep of earlier prompts, where the prompts of steps change: the most in a pass."""
        passes = [
            sum(
                self._footprints.reading_bytes(one.model_id, device, one.tokens, one.prompts, pooled=one.pooled)
                + one.map_bytes
                for one in some
            )
            for some in kept_readings(resolved)
        ]
        return max(passes, default=0)

    def readers_bytes(self, resolved: ResolvedGeneration, device: Device) -> int:
        """Bytes of the networks that read its pictures before the first step, and then leave the device."""
        named = {one.model_id for one in resolved.controls if one.t2i_adapter}
        named |= {one.encoder_model_id for one in resolved.image_prompts}
        named |= {one.model_id for one in resolved.image_prompts if resolved.family not in TIMED}
        return self._footprints.named_bytes(named, device)

    def later_bytes(self, resolved: ResolvedGeneration, device: Device) -> tuple[tuple[str, int], ...]:
        """The models of later passes with the bytes that their loads add on a device."""
        return tuple((name, self._footprints.named_bytes([name], device)) for name in models_of(resolved)[1:])

    def load_s(self, model: Model, device_id: str, size_bytes: int) -> tuple[float | None, int]:
        """Seconds that a load of so many bytes takes, and the number of loads of the model that were measured there."""
        count = self._footprints.load_count(model, device_id)
        return self._footprints.load_s(model, device_id, size_bytes) if size_bytes else 0.0, count

    def activation_bytes(self, resolved: ResolvedGeneration, device_id: str) -> int | None:
        """See `company.Activations`."""
        ways = self._loaded_way(resolved.runs_as, device_id).ways
        return self._activation(resolved.runs_as, device_id, ways, shape_of(resolved))[0]

    async def _free(self, pool_id: str) -> int | None:
        if pool_id not in self._pools.ids():
            return None
        await self._pools.measure(pool_id)
        free = self._pools.room(pool_id).free_bytes
        return None if free is None else free - self._pools.claims.outstanding_bytes(pool_id)

    def _victims(self, device_id: str, need_bytes: int) -> list[tuple[str, int]]:
        pool_id = pool_of(device_id)
        known = need_bytes > 0 and pool_id in self._pools.ids()
        return self._reclaiming.victims(pool_id, need_bytes, 0.0) if known else []

    def _activation(self, model_id: str, device_id: str, ways: Ways, shape: Shape) -> tuple[int | None, int]:
        """Bytes beside the weights, and the number of runs that they rest on."""
        by_shape = self._runs.get((model_id, device_id, ways.taken))
        if not by_shape:
            return None, 0
        nearest = min(by_shape, key=lambda known: abs(known.pixels - shape.pixels))
        return _on_a_line(by_shape, shape.pixels), len(by_shape[nearest])

    def _learn(self, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED or not isinstance(job.work, GenerateWork) or job.receipt is None:
            return
        receipt, resolved = job.receipt.work, job.work.resolved
        lane = self._lanes.with_job(job.id)
        if not receipt.steps_executed or (lane is not None and job.id in lane.shared):
            # The peak of a device that jobs share is that of all of them.
            return
        there = [one for one in self._loaded.list() if one.device_id == job.device_id]
        if any(one.resident_bytes < one.size_bytes for one in there):
            return  # The peak lies in one of the turns; it is not known in which.
        weights = sum(one.size_bytes for one in there)
        # What `guides_bytes` counts left the device with the job, so that `there` lacks it.
        view = self._devices.find(job.device_id)
        weights += 0 if view is None else self.guides_bytes(resolved, view.device)
        readers = 0 if view is None else self.readers_bytes(resolved, view.device)
        peak = receipt.peak_device_bytes
        beside = None if peak is None else max(0, peak - weights)
        if readers and (beside is None or beside < readers * _ABOVE):
            # The peak may be that of the networks that read its pictures, not of the steps.
            return
        ways = self._loaded_way(resolved.runs_as, job.device_id).ways
        by_shape = self._runs[resolved.runs_as, job.device_id, ways.taken]
        by_shape.setdefault(shape_of(resolved), deque(maxlen=_REMEMBERED)).append(beside)


def shape_of(resolved: ResolvedGeneration) -> Shape:
    """The size that a generation needs memory for: that of its largest pass."""
    width_px, height_px, images = largest_batch(resolved)
    return Shape(width_px=width_px, height_px=height_px, images=images)


def _on_a_line(by_shape: Mapping[Shape, Iterable[int | None]], pixels: int) -> int | None:
    """Bytes beside the weights for so many pixels: on the line through the two nearest measured sizes, since a part of them
    is fixed; in proportion where one was measured. None: none was."""
    known: dict[int, int] = {}
    for shape, runs in by_shape.items():
        known[shape.pixels] = max([known.get(shape.pixels, -1), *(size for size in runs if size is not None)])
    measured = {size: most for size, most in known.items() if most >= 0}
    if not measured:
        return None
    near, *others = sorted(measured, key=lambda size: abs(size - pixels))
    slope = measured[near] / near
    if others and (rise := (measured[near] - measured[others[0]]) / (near - others[0])) >= 0:
        slope = rise
    return max(0, round(measured[near] + slope * (pixels - near)))
