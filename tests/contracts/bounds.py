"""How large each field of an answer can be: the limits from which `test_sizes.py` computes every answer's worst case.

A field's own comment comes first (`at most 1000`, `at most 32 KiB`), then the tables here: by field, by the type of what
a list holds, by name. A list without a bound fails the test by its name: say the limit in the contract, and hold it.
"""

import re

from domains import limits
from domains.inference import limits as generation
from domains.processing.conditioning_preview import READINGS

KIB = 1024
DEVICES = 64
"""Devices of one server, of all its nodes."""
LOADED = 256
"""Loaded models of one server."""
JOBS_OF_DEVICE = 64
"""Jobs that run on one device: the most that the setting allows."""
CHARACTER_BYTES = 4
"""UTF-8's longest."""

WHOLE = {
    "Failure": limits.FAILURE_BYTES,
    "Finding": limits.FINDING_BYTES,
    # What was asked for, as it was asked: no more than a request may have. Answers that fill it in add defaults only.
    **dict.fromkeys(
        (
            *("JobSpec", "WorkSpec", "Generation", "Reproduction", "Postprocessing", "ModelLoad", "ModelScan"),
            *("ModelValidation", "ModelConversion", "ModelBenchmark", "DeviceBenchmark", "DeviceReset", "BlobTransfer"),
            *("Workflow", "WorkflowRun", "Batch"),
        ),
        limits.SPEC_BYTES,
    ),
    # The request and what took part: its models, its pictures, its execution and libraries.
    "ResolvedGeneration": limits.SPEC_BYTES + 256 * KIB,
    "Device": limits.DEVICE_BYTES,
    "SafetyVerdict": limits.VERDICT_BYTES,
    "CheckedImage": limits.PICTURE_BYTES,
    "ProcessedImage": limits.PICTURE_BYTES,
    "JobStep": limits.STEP_BYTES,
    "GenerationCapability": limits.CAPABILITY_BYTES,
    "SamplerInfo": 2 * KIB,
    "NodeStatus": 16 * KIB,
    "FieldCapability": 2 * KIB,
    # An answer names the blob of an image, never its bytes.
    "ImageInput": 512,
    "JobOptions": 64 * KIB,
    "FallbackPolicy": KIB,
    # A reading repeats its prompt of 32 KiB as tokens; each token costs two bytes more.
    "PromptReading": 128 * KIB,
    "PostprocessingStep": 32 * KIB,
}
"""Messages that are bounded as a whole: by a check of requests, or where they are made."""

ENTRIES_BY_FIELD: dict[str, int] = {
    "Device.aliases": 8,
    "DeviceCapabilities.precisions": 16,
    "DeviceBenchmarkReport.results": 32,
    "GenerationResult.images": generation.IMAGES[1],
    "DeviceWorkload.running_job_ids": JOBS_OF_DEVICE,
    "QueueLane.running_job_ids": JOBS_OF_DEVICE,
    "LoadedModel.active_job_ids": JOBS_OF_DEVICE,
    "GetInferenceCapabilitiesResponse.capabilities": 4 * 7 * 5,
    "PreviewConditioningResponse.prompts": READINGS,
    "PreviewConditioningResponse.control_maps": 8,
    "ModelBenchmarkReport.cases": 64,
    "PlannedImage.step_sizes": 32,
    "PostprocessingPreset.steps": 8,
    "ListPostprocessorsResponse.presets": 8,
    "BatchResult.failed_item_ids": 100,
    "QueueLane.depths": 8,
    "JobQueue.lanes": DEVICES + 1,
    "JobQueue.shares": 1000,
    "MetricsGroup.stages": 16,
    "SystemStatus.startup_phases": 128,
    "ModelRequirements.companion_kinds": 16,
    "EstimateModelResponse.estimates": DEVICES,
}
ENTRIES_BY_TYPE = {
    "Fact": 64,
    "FieldViolation": limits.VIOLATIONS,
    "Finding": 200,
    "Label": 32,
    "Degradation": 32,
    "StageTiming": 32,
    "FreedMemory": DEVICES,
    "FieldCapability": 64,
    "SigmaScheduleInfo": 32,
    "Measurement": 64,
    "Device": DEVICES,
    "DeviceStatus": DEVICES,
    "DeviceHealthCheck": 16,
    "DeviceOptionAdvice": 32,
    "DeviceBackendFailure": 16,
    "SamplerInfo": 32,
    "PromptSegment": 100,
    "GenerationLoad": 16,
    "GenerationEviction": LOADED,
    "ReproductionCause": 64,
    "SafetyScore": 64,
    "SafetyVerdict": 64,
    "SafetyThreshold": 64,
    "MemoryPool": DEVICES + 3,
    "MemoryLeakSuspect": 16,
    "MemoryRecommendation": 16,
    "ModelComponent": 16,
    "LoadedComponent": 16,
    "LoadedSource": 16,
    "LoadedModel": LOADED,
    "ComponentEstimate": 16,
    "ModelEviction": LOADED,
    "DetectionEvidence": 4,
    "Postprocessor": 32,
    "PostprocessorModel": 16,
    "MethodMetrics": 128,
    "DomainReadiness": 6,
    "WorkerStatus": DEVICES,
}
"""How many of a type a list holds, whichever message it is in."""

