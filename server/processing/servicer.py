"""ProcessingService: jobs and the status of the server."""

from collections.abc import Callable
from typing import Any

import grpc
import msgspec

from deviceops.common.v1 import error_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2, system_status_pb2
from domains.clock import ClockWatch
from domains.errors import Aborted, DeviceOpsError, InvalidRequest, NotServed, Violation
from domains.events import EventLog
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import Job
from domains.processing.jobs.label_deletion import LabelDeletion
from domains.processing.jobs.state import JobState
from domains.processing.lanes.overview import QueueOverview
from domains.processing.lanes.waits import Waits
from domains.processing.reproduction import Reproducing
from domains.processing.submit import Submissions
from domains.requests import NEW, Asked
from server import convert, paging
from server.device.work import from_benchmark, from_reset
from server.heartbeat import Followed
from server.inference.generation_messages import from_generation, from_previews
from server.inference.reproduction_messages import from_reproduction
from server.memory.blob_messages import from_transfer
from server.model.benchmark_messages import from_model_benchmark
from server.model.conversion_messages import from_conversion
from server.model.load_messages import from_load
from server.model.servicer import from_scan
from server.model.validation_messages import from_validation
from server.once import asked_of, keeps_its_answers
from server.processing.clock_methods import ClockMethods
from server.processing.job_kinds import KIND_OF
from server.processing.job_messages import JobView, to_job, to_listed, to_state
from server.processing.label_deletion import LabelDeletionMethods
from server.processing.queue import QueueMethods
from server.processing.session_methods import SessionMethods
from server.processing.system_events import SystemEventMethods
from server.processing.watch import Watching, follow

Context = grpc.aio.ServicerContext[Any, Any]


