"""Checks, resolves and stores work: each obstacle to a job's start is found before the job is stored."""

import asyncio
from collections.abc import Iterable

import msgspec

from domains.device.devices import Devices
from domains.draining import Draining
from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.inference.benchmark import benchmark_cases, in_benchmark
from domains.inference.checks.request import Checked
from domains.inference.generation import ResolvedGeneration
from domains.inference.resolution.request_files import NOTHING_READ, RequestFiles
from domains.inference.resolution.resolve import usable, whole
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer_request import TransferRequest, check_transfer
from domains.memory.pools.reservations import Reservations
from domains.model.benchmark import ModelBenchmark
from domains.model.catalogue import Catalogue
from domains.model.conversion import Conversion
from domains.model.kind import ModelKind
from domains.model.loaded_models import LoadedModels
from domains.model.validation import Validation
from domains.processing.branches import Branches
from domains.processing.devices.step_limit import StepLimit
from domains.processing.generation_resolver import GenerationResolver
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.jobs.callers import Callers
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs, new_job_id
from domains.processing.jobs.kinds import (
    BenchmarkWork,
    ConvertWork,
    HostLoadWork,
    LoadWork,
    ModelBenchmarkWork,
    ReproduceWork,
    ResetWork,
    ScanWork,
    TransferWork,
    ValidateWork,
    Work,
)
from domains.processing.lanes.queue import JobQueue
from domains.processing.places import Places
from domains.processing.sessions.sessions import Sessions
from domains.requests import NEW, Asked

_ASSUMED_JOB_S = 5.0
"""Assumed duration of a job for the retry delay of a refused caller, while no job has ended yet."""


