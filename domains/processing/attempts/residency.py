"""What one attempt does to the list of loaded models: it waits for a load, uses a model, or replaces it."""

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.inference.outcome import ModelPlacing
from domains.model.loaded import LoadedModel, Stay, loaded_id
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.kinds import DeviceWork, LoadWork
from domains.processing.jobs.outcome import Broken, Done, Halted
from domains.processing.memory.model_use import loaded_models


class Residency:
    """Keeps the list up to date with the reports of one order."""

    def __init__(
        self, job_id: str, work: DeviceWork, models: LoadedModels, device_id: str, session_id: str = ""
    ) -> None:
        """`device_id`: the device that carries out the order."""
        self.model: LoadedModel | None = None
        """The model, once it is on the device."""
        self.reused = False
        """Whether it was there before the order."""
        self._there: list[str] = []
        """Ids of all models of the order that are on the device."""
        self._device_id = device_id
        self._job_id = job_id
        self._models = models
        self._session_id = session_id
        self._model_ids = loaded_models(work)
        self._stay = work.stay
        self._loads_only = isinstance(work, LoadWork)
        self._began = False
        self._failure: Failure | None = None

    def begin(self) -> None:
        """The order waits for a load."""
        self._began = True
        for model_id in self._model_ids:
            self._models.begin(model_id, self._device_id, self._job_id, self._session_id)

    def placing(self, report: ModelPlacing) -> None:
        """Some of the model is on the device."""
        self._models.progress(loaded_id(report.model_id, self._device_id), report.components)

    def loaded(self, model: LoadedModel) -> None:
        """The model is on the device."""
        kept = self._models.put(model, self._stay, job_id=self._job_id, session_id=self._session_id)
        self._there.append(kept.id)
        # The first one is the base.
        if self.model is None or model.model_id == self._model_ids[0]:
            self.reused = not self._began
            self.model = kept

    def unloaded(self, model_id: str) -> None:
        """The order replaces a model by a newer one, which keeps its pinning, and its keep-alive if the order names none."""
        replaced = self._models.remove(loaded_id(model_id, self._device_id), job_id=self._job_id)
        if replaced is not None:
            keep_alive_s = replaced.keep_alive_s if self._stay.keep_alive_s is None else self._stay.keep_alive_s
            self._stay = Stay(pinned=self._stay.pinned or replaced.pinned, keep_alive_s=keep_alive_s)

    def lost(self, why: str) -> None:
        """The worker has ended, so the load has failed."""
        facts = {"device_id": self._device_id}
        self._failure = Failure(reason=ErrorReason.WORKER_RESTARTING, message=why, facts=facts)

    def end(self, outcome: Done | Broken | Halted | None) -> None:
        """End the order's wait for a load, if it still waits, and its use of the model."""
        failure = outcome.failure if isinstance(outcome, Broken) else self._failure
        self._models.leave(self._job_id, failure)
        if self.model is not None and not self._loads_only:
            self._models.used(self._there)