class ProcessingServicer(SystemEventMethods, LabelDeletionMethods, ClockMethods, QueueMethods, SessionMethods):
    """Implements ProcessingService."""

    def __init__(
        self,
        submissions: Submissions,
        blobs: BlobStore,
        status: Callable[[], system_status_pb2.SystemStatus],
        view: JobView,
        events: EventLog,
        instance_id: str,
        watching: Watching,
        waits: Waits,
        clock: ClockWatch,
        overview: QueueOverview,
        reproducing: Reproducing,
    ) -> None:
        self._reproducing = reproducing
        SystemEventMethods.__init__(self, events, instance_id, lambda job: to_listed(job, view))
        LabelDeletionMethods.__init__(self, LabelDeletion(submissions.jobs, blobs))
        ClockMethods.__init__(self, clock, status)
        QueueMethods.__init__(self, overview)
        SessionMethods.__init__(self, submissions.sessions, watching, submissions.draining)
        self._submissions = submissions
        self._jobs = submissions.jobs
        self._blobs = blobs
        self._status = status
        self._view = view
        self._watching = watching
        self._waits = waits

    def _message(self, job: Job) -> job_pb2.Job:
        return to_job(job, self._view, self._waits.now()(job))

    @keeps_its_answers
    async def SubmitJob(
        self, request: processing_service_pb2.SubmitJobRequest, context: Context
    ) -> processing_service_pb2.SubmitJobResponse:
        """Store a job, or with `validate_only` check it."""
        asked = asked_of(request)
        if request.validate_only:
            return processing_service_pb2.SubmitJobResponse(findings=await self._findings(request))
        job = self._submissions.again(asked) or await self._submit(request, asked)
        return processing_service_pb2.SubmitJobResponse(job=self._message(job))

    async def _findings(self, request: processing_service_pb2.SubmitJobRequest) -> list[error_pb2.Finding]:
        """The findings that would get the job refused."""
        try:
            await self._submit(request, NEW)
        except DeviceOpsError as error:
            return convert.to_findings(error)
        return []

    async def _submit(self, request: processing_service_pb2.SubmitJobRequest, asked: Asked) -> Job:
        continued = self._submissions.to_continue(request.continue_job_id) if request.continue_job_id else None
        try:
            if continued is not None and not request.HasField("spec"):
                options = convert.from_options(request.options)
                return await self._submissions.continue_job(
                    continued, options, asked, validate_only=request.validate_only
                )
            return await self._take(request, asked, continued)
        except InvalidRequest as error:
            # In SubmitJob the work is one level deeper than in the requests of calls that submit and follow.
            raise InvalidRequest(map(_within_spec, error.violations), error.reason, **error.facts) from None
        except NotServed as error:
            raise NotServed(map(_within_spec, error.violations), **error.facts) from None

    async def _take(self, request: processing_service_pb2.SubmitJobRequest, asked: Asked, continued: Job | None) -> Job:
        spec = request.spec
        match spec.WhichOneof("work"):
            case str() as other if continued is not None and other != "generation":
                message = (
                    f"is other work than that of job {continued.id}, which generates pictures; continue it with that"
                )
                raise InvalidRequest([Violation(field=f"spec.{other}", message=message)])
            case "generation":
                generation, options = convert.both(
                    lambda: from_generation(spec.generation), lambda: convert.from_options(request.options)
                )
                loaded = spec.generation.require_loaded_model
                return await self._submissions.submit_generation(
                    generation,
                    options,
                    asked,
                    must_be_loaded=loaded,
                    validate_only=request.validate_only,
                    continued=continued,
                )
            case _ if request.validate_only:
                message = "only generations can be checked without being started"
                raise NotServed([Violation(field="validate_only", message=message)])
            case "reproduction":
                reproduction, options = convert.both(
                    lambda: from_reproduction(spec.reproduction), lambda: convert.from_options(request.options)
                )
                return await self._reproducing.submit(reproduction, options, asked)
            case "model_load":
                load, options = convert.both(
                    lambda: from_load(spec.model_load), lambda: convert.from_options(request.options)
                )
                return await self._submissions.submit_load(load, options, asked)
            case "model_scan":
                work, options = convert.both(
                    lambda: from_scan(spec.model_scan), lambda: convert.from_options(request.options)
                )
                return self._submissions.scan(work, options, asked)
            case "device_benchmark":
                work, options = convert.both(
                    lambda: from_benchmark(spec.device_benchmark), lambda: convert.from_options(request.options)
                )
                return self._submissions.benchmark(work, options, asked)
            case "model_benchmark":
                measured, options = convert.both(
                    lambda: from_model_benchmark(spec.model_benchmark), lambda: convert.from_options(request.options)
                )
                return self._submissions.benchmark_model(measured, options, asked)
            case "device_reset":
                reset, options = convert.both(
                    lambda: from_reset(spec.device_reset), lambda: convert.from_options(request.options)
                )
                return self._submissions.reset(reset, options, asked)
            case "blob_transfer":
                options = convert.from_options(request.options)
                transfer = from_transfer(spec.blob_transfer, self._submissions.device_id)
                return self._submissions.transfer(transfer, options, asked)
            case "model_validation":
                validation, options = convert.both(
                    lambda: from_validation(spec.model_validation), lambda: convert.from_options(request.options)
                )
                return self._submissions.validate(validation, options, asked)
            case "model_conversion":
                conversion, options = convert.both(
                    lambda: from_conversion(spec.model_conversion), lambda: convert.from_options(request.options)
                )
                return await self._submissions.convert(conversion, options, asked)
            case None:
                violation = Violation(field="spec.work", message="says nothing to do; set one of its fields")
                raise InvalidRequest([violation])
            case other:
                message = "is in the contract and not built yet; GetSystemStatus lists the methods that are not"
                raise NotServed([Violation(field=f"spec.{other}", message=message)])

    async def GetJob(
        self, request: processing_service_pb2.GetJobRequest, context: Context
    ) -> processing_service_pb2.GetJobResponse:
        """Return the present state of a job."""
        return processing_service_pb2.GetJobResponse(job=self._message(self._jobs.get(request.job_id)))

    async def ListJobs(
        self, request: processing_service_pb2.ListJobsRequest, context: Context
    ) -> processing_service_pb2.ListJobsResponse:
        """List jobs, newest first."""
        place, size = paging.place_of(request.page_token), paging.size_of(request.page_size)
        wanted = _filter(request.filter)
        wait_of = self._waits.now()
        jobs, following = paging.fill(
            lambda count: self._jobs.page(wanted, place, count),
            size,
            lambda job: to_listed(job, self._view, wait_of(job)),
        )
        return processing_service_pb2.ListJobsResponse(jobs=jobs, next_page_token=following)

    def WatchJob(  # yields the bytes of its responses, see `register`
        self, request: processing_service_pb2.WatchJobRequest, context: Context
    ) -> Followed[bytes]:
        """Follow a job from any of its events to its end."""
        wish = from_previews(request.previews, "previews") if request.HasField("previews") else None
        self._watching.join(request.job_id, wish, context)
        return follow(self._jobs, request.job_id, request.after_sequence)

    async def CancelJob(
        self, request: processing_service_pb2.CancelJobRequest, context: Context
    ) -> processing_service_pb2.CancelJobResponse:
        """Request that a job stops."""
        convert.refuse(convert.cause_violations(request.cause), convert.unserved_scope(request.scope))
        job = self._jobs.cancel(request.job_id, request.cause)
        return processing_service_pb2.CancelJobResponse(job=self._message(job))

    async def PauseJob(
        self, request: processing_service_pb2.PauseJobRequest, context: Context
    ) -> processing_service_pb2.PauseJobResponse:
        """Request that a job pauses."""
        convert.refuse(convert.cause_violations(request.cause))
        job = self._jobs.pause(request.job_id, request.cause)
        return processing_service_pb2.PauseJobResponse(job=self._message(job))

    async def ResumeJob(
        self, request: processing_service_pb2.ResumeJobRequest, context: Context
    ) -> processing_service_pb2.ResumeJobResponse:
        """Let a paused job wait for its turn again."""
        convert.refuse(convert.cause_violations(request.cause))
        job = await self._jobs.resume(request.job_id, request.cause)
        return processing_service_pb2.ResumeJobResponse(job=self._message(job))

    async def UpdateJob(
        self, request: processing_service_pb2.UpdateJobRequest, context: Context
    ) -> processing_service_pb2.UpdateJobResponse:
        """Change options of a job."""
        options, mask = convert.from_options(request.options), list(request.update_mask.paths)
        job = self._jobs.update(request.job_id, options, mask, request.etag)
        return processing_service_pb2.UpdateJobResponse(job=self._message(job))

    async def DeleteJob(
        self, request: processing_service_pb2.DeleteJobRequest, context: Context
    ) -> processing_service_pb2.DeleteJobResponse:
        """Delete an ended job and those of its pictures that no other job made too."""
        job = self._jobs.get(request.job_id)
        if request.etag and request.etag != job.etag:
            raise Aborted(f"job {job.id} has changed since its etag was read; read it again", job_id=job.id)
        self._jobs.delete(job.id)
        freed_bytes = self._blobs.release(job.id)
        await self._jobs.erased()
        return processing_service_pb2.DeleteJobResponse(freed_bytes=freed_bytes)

    async def GetSystemStatus(
        self, request: processing_service_pb2.GetSystemStatusRequest, context: Context
    ) -> processing_service_pb2.GetSystemStatusResponse:
        """Return the status of the server."""
        return processing_service_pb2.GetSystemStatusResponse(status=self._status())


def _within_spec(violation: Violation) -> Violation:
    inside = violation.field.partition(".")[0] in job_pb2.JobSpec.DESCRIPTOR.fields_by_name
    return msgspec.structs.replace(violation, field=f"spec.{violation.field}") if inside else violation


_STATES = {to_state(state): state for state in JobState}
_NS = 1e9


def _filter(wanted: processing_service_pb2.JobFilter) -> JobFilter:
    """The filter of a list. A value that no job has makes the list empty."""
    after, before = wanted.HasField("created_after"), wanted.HasField("created_before")
    return JobFilter(
        states=convert.distinct(_STATES[one] for one in wanted.states if one in _STATES) if wanted.states else None,
        kinds=tuple(kind for kind, number in KIND_OF.items() if number in wanted.kinds) if wanted.kinds else None,
        session_id=wanted.session_id,
        labels=convert.wanted_labels(wanted.labels),
        created_from_s=convert.from_time(wanted.created_after, "filter.created_after") / _NS if after else None,
        created_before_s=convert.from_time(wanted.created_before, "filter.created_before") / _NS if before else None,
        device_id=wanted.device_id,
        request_id=wanted.request_id,
        parent_id=wanted.parent_job_id,
    )
