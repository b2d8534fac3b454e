"""Loads the models of a worker when an order needs them, with the time of loading and the job that waited."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from domains.inference.on_device import OnDeviceModel, StepLoop
from domains.inference.outcome import RunFailed, RunFinished, RunStopped
from domains.model.loaded import LoadedComponent, LoadedModel, loaded_id
from domains.model.model import Model
from domains.processing.workers.worker import ModelLoaded, ModelUnloaded, Report
from domains.progress import Progressed, Stage, StageStarted, StageTiming, Unit

_REPORT_S = 0.1
"""Minimum time between two reports of loading progress."""


class ModelLoads:
    """Used from the thread of the order loop."""

    def __init__(self, steps: StepLoop, device_id: Callable[[], str], folder_of: Callable[[Model], Path]) -> None:
        """`folder_of`: where a model's files are on this machine. An order names a model by its id and its hash too."""
        self._steps = steps
        self._device_id = device_id
        self._folder_of = folder_of
        self._loaded_at: dict[str, float] = {}
        """Unix times by model."""
        self._load_s: dict[str, float] = {}
        """Time of loading by the job that loaded its model."""

    def bring(
        self,
        model: Model,
        send: Callable[[Report], None],
        hint: Callable[[Report], None],
        cancelled: Callable[[], bool],
        *,
        job_id: str = "",
    ) -> tuple[OnDeviceModel, float]:
        """Load the model unless it is on the device; returns it and the time of loading in seconds.

        A model that is there with other weights is unloaded first, which is reported: the load may fail.
        `hint` sends reports that may be dropped. `job_id`: the job whose receipt includes the loading (`on_receipt`).
        Raises as `StepLoop.load`.
        """
        begin = time.monotonic()
        if self._steps.outdated(model):
            send(ModelUnloaded(model_id=model.id, freed_bytes=self.unload(model.id)))
        was_there = model.id in self._loaded_at
        if not was_there:
            send(StageStarted(stage=Stage.LOADING))
        reported_s = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal reported_s
            now = time.monotonic()
            if now - reported_s >= _REPORT_S or done == total:
                reported_s = now
                hint(Progressed(stage=Stage.LOADING, completed=done, total=total, unit=Unit.BYTES))

        here = msgspec.structs.replace(model, folder=str(self._folder_of(model)))
        loaded = self._steps.load(here, progress=progress, cancelled=cancelled)
        self._loaded_at.setdefault(model.id, time.time())
        send(ModelLoaded(loaded=self._value_of(loaded)))
        load_s = time.monotonic() - begin
        if job_id and not was_there:
            self._load_s[job_id] = load_s
        return loaded, load_s

    def unload(self, model_id: str) -> int | None:
        """Unload a model; returns the bytes freed. Raises as `StepLoop.unload`."""
        freed = self._steps.unload(model_id)
        self._loaded_at.pop(model_id, None)
        return freed

    def forget_gone(self) -> None:
        """Forget models that another order has unloaded."""
        there = self._steps.model_bytes()
        self._loaded_at = {model_id: at for model_id, at in self._loaded_at.items() if model_id in there}

    def on_receipt(
        self, job_id: str, last: RunFinished | RunFailed | RunStopped
    ) -> RunFinished | RunFailed | RunStopped:
        """The last report of a job, with the loading in its receipt if the job loaded its model."""
        load_s = self._load_s.pop(job_id, None)
        if load_s is None:
            return last
        timing = StageTiming(stage=Stage.LOADING, wall_s=load_s)
        receipt = msgspec.structs.replace(last.receipt, timings=(timing, *last.receipt.timings))
        return msgspec.structs.replace(last, receipt=receipt)

    def _value_of(self, loaded: OnDeviceModel) -> LoadedModel:
        sizes = sorted(loaded.bytes_per_component.items(), key=lambda item: -item[1])
        return LoadedModel(
            id=loaded_id(loaded.model.id, self._device_id()),
            model_id=loaded.model.id,
            device_id=self._device_id(),
            components=tuple(
                LoadedComponent(id=name, bytes=size, precision=loaded.precision_of(name)) for name, size in sizes
            ),
            load_time_s=self._loaded_at[loaded.model.id],
            last_use_time_s=time.time(),
            model_sha256=loaded.model.sha256,
        )
