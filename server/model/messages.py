"""Converts models, loaded models and scan reports to messages."""

import hashlib
import time
from collections.abc import Sequence

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from deviceops.common.v1 import error_pb2, image_pb2, label_pb2
from deviceops.model.v1 import loaded_model_pb2, model_pb2, model_work_pb2
from domains import limits
from domains.failure import Failure
from domains.model.assembly import assembly_of
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.loaded import LoadedComponent, LoadedModel, LoadedSource, LoadedState
from domains.model.model import Component, Model, ModelState
from domains.model.scan import ScanProblem, ScanReport
from domains.reasons import Domain
from server import convert
from server.inference.generation_messages import to_execution
from server.model.files import component_sha256, to_files
from server.model.inspect_messages import EVIDENCE, to_evidence
from server.model.kinds import KINDS, component_kind

_STATES = {
    ModelState.AVAILABLE: model_pb2.MODEL_STATE_AVAILABLE,
    ModelState.INCOMPATIBLE: model_pb2.MODEL_STATE_INCOMPATIBLE,
    ModelState.CORRUPT: model_pb2.MODEL_STATE_CORRUPT,
    ModelState.MISSING: model_pb2.MODEL_STATE_MISSING,
}


def to_model(model: Model, loaded_ids: list[str], *, whole: bool = True) -> model_pb2.Model:
    """The message of a model on disk. `whole`: with its long lists."""
    message = model_pb2.Model(
        id=model.id,
        display_name=model.display_name,
        kind=KINDS[model.kind],
        family=model.family,
        variant=model.variant,
        state=_STATES[model.state],
        problem=_problem(model),
        components=[_component(model, component) for component in model.components],
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        native_size=image_pb2.ImageSize(width_px=model.native_width_px, height_px=model.native_height_px)
        if model.native_width_px
        else None,
        prediction_type=model.prediction_type,
        default_sampler=model.default_sampler,
        default_sigma_schedule=model.default_sigma_schedule,
        embedded=model.embedded,
        source_path="" if model.embedded else model.folder,
        labels=[label_pb2.Label(key=key, value=value) for key, value in model.labels],
        tasks=(FAMILIES[model.family].variant(model.variant) or FAMILIES[model.family]).tasks
        if model.state is ModelState.AVAILABLE and model.kind is ModelKind.CHECKPOINT
        else [],
        compatible_families=model.compatible_families,
        confidence_ratio=model.confidence,
        version=model.version,
        evidence=map(to_evidence, model.evidence[:EVIDENCE]),
        metadata=[error_pb2.Fact(name=name, value=value) for name, value in model.metadata],
        requirements=_requirements(model),
    )
    if model.update_time_s:
        message.update_time.CopyFrom(convert.to_time(model.update_time_s))
    if model.validate_time_s:
        message.validate_time.CopyFrom(convert.to_time(model.validate_time_s))
    message.etag = _etag(message)
    # After the etag: these fields change without a change of the model, or are sent only on request.
    message.loaded_model_ids.extend(loaded_ids)
    if whole:
        message.known_prompts.extend(model.known_prompts)
    else:
        message.ClearField("evidence")
        message.ClearField("metadata")
        for component in message.components:
            component.ClearField("files")
    return message


_ADDED = (
    *(ModelKind.LORA, ModelKind.TEXTUAL_INVERSION, ModelKind.CONTROLNET, ModelKind.T2I_ADAPTER),
    ModelKind.IMAGE_PROMPT_ADAPTER,
)
"""Kinds that work only beside a checkpoint."""


def _requirements(model: Model) -> model_pb2.ModelRequirements | None:
    """What the model needs, as far as its headers show. Memory is not included: only a load measures it."""
    if model.kind not in _ADDED:
        return None
    return model_pb2.ModelRequirements(companion_kinds=[model_pb2.MODEL_KIND_CHECKPOINT])


