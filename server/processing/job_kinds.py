"""Converts each kind of work to the contract: one entry with its `JobKind`, its arm of `JobSpec`, and its result."""

from deviceops.common.v1 import error_pb2, image_pb2
from deviceops.inference.v1 import generated_image_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains import limits
from domains.errors import ErrorReason
from domains.processing.jobs import event as events
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import (
    BenchmarkWork,
    ConvertWork,
    GenerateWork,
    HostLoadWork,
    LoadWork,
    ModelBenchmarkWork,
    ReproduceWork,
    ResetWork,
    ScanWork,
    TransferWork,
    UnreadableWork,
    ValidateWork,
    Work,
)
from domains.progress import Degraded
from server import convert
from server.device.messages import to_benchmark_report, to_reset_report
from server.device.work import to_benchmark, to_reset
from server.fitted import fitted
from server.inference.generation_messages import to_generation, to_resolved
from server.inference.pass_messages import to_found
from server.inference.reproduction_messages import to_report, to_reproduction
from server.memory.blob_messages import to_transfer, to_transfer_report
from server.model.benchmark_messages import to_model_benchmark, to_model_benchmark_report
from server.model.conversion_messages import to_conversion, to_conversion_report
from server.model.load_messages import to_load
from server.model.messages import to_loaded, to_scan_report
from server.model.validation_messages import to_validation, to_validation_report
from server.scrub import scrubbed

_WARNINGS = 100
"""Most warnings of a result: the contract's limit."""

KIND_OF: dict[str, job_pb2.JobKind.ValueType] = {
    "generate": job_pb2.JOB_KIND_GENERATION,
    "reproduce": job_pb2.JOB_KIND_REPRODUCTION,
    "load_model": job_pb2.JOB_KIND_MODEL_LOAD,
    "load_to_host": job_pb2.JOB_KIND_MODEL_LOAD,
    "scan_models": job_pb2.JOB_KIND_MODEL_SCAN,
    "benchmark_device": job_pb2.JOB_KIND_DEVICE_BENCHMARK,
    "benchmark_model": job_pb2.JOB_KIND_MODEL_BENCHMARK,
    "reset_device": job_pb2.JOB_KIND_DEVICE_RESET,
    "transfer_blob": job_pb2.JOB_KIND_BLOB_TRANSFER,
    "validate_model": job_pb2.JOB_KIND_MODEL_VALIDATION,
    "convert_model": job_pb2.JOB_KIND_MODEL_CONVERSION,
}
ARM_OF = {kind: job_pb2.JobKind.Name(number).removeprefix("JOB_KIND_").lower() for kind, number in KIND_OF.items()}
"""By kind: the arm of `JobSpec.work`."""


def to_spec(work: Work) -> job_pb2.JobSpec:
    """The spec of the work as the caller asked for it; empty if this server cannot read the work."""
    spec = job_pb2.JobSpec()
    match work:
        case ReproduceWork():
            spec.reproduction.CopyFrom(to_reproduction(work))
        case GenerateWork():
            spec.generation.CopyFrom(to_generation(work.asked))
        case LoadWork() | HostLoadWork():
            spec.model_load.CopyFrom(to_load(work))
        case ScanWork():
            spec.model_scan.SetInParent()
            spec.model_scan.roots.extend(work.roots)
            spec.model_scan.recompute_sha256 = work.recompute
        case BenchmarkWork():
            spec.device_benchmark.CopyFrom(to_benchmark(work))
        case ModelBenchmarkWork():
            spec.model_benchmark.CopyFrom(to_model_benchmark(work.asked))
        case ResetWork():
            spec.device_reset.CopyFrom(to_reset(work))
        case TransferWork():
            spec.blob_transfer.CopyFrom(to_transfer(work.request))
        case ValidateWork():
            spec.model_validation.CopyFrom(to_validation(work.asked))
        case ConvertWork():
            spec.model_conversion.CopyFrom(to_conversion(work.asked))
        case UnreadableWork():
            pass
    return spec


def put_result(
    message: processing_service_pb2.WatchJobResponse | job_pb2.Job,
    job: Job,
    result: events.JobResult | None,
    receipt: events.JobReceipt | None,
) -> None:
    """Set the arm of a message that holds the work's result. None: sets nothing."""
    match result:
        case events.ReproductionResult() if isinstance(job.work, ReproduceWork):
            report = to_report(job.work, result, to_image(result.images[0]), job.device_id)
            message.reproduction_report.CopyFrom(report)
        case events.GenerationResult() if isinstance(job.work, ReproduceWork):
            # A result without a comparison has no report; the field stays unset.
            pass
        case events.GenerationResult():
            message.generation_result.CopyFrom(_generation_result(job, result))
            given_up = receipt.work.degradations if receipt else ()
            message.generation_result.warnings.extend(_warning(one) for one in given_up[:_WARNINGS])
        case events.LoadResult():
            message.loaded_model.CopyFrom(to_loaded(result.loaded, reused=result.reused))
        case events.ScanResult():
            message.model_scan_report.CopyFrom(to_scan_report(result.report))
        case events.BenchmarkResult():
            message.device_benchmark_report.CopyFrom(to_benchmark_report(result.report))
        case events.ModelBenchmarkResult():
            message.model_benchmark_report.CopyFrom(to_model_benchmark_report(result.report))
        case events.ResetResult():
            message.device_reset_report.CopyFrom(to_reset_report(result))
        case events.TransferResult():
            message.blob_transfer_report.CopyFrom(to_transfer_report(result.report))
        case events.ValidationResult():
            message.model_validation_report.CopyFrom(to_validation_report(result.report))
        case events.ConversionResult():
            message.model_conversion_report.CopyFrom(to_conversion_report(result.report))
        case None:
            pass


def to_image(image: events.GeneratedImage) -> generated_image_pb2.GeneratedImage:
    """The message of a finished picture."""
    return generated_image_pb2.GeneratedImage(
        index=image.index,
        seed=image.seed,
        file=image_pb2.ImageFile(
            blob_id=image.blob.id,
            media_type=image.blob.media_type,
            size=image_pb2.ImageSize(width_px=image.width_px, height_px=image.height_px),
            size_bytes=image.blob.size_bytes,
            sha256=image.blob.sha256,
        ),
        latents=None if image.latents is None else _latents(image.latents),
        details=map(to_found, image.details),
    )


def _latents(latents: events.LatentFile) -> generated_image_pb2.LatentFile:
    channels, rows, columns = latents.shape
    return generated_image_pb2.LatentFile(
        blob_id=latents.blob.id,
        channels=channels,
        rows=rows,
        columns=columns,
        completed_steps=latents.completed_steps,
    )


def _generation_result(job: Job, result: events.GenerationResult) -> generated_image_pb2.GenerationResult:
    return generated_image_pb2.GenerationResult(
        images=[to_image(image) for image in result.images],
        resolved=to_resolved(result, job.device_id),
    )


def _warning(degraded: Degraded) -> error_pb2.Finding:
    """A degradation of a generation (a cut prompt), as a warning of its result."""
    finding = error_pb2.Finding(
        severity=error_pb2.SEVERITY_WARNING,
        field=degraded.field,
        reason=convert.to_reason(ErrorReason(degraded.reason)),
        message=scrubbed(degraded.detail),
    )
    return fitted(finding, limits.FINDING_BYTES)