class Submissions:
    """Checks, resolves and stores work."""

    def __init__(
        self,
        jobs: Jobs,
        queue: JobQueue,
        catalogue: Catalogue,
        loaded: LoadedModels,
        devices: Devices,
        blobs: BlobStore,
        reservations: Reservations,
        draining: Draining,
        step_limit: StepLimit,
        inputs: GenerationFiles,
        sessions: Sessions,
    ) -> None:
        self._blobs = blobs
        self.jobs = jobs
        self._queue = queue
        self._catalogue = catalogue
        self._loaded = loaded
        self._devices = devices
        self._places = Places(devices, reservations)
        self.callers = Callers()
        """Calls that follow a job."""
        self.draining = draining
        self._step_limit = step_limit
        self._inputs = inputs
        self._branches = Branches(jobs, blobs)
        self.generations = GenerationResolver(catalogue, loaded, self._places, step_limit, inputs)
        self.sessions = sessions

    async def submit_generation(
        self,
        given: Checked,
        options: JobOptions,
        asked: Asked = NEW,
        *,
        detached: bool = True,
        must_be_loaded: bool = False,
        validate_only: bool = False,
        continued: Job | None = None,
    ) -> Job:
        """`generate`, after the picture that the request starts from was decoded. The job owns the picture, and the
        checkpoint of `continued`, before it is stored, so that a crash leaves no job without them."""
        if continued is not None:
            given = self._branches.filled(given, continued)
        files, job_id = await self.generations.read(given), new_job_id()
        job: Job | None = None
        try:
            if not validate_only:
                await self._inputs.own(given.asked, files, job_id)
                if continued is not None:
                    self._branches.own(continued, job_id)
            job = self.generate(
                given,
                options,
                asked,
                detached=detached,
                must_be_loaded=must_be_loaded,
                validate_only=validate_only,
                files=files,
                job_id=job_id,
                continued=continued,
            )
            return job
        finally:
            if (files.owned or continued) and (job is None or job.id != job_id):
                self._inputs.pictures.disown(job_id)

    async def continue_job(
        self, continued: Job, options: JobOptions, asked: Asked = NEW, *, validate_only: bool = False
    ) -> Job:
        """Continue a job from its checkpoint, with the same work."""
        given = self._branches.same(continued)
        return await self.submit_generation(given, options, asked, validate_only=validate_only, continued=continued)

    def to_continue(self, job_id: str) -> Job:
        """See `Branches.find`."""
        return self._branches.find(job_id)

    def generate(
        self,
        given: Checked,
        options: JobOptions,
        asked: Asked = NEW,
        *,
        detached: bool = True,
        must_be_loaded: bool = False,
        validate_only: bool = False,
        files: RequestFiles = NOTHING_READ,
        job_id: str = "",
        continued: Job | None = None,
    ) -> Job:
        """Make pictures. `files`: what `GenerationResolver.read` has read. `job_id`: an id of `new_job_id`. `continued`: the
        job from whose checkpoint the new one continues."""
        work, options = self.generations.work(given, options, files, must_be_loaded=must_be_loaded)
        if continued is not None:
            self._branches.check(work, continued)
        return self._submit(work, options, asked, detached, validate_only, job_id, continued)

    def reproduce(
        self, work: ReproduceWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True, job_id: str
    ) -> Job:
        """Make a picture again. `job_id`: an id of `new_job_id`."""
        return self._submit(work, options, asked, detached, job_id=job_id)

    def release(self, job_id: str) -> None:
        """Release the files of a job that was not stored."""
        self._blobs.release(job_id)

    async def submit_load(
        self, work: LoadWork | HostLoadWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """`load`, after the files of models that lend components were hashed."""
        await asyncio.to_thread(self._catalogue.hash_sources, work.model_id)
        return self.load(work, options, asked, detached=detached)

    def load(
        self, work: LoadWork | HostLoadWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """Bring a model onto a device, or into the RAM tier. A work without a model means the default model."""
        model = self._catalogue.get(work.model_id) if work.model_id else self._catalogue.default()
        if model.kind is ModelKind.REFINER:
            whole(model)  # It is loaded for jobs that name it beside their model.
        else:
            usable(model)
        if isinstance(work, LoadWork):
            options = self._places.computing(work.execution, options)
        else:
            self._places.check_to_host(options)
        return self._submit(msgspec.structs.replace(work, model_id=model.id), options, asked, detached)

    def scan(self, work: ScanWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True) -> Job:
        """Look for models."""
        self._catalogue.beginnings(work.roots)
        return self._submit(work, options, asked, detached)

    def validate(self, given: Validation, options: JobOptions, asked: Asked = NEW, *, detached: bool = True) -> Job:
        """Check a model's files, and whether it fits a base and a device.

        Raises INVALID_FIELD for a component that the model does not have, MODEL_NOT_FOUND, DEVICE_NOT_FOUND.
        """
        model = self._catalogue.get(given.model_id)
        if given.base_model_id:
            self._catalogue.get(given.base_model_id)
        if given.device_id:
            given = msgspec.structs.replace(given, device_id=self._devices.get(given.device_id).device.id)
        known = {component.id for component in model.components}
        if unknown := [name for name in given.component_ids if name not in known]:
            text = f"model {model.id} has no component {excerpt(unknown[0])!r}; it has {', '.join(sorted(known)) or 'none'}"
            raise InvalidRequest([Violation(field="model_validation.component_ids", message=text)])
        return self._submit(ValidateWork(asked=given), options, asked, detached)

    async def convert(
        self, given: Conversion, options: JobOptions, asked: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """Write a model in another precision or layout."""
        if options.device_ids:
            message = "must be empty: no device takes part in a conversion"
            raise InvalidRequest([Violation(field="options.devices", message=message)])
        await self._catalogue.destination(given)
        return self._submit(ConvertWork(asked=given), options, asked, detached)

    def benchmark(self, work: BenchmarkWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True) -> Job:
        """Measure a device."""
        _names_its_device(options)
        view = self._devices.get(work.device_id)
        self._devices.there(view.device.id)
        if not view.settings.enabled:
            message = f"device {view.device.id} is disabled; enable it with UpdateDevice for {view.device.id}"
            raise FailedPrecondition(message, ErrorReason.DEVICE_DISABLED, device_id=view.device.id)
        work = msgspec.structs.replace(work, device_id=view.device.id)
        return self._submit(work, options, asked, detached)

    def benchmark_model(
        self, asked: ModelBenchmark, options: JobOptions, asked_by: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """Measure a model. Raises ILLEGAL_STATE if it is loaded on the only devices named, and loading is to be measured."""
        model = self._catalogue.get(asked.model_id) if asked.model_id else self._catalogue.default()
        asked = msgspec.structs.replace(asked, model_id=model.id)
        cases = tuple(benchmark_cases(asked, model))
        options = self._places.computing(asked.execution, options)
        self._check_steps(cases, options)
        loaded = {one.device_id for one in self._loaded.list() if one.model_id == model.id}
        named = {self.device_id(name) for name in options.device_ids}
        if asked.load_runs and named and named <= loaded:
            message = (
                f"model {model.id} is loaded on {', '.join(sorted(named))}, and loading is to be measured; unload it"
            )
            raise FailedPrecondition(message, model_id=model.id)
        return self._submit(ModelBenchmarkWork(asked=asked, cases=cases), options, asked_by, detached)

    def _check_steps(self, cases: Iterable[ResolvedGeneration], options: JobOptions) -> None:
        """Raise INVALID_FIELD for a case of a benchmark whose steps would block the device for too long."""
        for case in cases:
            try:
                self._step_limit.check(case, options)
            except InvalidRequest as error:
                raise InvalidRequest(map(in_benchmark, error.violations), error.reason, **error.facts) from None

    def reset(self, work: ResetWork, options: JobOptions, asked: Asked = NEW, *, detached: bool = True) -> Job:
        """Bring a device back to a clean state. Raises ILLEGAL_STATE while another reset of it is queued or runs."""
        _names_its_device(options)
        view = self._devices.get(work.device_id)
        work = msgspec.structs.replace(work, device_id=view.device.id)
        self._devices.there(view.device.id)
        for job in self.jobs.unfinished():
            if isinstance(job.work, ResetWork) and job.work.device_id == work.device_id:
                message = f"device {work.device_id} is being reset already, by job {job.id}; wait for it"
                raise FailedPrecondition(message, device_id=work.device_id, job_id=job.id)
        return self._submit(work, options, asked, detached)

    def transfer(
        self, request: TransferRequest, options: JobOptions, asked: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """Copy or move a blob's bytes."""
        _names_its_device(options)
        check_transfer(self._blobs, request)
        request = msgspec.structs.replace(request, reservation_id=options.reservation_id)
        return self._submit(TransferWork(request=request), options, asked, detached)

    def device_id(self, name: str) -> str:
        """See `Places.device_id`."""
        return self._places.device_id(name)

    def again(self, asked: Asked, *, detached: bool = True) -> Job | None:
        """The job that the same request created, whatever has changed since. None: the request is new; submit it with
        one of the other methods. Raises REQUEST_ID_REUSED if another request had its id, and DRAINING if the request is
        new and the server takes no new work."""
        job = self.jobs.requests.known(asked)
        if job is None:
            self.draining.check()
        elif detached:
            self.callers.keep(job.id)
        return job

    def _submit(
        self,
        work: Work,
        options: JobOptions,
        asked: Asked,
        detached: bool,
        validate_only: bool = False,
        job_id: str = "",
        continued: Job | None = None,
    ) -> Job:
        # A request that is only checked was not looked up before.
        self.draining.check()
        if options.session_id:
            self.sessions.admit(options.session_id, _ASSUMED_JOB_S)
        for name in options.device_ids:
            self._devices.check(name)
        self._queue.check_room(_ASSUMED_JOB_S)
        if options.reservation_id and work.assets:
            options = self._places.reserved(options)
        if validate_only:
            return self.jobs.draft(work, options, detached=detached)
        job, _ = self.jobs.submit(work, options, asked, detached=detached, job_id=job_id, continued=continued)
        return job


def _names_its_device(options: JobOptions) -> None:
    if options.device_ids:
        message = "must be empty: the work names its device"
        raise InvalidRequest([Violation(field="options.devices", message=message)])
