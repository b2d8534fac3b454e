"""The models of a worker: brought onto the device when an order needs them; since when they are there, and who waited."""

import time
from collections.abc import Callable

import msgspec

from domains.inference.on_device import OnDeviceModel, StepLoop
from domains.inference.outcome import Failed, Finished, Stopped
from domains.model.loaded import LoadedComponent, LoadedModel, loaded_id
from domains.model.model import Model
from domains.processing.worker import ModelLoaded, Report
from domains.progress import Progressed, Stage, StageStarted, StageTiming, Unit

_REPORT_S = 0.1
"""Loading tells of its bytes at most this often."""


class ModelLoads:
    """Used from the worker's one thread."""

    def __init__(self, steps: StepLoop, device_id: Callable[[], str]) -> None:
        self._steps = steps
        self._device_id = device_id
        self._loaded_at: dict[str, float] = {}
        """By model."""
        self._load_s: dict[str, float] = {}
        """By job: how long loading its model took."""

    def bring(
        self,
        model: Model,
        tell: Callable[[Report], None],
        hint: Callable[[Report], None],
        cancelled: Callable[[], bool],
        *,
        job_id: str = "",
    ) -> tuple[OnDeviceModel, float]:
        """The model on the device, loading it if it is not there, and how long that took.

        `hint` takes what the next one makes worthless. `job_id`: whose receipt is to tell of it (`on_receipt`). Raises as
        `StepLoop.load`.
        """
        begin = time.monotonic()
        was_there = model.id in self._loaded_at
        if not was_there:
            tell(StageStarted(stage=Stage.LOADING))
        told_s = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told_s
            now = time.monotonic()
            if now - told_s >= _REPORT_S or done == total:
                told_s = now
                hint(Progressed(stage=Stage.LOADING, completed=done, total=total, unit=Unit.BYTES))

        loaded = self._steps.load(model, progress=progress, cancelled=cancelled)
        self._loaded_at.setdefault(model.id, time.time())
        tell(ModelLoaded(loaded=self._value_of(loaded)))
        load_s = time.monotonic() - begin
        if job_id and not was_there:
            self._load_s[job_id] = load_s
        return loaded, load_s

    def unload(self, model_id: str) -> int | None:
        """The bytes given back. Raises as `StepLoop.unload`."""
        freed = self._steps.unload(model_id)
        self._loaded_at.pop(model_id, None)
        return freed

    def forget_gone(self) -> None:
        """Others have emptied the device: what is not there any more was not loaded."""
        there = self._steps.model_bytes()
        self._loaded_at = {model_id: at for model_id, at in self._loaded_at.items() if model_id in there}

    def on_receipt(self, job_id: str, last: Finished | Failed | Stopped) -> Finished | Failed | Stopped:
        """The job that loaded its model paid for it: its receipt says so."""
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
        )
