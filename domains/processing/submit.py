"""The way into the queue: everything that can stop a job from starting is found here, before it is stored."""

from domains.device.devices import Devices
from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, NotFound, Violation
from domains.inference.check import check
from domains.inference.generation import Generation
from domains.inference.resolve import resolve, usable
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.processing.job import GenerateWork, Job, JobOptions, LoadWork, ScanWork, Work
from domains.processing.job_queue import JobQueue
from domains.processing.jobs import Jobs

_ASSUMED_JOB_S = 5.0
"""What a refused caller is told to wait when no job has ended yet."""


class Submissions:
    """Checks, resolves and stores work."""

    def __init__(
        self, jobs: Jobs, queue: JobQueue, catalogue: Catalogue, loaded: LoadedModels, devices: Devices
    ) -> None:
        self.jobs = jobs
        self._queue = queue
        self._catalogue = catalogue
        self._loaded = loaded
        self._devices = devices
        self.draining = False

    def generate(
        self,
        asked: Generation,
        options: JobOptions,
        *,
        request_id: str = "",
        detached: bool = True,
        must_be_loaded: bool = False,
        validate_only: bool = False,
    ) -> Job:
        """Make pictures."""
        wrong = violations_of(asked)
        model = None
        try:
            model = self._catalogue.get(asked.model_id) if asked.model_id else self._catalogue.default()
        except NotFound:
            # What is wrong with the request itself is told first, and all of it at once.
            if not wrong:
                raise
        if wrong or model is None:
            raise InvalidRequest(wrong)
        resolved = resolve(asked, model)
        if must_be_loaded and not any(one.model_id == model.id for one in self._loaded.list()):
            message = f"model {model.id} is loaded on no device, and require_loaded_model is set; call LoadModel first"
            raise FailedPrecondition(message, ErrorReason.MODEL_NOT_LOADED, model_id=model.id)
        return self._submit(GenerateWork(asked=asked, resolved=resolved), options, request_id, detached, validate_only)

    def load(
        self, model_id: str, options: JobOptions, *, request_id: str = "", detached: bool = True, pin: bool = False
    ) -> Job:
        """Bring a model onto a device."""
        model = self._catalogue.get(model_id) if model_id else self._catalogue.default()
        usable(model)
        return self._submit(LoadWork(model_id=model.id, pin=pin), options, request_id, detached)

    def scan(self, roots: tuple[str, ...], options: JobOptions, *, request_id: str = "", detached: bool = True) -> Job:
        """Look for models."""
        self._catalogue.beginnings(roots)
        return self._submit(ScanWork(roots=roots), options, request_id, detached)

    def _submit(
        self, work: Work, options: JobOptions, request_id: str, detached: bool, validate_only: bool = False
    ) -> Job:
        if self.draining:
            raise FailedPrecondition("the server is shutting down and takes no new work", ErrorReason.DRAINING)
        for name in options.device_ids:
            self._devices.check(name)
        if not (request_id and self.jobs.knows_request(request_id)):
            self._queue.check_room(_ASSUMED_JOB_S)
        if validate_only:
            return self.jobs.draft(work, options, detached=detached)
        job, _ = self.jobs.submit(work, options, request_id=request_id, detached=detached)
        return job


def violations_of(asked: Generation) -> tuple[Violation, ...]:
    """All that is wrong with it whatever the model; empty: nothing."""
    try:
        check(asked)
    except InvalidRequest as error:
        return error.violations
    return ()
