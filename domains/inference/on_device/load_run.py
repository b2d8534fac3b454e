"""The first stage of every run: its model comes onto the device. A run may end with that."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from structlog.contextvars import bound_contextvars

from domains.inference.on_device.families.family import Family
from domains.inference.on_device.meter import Meter
from domains.inference.on_device.model_load import ModelLoad
from domains.inference.on_device.resources import Resources
from domains.inference.outcome import CheckpointReady, ModelLoaded, ModelPlacing, Report
from domains.model.execution import AS_USUAL, BY_COMPONENT, Execution, lower_precision
from domains.model.loaded import LoadedComponent
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, usual_on
from domains.progress import Progressed, Stage, StageStarted, Unit
from domains.stop import Stop, stronger

_REPORT_S = 0.1
"""Minimum time between two reports of loading progress."""
_LIFE_S = 5.0
"""Time after which `show_life` repeats the newest progress; far below the shortest gap that counts as silence."""


class LoadRun:
    """A run that is over when its model is loaded."""

    _loads_only = True

    def __init__(
        self,
        job_id: str,
        model: Model,
        resources: Resources,
        tell: Callable[[Report], None],
        execution: Execution = AS_USUAL,
        others: Sequence[Model] = (),
    ) -> None:
        """`others`: models that the run needs beside `model`."""
        self.id = job_id
        self.model = model
        self._models = (model, *others)
        self.meter = Meter()
        self.stage = Stage.QUEUED
        self.stop: Stop | None = None
        """The first request to stop; None: there is none."""
        self.stop_asked_at = 0.0
        """Time of that request on `time.perf_counter`."""
        self._resources = resources
        self._execution = execution
        self._ways: dict[str, Execution] = {}
        """How models that the run gave back are loaded again, by id. Of the others, as `_execution` says."""
        self._tell = tell
        self._load: ModelLoad | None = None
        self._there: list[tuple[OnDeviceModel, Family]] = []
        """Of the run's models, those that it can compute with."""
        self._coming: list[ModelLoad] = []
        """The loads of those whose values are still on their way."""
        self._reported_s = 0.0
        self._newest: Progressed | None = None
        """Progress of the present stage. None: there is none."""
        self._newest_s = 0.0

    @property
    def told_stage(self) -> Stage:
        """The stage as watchers see it."""
        return self.stage

    def ask_to_stop(self, stop: Stop) -> None:
        """Ask the run to stop. The strongest request counts; of two of one kind, the first."""
        if stronger(self.stop, stop) is stop:
            self.stop, self.stop_asked_at = stop, time.perf_counter()

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self._resources.device

    @property
    def has_model(self) -> bool:
        """Whether all of the run's models are on the device."""
        return len(self._there) == len(self._models)

    @property
    def next_model(self) -> Model:
        """The model to load next, or the last one."""
        return self._models[min(len(self._there), len(self._models) - 1)]

    def uses(self, model_id: str) -> bool:
        """Whether a model is one of the run's."""
        return any(model.id == model_id for model in self._models)

    def needs(self, model_id: str) -> bool:
        """Whether the run waits for a load of a model that has begun, or computes with the model."""
        there = (loaded.model.id for loaded, _ in self._there)
        return model_id in there or (self._load is not None and self._load.model.id == model_id)

    @property
    def loaded(self) -> OnDeviceModel:
        """The model on the device that computes now."""
        return self._brought(self._model_index)[0]

    @property
    def family(self) -> Family:
        """The family's view of the model that computes now."""
        return self._brought(self._model_index)[1]

    @property
    def _model_index(self) -> int:
        """Place of the model that computes now."""
        return 0

    def _brought(self, index: int) -> tuple[OnDeviceModel, Family]:
        if index >= len(self._there):
            raise RuntimeError(f"job {self.id} has no model while {self.stage}")
        return self._there[index]

    @property
    def ready(self) -> bool:
        """Whether a unit can be enqueued now."""
        return self._load is None or self._load.ready

    @property
    def done(self) -> bool:
        """Whether the run has nothing left to do."""
        return self.has_model

    @property
    def pausable(self) -> bool:
        """Whether a pause can take effect now."""
        return True

    def keep(self) -> CheckpointReady | None:
        """The progress to continue from. None: a load begins again."""
        return None

    def bring_model(self, *, alone: bool) -> None:
        """Load one piece of a model, unless it is there. Raises as `domains.model.on_device.loading`."""
        load = self._load = self._load or self._resources.models.bring(
            self.id, self.next_model, self._way, named=self._loads_only
        )
        if self._waits_for(load):
            if self.stage is Stage.QUEUED:
                self._enter(Stage.LOADING)
            with bound_contextvars(job_id=self.id):
                # No other job's work may wait for the copies.
                load.advance(self.id, alone=alone, early=alone and not self._loads_only)
            self._tell_placed(load)
        if load.there is not None and not self._waits_for(load):
            self._load = None
            self._there.append(load.there)
            self._coming.append(load)
            self.settle()

    def _waits_for(self, load: ModelLoad) -> bool:
        """Whether the run needs more of a load before it goes on: one that computes needs the model, one that only loads
        the end of the load."""
        return not load.settled if self._loads_only else load.there is None

    def settle(self) -> bool:
        """Go on with the loads of models whose values are on their way; whether all are there. Until then nothing that was
        computed may be told. Raises as `domains.model.on_device.loading`."""
        while self._coming:
            load = self._coming[0]
            if not load.settle() or load.there is None:
                return False
            self._coming.remove(load)
            self._resources.models.leave(self.id, load)
            self._tell(ModelLoaded(loaded=load.there[0].value(self._resources.device_id)))
        return True

    def settle_all(self) -> None:
        """Wait until all models are there. Raises as `settle`."""
        while not self.settle():
            self._coming[0].wait()

    @property
    def lower_precision(self) -> str:
        """The precision in which the model could be loaded instead. Empty: there is none, or nothing is to be loaded."""
        if self.has_model:
            return ""
        return lower_precision(self._way, usual_on(self.device))

    @property
    def _way(self) -> Execution:
        """How the next model is loaded."""
        return self._ways.get(self.next_model.id, self._execution)

    @property
    def could_offload(self) -> bool:
        """Whether more of the model to load could wait in host memory."""
        return not self.has_model and self._way.offload in ("", BY_COMPONENT)

    @property
    def offloaded(self) -> Execution:
        """The next way to load the model with more of it in host memory. Only after the load that has failed is closed."""
        return self._resources.offloaded(self._way)

    def load_again(self, execution: Execution) -> None:
        """Begin the load again in another way, which holds for later models, too."""
        self._ways.pop(self.next_model.id, None)
        self._execution = execution
        self._leave_load()

    @property
    def executions(self) -> Mapping[str, Execution]:
        """How those of the run's models that are on the device were loaded, by id."""
        return {loaded.model.id: loaded.execution for loaded, _ in self._there}

    def load_as(self, ways: Mapping[str, Execution]) -> None:
        """Load these models (by id) in these ways from now on."""
        self._ways.update(ways)

    def begin_again(self) -> None:
        """Give all models back, to load them again. Waits for those on their way. Raises as `settle`."""
        self.settle_all()
        self._there = []
        self._leave_load()
        self.stage = Stage.QUEUED

    def _leave_load(self) -> None:
        load, self._load = self._load, None
        if load is not None:
            self._resources.models.leave(self.id, load)

    def poll(self) -> None:
        """Report what has ended."""

    def wait_for_device(self) -> bool:
        """Wait for the oldest unit in flight, or at least for a while; False if there is none."""
        if self._load is not None:
            self._load.wait()
        return self._load is not None

    def waiting_for(self) -> list[Future[Any]]:
        """Futures of work in other threads that the run waits for."""
        return []

    def release(self) -> None:
        """Free everything that no other run needs. Reports nothing more."""
        coming, self._coming, self._there = self._coming, [], []
        for load in coming:
            self._resources.models.leave(self.id, load)
        self._leave_load()

    def held_bytes(self) -> int:
        """Bytes on the device that are freed if the run ends now."""
        return self._load.size_bytes if self._load is not None and self._load.users == {self.id} else 0

    def show_life(self) -> None:
        """Repeat the newest progress, if it is old: a sign of life inside a long unit of work."""
        now = time.monotonic()
        if self._newest is not None and now - self._newest_s >= _LIFE_S:
            self._newest_s = now
            self._tell(self._newest)

    def _tell_placed(self, load: ModelLoad) -> None:
        now, placed = time.monotonic(), load.placed
        if now - self._reported_s >= _REPORT_S or (placed.total and placed.completed == placed.total):
            self._reported_s = now
            self._progress(Stage.LOADING, placed.completed, placed.total, Unit.BYTES)
            self._tell(ModelPlacing(model_id=load.model.id, components=_so_far(load)))

    def _enter(self, stage: Stage) -> None:
        self.stage, self._newest = stage, None
        self.meter.enter(stage)
        self._tell(StageStarted(stage=stage))

    def _progress(self, stage: Stage, completed: int, total: int, unit: Unit) -> None:
        self._tell(self._note(stage, completed, total, unit))

    def _note(self, stage: Stage, completed: int, total: int, unit: Unit) -> Progressed:
        """Set the progress that `show_life` repeats."""
        self._newest, self._newest_s = (
            Progressed(stage=stage, completed=completed, total=total, unit=unit),
            time.monotonic(),
        )
        return self._newest


def _so_far(load: ModelLoad) -> tuple[LoadedComponent, ...]:
    return tuple(
        LoadedComponent(id=part, bytes=size, precision=load.precision_of(part), quantization=load.quantization_of(part))
        for part, size in load.placed.parts.items()
    )