ENTRIES_BY_NAME = {
    r"device_ids$|^(added|changed|lost|returned)_ids$": DEVICES,
    r"loaded_model_ids$": LOADED,
    r"(job|model|blob|reservation|policy|holder)_ids$": limits.NAMED_IDS,
    r"affected_ids$": 64,
    r"labels$": 32,
    r"^(warnings|recommendations|actions_taken|controls|telemetry|features|changed_fields|disabled_methods)$": 64,
    r"^(libraries|listen_addresses|installed_extras|extras|roots)$": 32,
    r"^(tasks|families|compatible_families|categories|control_types|schedulers|allowed_values|depends_on)$": 64,
    r"_media_types$": 16,
    r"_keys$": 64,
    r"^tokens$": 77,
}
TEXT_BY_NAME = {
    r"device_ids?$|job_ids?$|session_id$": 64,
    r"(^|_)ids?$|etag$|_token$": limits.ID_BYTES,
    r"sha256$": 64,
    r"^short_hash$": 8,
    r"^format$": 32,
    r"path$|^roots$|^listen_addresses$": 1024,
    r"^known_prompts$": 255,
    r"^categor(y|ies)$": 63,
    r"^allowed_values$": 64,
    r"^(message|detail|description|rationale|note|unsupported_reason|unavailable_message)$": 1000 * CHARACTER_BYTES,
    r"^(warnings|recommendations|actions_taken|state_reason|reason|mode_reason|cause)$": 255 * CHARACTER_BYTES,
    r"prompt": 32 * KIB,
}
TEXT_BYTES = 255
"""Any other text: names, words, versions, units."""
BYTES = {"ReadBlobResponse.data": 1024 * KIB}
"""Bytes of a field that are more than an image inside a message."""
TOTAL = {"WorkflowResult.outputs": limits.OUTPUTS_BYTES}
"""Bytes of all entries of a list together."""

WITHOUT = {
    "ListJobsResponse.jobs": {"spec", "result"},
    "SystemEvent.job": {"spec", "result"},
    "ListModelsResponse.models": {"known_prompts", "metadata", "evidence", "files"},
    "ModelValidationReport.model": {"known_prompts", "metadata", "evidence", "files"},
    "ModelConversionReport.model": {"known_prompts", "metadata", "evidence", "files"},
}
"""Fields and oneofs that a message in a list leaves out, as the list's comment says."""

NARROWED = {
    "InferenceService.GetInferenceCapabilities": "models",
    "ModelService.EstimateModel": "estimates",
    "ModelService.ListLoadedModels": "loaded_models",
    "PostprocessingService.ListPostprocessors": "postprocessors",
}
"""Lists without pages whose request can ask for less, down to one entry of these fields. A larger answer fails with
MESSAGE_TOO_LARGE before it is sent."""

_SAYS_COUNT = re.compile(
    r"\b[Aa]t most ([\d,]+)(?=[ .,;:]|$)(?! (?:characters|bytes|KiB|MiB|seconds|per cent))|\b1\.\.([\d,]+)\b"
)
_SAYS_BYTES = re.compile(r"[Aa]t most ([\d,]+) (characters|KiB)")


def said_entries(comment: str) -> int | None:
    """How many entries a list has at most, as its comment says."""
    found = _SAYS_COUNT.search(comment)
    return int((found[1] or found[2]).replace(",", "")) if found else None


def said_bytes(comment: str) -> int | None:
    """How many bytes a text or bytes field has at most, as its comment says."""
    found = _SAYS_BYTES.search(comment)
    return int(found[1].replace(",", "")) * (KIB if found[2] == "KiB" else CHARACTER_BYTES) if found else None