def _etag(message: model_pb2.Model) -> str:
    """The etag of a message's content."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:16]


def _problem(model: Model) -> error_pb2.Failure | None:
    if model.fault is None:
        return None
    failure = Failure(reason=model.fault, message=model.problem, facts={"model_id": model.id})
    message = convert.to_failure(failure, 0.0, Domain.MODEL)
    # The catalogue does not store when a scan found the fault; absent, not 1970.
    message.ClearField("fail_time")
    return message


def _component(model: Model, component: Component) -> model_pb2.ModelComponent:
    stamps = {stamp.path: stamp for stamp in model.files}
    return model_pb2.ModelComponent(
        id=component.id,
        kind=component_kind(component.id, component.kind),
        files=to_files(component, stamps),
        sha256=component_sha256(component, stamps),
        size_bytes=component.size_bytes,
        parameter_count=component.parameter_count,
        precision=convert.to_precision(_most(component)),
        architecture=component.architecture,
    )


def _most(component: Component) -> str:
    """The precision in which most weights are stored."""
    return component.mix[0][0] if component.mix else component.precision


def to_loaded(
    loaded: LoadedModel, job_ids: Sequence[str] = (), *, outdated: bool = False, reused: bool = False
) -> loaded_model_pb2.LoadedModel:
    """The message of a model on a device, or on its way there."""
    sizes = _bytes(loaded, loaded.size_bytes, sum(component.mapped_bytes for component in loaded.components))
    message = loaded_model_pb2.LoadedModel(
        id=loaded.id,
        model_id=loaded.model_id,
        model_sha256=loaded.model_sha256,
        device_id=loaded.device_id,
        state=to_loaded_state(loaded),
        components=[_loaded_component(loaded, component) for component in loaded.components],
        execution=to_execution({component.id: component.precision for component in loaded.components}, loaded.way),
        tier=loaded_model_pb2.MODEL_TIER_DEVICE if loaded.device_id else loaded_model_pb2.MODEL_TIER_HOST,
        pinned=loaded.pinned,
        keep_alive=convert.to_duration(loaded.keep_alive_s),
        device_bytes=sizes.device,
        host_bytes=sizes.host,
        mapped_bytes=sizes.mapped,
        load_time=_time(loaded.load_time_s),
        last_use_time=_time(loaded.last_use_time_s),
        expire_time=_time(loaded.expire_s) if loaded.state is LoadedState.READY else None,
        load_duration=None if loaded.load_s is None else convert.to_duration(loaded.load_s),
        session_id=loaded.session_id,
        etag=loaded.etag,
        active_job_ids=job_ids,
        outdated=outdated,
        reused=reused,
        failure=convert.to_failure(loaded.failure, time.time(), Domain.MODEL) if loaded.failure else None,
    )
    if loaded.state is LoadedState.LOADING or not loaded.device_id:
        # Known only when the model is loaded; a model in the RAM tier does not compute.
        message.ClearField("execution")
    return message


def to_loaded_state(loaded: LoadedModel) -> loaded_model_pb2.LoadedModelState.ValueType:
    """The contract's value of a loaded model's state."""
    return loaded_model_pb2.LoadedModelState.Value(f"LOADED_MODEL_STATE_{loaded.state.name}")


def _time(unix_s: float | None) -> Timestamp | None:
    return convert.to_time(unix_s) if unix_s else None


class _Bytes(msgspec.Struct, frozen=True):
    """Where bytes of a loaded model are. None: it cannot be measured."""

    residency: loaded_model_pb2.ComponentResidency.ValueType
    device: int | None
    host: int
    mapped: int | None = None


def _bytes(loaded: LoadedModel, size: int, mapped: int) -> _Bytes:
    """Where so many bytes of a loaded model are; `mapped`: those of them that are used in place."""
    if loaded.state is LoadedState.OFFLOADED:
        # The RAM tier's own entry reports how many of these bytes the system keeps in memory.
        return _Bytes(loaded_model_pb2.COMPONENT_RESIDENCY_MAPPED, 0, 0, size)
    if not loaded.device_id and not loaded.locked:
        return _Bytes(loaded_model_pb2.COMPONENT_RESIDENCY_MAPPED, 0, 0, size)
    if loaded.device_id in ("", "cpu"):
        residency = loaded_model_pb2.COMPONENT_RESIDENCY_HOST
        if size and mapped == size:
            residency = loaded_model_pb2.COMPONENT_RESIDENCY_MAPPED
        return _Bytes(residency, None if loaded.device_id else 0, size - mapped, mapped or None)
    if loaded.way.in_turns:
        return _Bytes(loaded_model_pb2.COMPONENT_RESIDENCY_MAPPED, 0, 0, size)
    return _Bytes(loaded_model_pb2.COMPONENT_RESIDENCY_DEVICE, size, 0)


def _source_of(loaded: LoadedModel, component: str) -> str:
    """The model that a component comes from."""
    assembly = assembly_of(loaded.model_id)
    return loaded.model_id if assembly is None else dict(assembly.sources).get(component, assembly.base_id)


def _loaded_component(loaded: LoadedModel, component: LoadedComponent) -> loaded_model_pb2.LoadedComponent:
    sizes = _bytes(loaded, component.bytes, component.mapped_bytes)
    return loaded_model_pb2.LoadedComponent(
        component_id=component.id,
        kind=component_kind(component.id),
        residency=sizes.residency,
        precision=convert.to_precision(component.precision),
        device_bytes=sizes.device,
        host_bytes=sizes.host,
        mapped_bytes=sizes.mapped,
        source_model_id=_source_of(loaded, component.id),
        sources=[_source(loaded, component, source) for source in component.sources],
    )


def _source(loaded: LoadedModel, component: LoadedComponent, source: LoadedSource) -> loaded_model_pb2.LoadedSource:
    in_use = bool(component.mapped_bytes) or not loaded.device_id
    return loaded_model_pb2.LoadedSource(blob_id=source.blob_id, generation=source.generation, in_use=in_use)


def to_scan_report(report: ScanReport) -> model_work_pb2.ModelScanReport:
    """The message of a scan's report."""
    return model_work_pb2.ModelScanReport(
        added_model_ids=report.added[: limits.NAMED_IDS],
        changed_model_ids=report.changed[: limits.NAMED_IDS],
        missing_model_ids=report.missing[: limits.NAMED_IDS],
        unchanged_count=report.unchanged,
        scanned_file_count=report.files,
        read_bytes=report.read_bytes,
        duration=convert.to_duration(report.duration_s),
        roots=report.roots[: limits.ROOTS],
        failures=to_scan_failures(report.problems),
    )


def to_scan_failures(problems: Sequence[ScanProblem]) -> list[model_work_pb2.ModelScanFailure]:
    """The messages of what a scan could not take as a model."""
    return [
        model_work_pb2.ModelScanFailure(
            path=problem.path,
            failure=convert.to_failure(Failure(reason=problem.reason, message=problem.message), 0.0, Domain.MODEL),
        )
        for problem in problems[: limits.SCAN_FAILURES]
    ]
