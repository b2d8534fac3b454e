"""Bad input: each a typed error that names the field and says what would be right, before anything is stored."""

import math
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from deviceops.common.v1 import image_pb2, job_event_pb2, label_pb2
from deviceops.device.v1 import device_service_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.model.v1 import execution_pb2, model_service_pb2, model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import Refusal
from tests.server.harness import RunningServer

G = generation_pb2.Generation
S = sampling_pb2.Sampling
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


def ask(server: RunningServer, generation: G, **also: object) -> Refusal:
    """Through both doors: they refuse the same, each naming the field by its own path."""
    request = inference_service_pb2.GenerateRequest(generation=generation, **also)  # pyright: ignore[reportArgumentType]
    by_door = asking.refused(lambda: server.inference.Generate(request))
    spec = job_pb2.JobSpec(generation=generation)
    submission = processing_service_pb2.SubmitJobRequest(spec=spec, **also)  # pyright: ignore[reportArgumentType]
    by_submission = asking.refused(lambda: server.processing.SubmitJob(submission))
    assert (by_door.code, by_door.reason) == (by_submission.code, by_submission.reason)
    assert [field.removeprefix("spec.") for field in by_submission.fields] == by_door.fields
    assert all(field.startswith("spec.") for field in by_submission.fields if "generation" in field)
    return by_door


UNKNOWN_MANIFEST = image_pb2.EncodeOptions(manifest=image_pb2.ManifestDetail.ValueType(9))
CASES = {
    "no steps": (G(sampling=S(steps=0)), "generation.sampling.steps", "1..1000"),
    "too many steps": (G(sampling=S(steps=100_000)), "generation.sampling.steps", "1..1000"),
    "negative steps": (G(sampling=S(steps=-1)), "generation.sampling.steps", "1..1000"),
    "width 7": (G(width_px=7, height_px=64), "generation.width_px", "64..4096"),
    "width 100000": (G(width_px=100_000, height_px=64), "generation.width_px", "64..4096"),
    "width 65": (G(width_px=65, height_px=64), "generation.width_px", "multiple of 8"),
    "height alone": (G(height_px=64), "generation.width_px", "both"),
    "too many pictures": (G(image_count=17), "generation.image_count", "1..16"),
    "guidance NaN": (G(sampling=S(guidance_scale=math.nan)), "generation.sampling.guidance_scale", "0..50"),
    "guidance inf": (G(sampling=S(guidance_scale=math.inf)), "generation.sampling.guidance_scale", "0..50"),
    "guidance below 0": (G(sampling=S(guidance_scale=-1)), "generation.sampling.guidance_scale", "0..50"),
    "eta NaN": (G(sampling=S(eta=math.nan)), "generation.sampling.eta", "0..1"),
    "seed below 0": (G(sampling=S(seed=-1)), "generation.sampling.seed", "leave it out"),
    "unknown sampler": (G(sampling=S(sampler="eulerr")), "generation.sampling.sampler", "euler, "),
    "unknown schedule": (G(sampling=S(sigma_schedule="carras")), "generation.sampling.sigma_schedule", "karras, "),
    "one of the seeds": (G(sampling=S(seeds=[1, -2])), "generation.sampling.seeds[1]", "0.."),
    "too many seeds": (G(sampling=S(seeds=range(17))), "generation.sampling.seeds", "0..16"),
    "an unknown value of an enum": (
        G(determinism=99),  # pyright: ignore[reportArgumentType]  # open enums take any number
        "generation.determinism",
        "99",
    ),
    "long prompt": (G(prompt="x" * 40 * 1024), "generation.prompt", "32768"),
    "long negative": (G(negative_prompt="ü" * 20 * 1024), "generation.negative_prompt", "32768"),
    "PNG quality": (
        G(output=image_pb2.EncodeOptions(media_type="image/png", quality=50)),
        "generation.output.quality",
        "lossless",
    ),
    "default quality": (G(output=image_pb2.EncodeOptions(quality=50)), "generation.output.quality", "lossless"),
    "JPEG quality 0": (
        G(output=image_pb2.EncodeOptions(media_type="image/jpeg", quality=0)),
        "generation.output.quality",
        "1..100",
    ),
    "WebP quality 101": (
        G(output=image_pb2.EncodeOptions(media_type="image/webp", quality=101)),
        "generation.output.quality",
        "1..100",
    ),
    "unknown format": (
        G(output=image_pb2.EncodeOptions(media_type="image/gif")),
        "generation.output.media_type",
        "image/png",
    ),
    "lossless JPEG": (
        G(output=image_pb2.EncodeOptions(media_type="image/jpeg", lossless=True)),
        "generation.output.lossless",
        "image/webp",
    ),
    "quality without loss": (
        G(output=image_pb2.EncodeOptions(media_type="image/webp", lossless=True, quality=90)),
        "generation.output.quality",
        "lossless",
    ),
    "WebP of 8 bits": (
        G(output=image_pb2.EncodeOptions(media_type="image/webp", bit_depth=8)),
        "generation.output.bit_depth",
        "known (0: 8): 0",
    ),
    "unknown manifest": (G(output=UNKNOWN_MANIFEST), "generation.output.manifest", "9"),
    "preview edge": (
        G(previews=generation_pb2.PreviewOptions(max_edge_px=5)),
        "generation.previews.max_edge_px",
        "16..512",
    ),
}


@pytest.mark.parametrize(("generation", "field", "hint"), CASES.values(), ids=CASES.keys())
def test_a_wrong_field_is_named_with_what_would_be_right(
    server: RunningServer, generation: G, field: str, hint: str
) -> None:
    refusal = ask(server, generation)
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD")
    assert field in refusal.fields
    texts = [v.description for v in refusal.bad_request.field_violations if v.field == field]
    assert any(hint in text for text in texts), texts
    assert len(refusal.message) < 4096


def test_everything_wrong_is_told_at_once(server: RunningServer) -> None:
    generation = G(
        prompt="x" * 40_000,
        width_px=7,
        height_px=100_000,
        image_count=99,
        sampling=S(steps=0, guidance_scale=math.nan, sampler="none", seed=-5),
        output=image_pb2.EncodeOptions(media_type="image/gif"),
    )
    options = job_event_pb2.JobOptions(labels=[label_pb2.Label(key="", value="x")], run_timeout=Duration(seconds=-1))
    refusal = ask(server, generation, options=options)
    assert set(refusal.fields) == {
        "generation.prompt",
        "generation.width_px",
        "generation.height_px",
        "generation.image_count",
        "generation.sampling.steps",
        "generation.sampling.guidance_scale",
        "generation.sampling.sampler",
        "generation.sampling.seed",
        "generation.output.media_type",
        "options.labels",
        "options.run_timeout",
    }


UNSERVED = {
    "components[0].precision": G(
        components=[execution_pb2.ComponentSource(component_id="vae", precision=image_pb2.PRECISION_FLOAT16)]
    ),
    "execution.precision": G(execution=execution_pb2.ExecutionOptions(precision=image_pb2.PRECISION_FLOAT16)),
    "safety_policy_id": G(safety_policy_id="strict"),
    "output.preserve_metadata": G(output=image_pb2.EncodeOptions(preserve_metadata=True)),
    "output.bit_depth": G(output=image_pb2.EncodeOptions(bit_depth=16)),
    "output.lossless": G(output=image_pb2.EncodeOptions(media_type="image/avif", lossless=True)),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_a_field_that_is_not_served_is_refused_by_name(server: RunningServer, name: str) -> None:
    refusal = ask(server, UNSERVED[name])
    assert (refusal.code, refusal.reason) == (UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert refusal.fields == [f"generation.{name}"]


COMBINATIONS = {
    "a schedule that the sampler does not take": (
        S(sampler="ddim", sigma_schedule="karras"),
        "sampling.sigma_schedule",
        "it takes: normal",
    ),
    "eta that the sampler does not read": (S(sampler="euler", eta=0.5), "sampling.eta", "ddim"),
    "eta that the model's own sampler does not read": (S(eta=0.5), "sampling.eta", "ddim"),
    "a first seed and a list": (S(seed=1, seeds=[1]), "sampling.seeds", "exclude"),
    "another number of seeds": (S(seeds=[1, 2]), "sampling.seeds", "3 pictures"),
}


@pytest.mark.parametrize(("sampling", "field", "hint"), COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_fields_that_do_not_go_together_are_named(server: RunningServer, sampling: S, field: str, hint: str) -> None:
    refusal = ask(server, G(sampling=sampling, image_count=3 if len(sampling.seeds) == 2 else 0))
    assert (refusal.code, refusal.reason) == (INVALID, "UNSUPPORTED_COMBINATION")
    assert refusal.fields == [f"generation.{field}"]
    assert hint in refusal.bad_request.field_violations[0].description


def test_a1111_parameters_beside_a_manifest_without_prompts_are_refused(server: RunningServer) -> None:
    output = image_pb2.EncodeOptions(a1111_parameters=True, manifest=image_pb2.MANIFEST_DETAIL_RECIPE)
    refusal = ask(server, G(prompt="x", output=output))
    assert (refusal.code, refusal.reason) == (INVALID, "UNSUPPORTED_COMBINATION")
    assert refusal.fields == ["generation.output.a1111_parameters"]


def test_unserved_and_wrong_fields_are_told_together(server: RunningServer) -> None:
    generation = G(sampling=S(steps=0), safety_policy_id="strict")
    generation.postprocessing.add()
    refusal = ask(server, generation)
    assert refusal.reason == "INVALID_FIELD"
    assert set(refusal.fields) == {
        "generation.sampling.steps",
        "generation.safety_policy_id",
        "generation.postprocessing[0]",
    }


def test_a_prompt_of_10_mb_is_refused_by_its_field(server: RunningServer) -> None:
    refusal = ask(server, G(prompt="x" * 10_000_000))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "INVALID_FIELD", ["generation.prompt"])
    spec = job_pb2.JobSpec(generation=G(prompt="x" * 10_000_000))
    submission = processing_service_pb2.SubmitJobRequest(spec=spec)
    assert asking.refused(lambda: server.processing.SubmitJob(submission)).fields == ["spec.generation.prompt"]


def test_a_message_above_the_transports_limit_is_refused_and_the_server_goes_on(server: RunningServer) -> None:
    limit = server.status().limits.max_message_bytes
    request = inference_service_pb2.GenerateRequest(generation=G(prompt="x" * limit))
    refusal = asking.refused(lambda: server.inference.Generate(request))
    # gRPC refuses it unread: there is nobody who could name a field.
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(limit) in refusal.message
    assert server.status().limits.max_message_bytes == limit


def test_an_unknown_model_is_told_with_the_nearest(server: RunningServer) -> None:
    refusal = ask(server, G(prompt="x", model_id="emojisd"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert refusal.facts["model_id"] == "emojisd"
    assert "emoji-sd" in refusal.facts["nearest"]
    assert refusal.has(error_details_pb2.ResourceInfo())


def test_what_is_wrong_with_the_request_is_told_before_the_missing_model(server: RunningServer) -> None:
    refusal = ask(server, G(model_id="none", sampling=S(steps=0)))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["generation.sampling.steps"])


@pytest.mark.parametrize("request_id", ["x" * 65, "with space", "zeile\n", "ü"])
def test_a_bad_request_id_is_named(server: RunningServer, request_id: str) -> None:
    refusal = ask(server, asking.picture(), request_id=request_id)
    assert (refusal.code, refusal.fields) == (INVALID, ["request_id"])


LABELS = {
    "empty key": [label_pb2.Label(value="x")],
    "long key": [label_pb2.Label(key="k" * 64)],
    "long value": [label_pb2.Label(key="k", value="v" * 256)],
    "twice": [label_pb2.Label(key="k", value="1"), label_pb2.Label(key="k", value="2")],
    "too many": [label_pb2.Label(key=str(n)) for n in range(33)],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_bad_labels_are_named(server: RunningServer, labels: list[label_pb2.Label]) -> None:
    refusal = ask(server, asking.picture(), options=job_event_pb2.JobOptions(labels=labels))
    assert (refusal.code, set(refusal.fields)) == (INVALID, {"options.labels"})


OPTIONS = {
    "queue_timeout": job_event_pb2.JobOptions(queue_timeout=Duration()),
    "run_timeout": job_event_pb2.JobOptions(run_timeout=Duration(seconds=-1)),
    "keep_for": job_event_pb2.JobOptions(keep_for=Duration(seconds=10**10)),
    "priority": job_event_pb2.JobOptions(priority=99),  # pyright: ignore[reportArgumentType]  # open enums take any number
}


@pytest.mark.parametrize("attempts", [-1, 11])
def test_attempts_of_a_fallback_outside_their_range_are_named(server: RunningServer, attempts: int) -> None:
    options = job_event_pb2.JobOptions(fallback=job_event_pb2.FallbackPolicy(max_attempts=attempts))
    refusal = ask(server, asking.picture(), options=options)
    assert (refusal.code, refusal.fields) == (INVALID, ["options.fallback.max_attempts"])


UNSERVED_OPTIONS = {
    "devices.strategy": job_event_pb2.JobOptions(
        devices=job_event_pb2.DeviceSelector(strategy=job_event_pb2.PLACEMENT_STRATEGY_LEAST_LOADED)
    ),
    "devices.node_labels": job_event_pb2.JobOptions(
        devices=job_event_pb2.DeviceSelector(node_labels=[label_pb2.Label(key="k")])
    ),
}


@pytest.mark.parametrize("name", UNSERVED_OPTIONS)
def test_an_option_that_is_not_served_is_refused_by_name(server: RunningServer, name: str) -> None:
    refusal = ask(server, asking.picture(), options=UNSERVED_OPTIONS[name])
    assert (refusal.code, refusal.reason) == (UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert refusal.fields == [f"options.{name}"]


def test_unserved_options_and_a_wrong_work_are_told_together_at_every_door(server: RunningServer) -> None:
    options = UNSERVED_OPTIONS["devices.strategy"]
    both = ask(server, G(safety_policy_id="strict", sampling=S(steps=0)), options=options)
    assert (both.code, both.reason) == (INVALID, "INVALID_FIELD")
    assert set(both.fields) == {"generation.safety_policy_id", "generation.sampling.steps", "options.devices.strategy"}
    spec = job_pb2.JobSpec(generation=G(safety_policy_id="strict"))
    submission = processing_service_pb2.SubmitJobRequest(spec=spec, options=options)
    refusal = asking.refused(lambda: server.processing.SubmitJob(submission))
    assert (refusal.code, refusal.reason) == (UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert set(refusal.fields) == {"spec.generation.safety_policy_id", "options.devices.strategy"}


def test_a_cause_that_is_too_long_is_named(server: RunningServer) -> None:
    refusal = asking.refused(lambda: asking.cancel(server, "job-none", "x" * 256))
    assert (refusal.code, refusal.fields) == (INVALID, ["cause"])


TIMES = {
    "created_after": processing_service_pb2.JobFilter(created_after=Timestamp(seconds=10**15)),
    "created_before": processing_service_pb2.JobFilter(created_before=Timestamp(nanos=-1)),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_time_that_is_none_is_named(server: RunningServer, name: str) -> None:
    request = processing_service_pb2.ListJobsRequest(filter=TIMES[name])
    refusal = asking.refused(lambda: server.processing.ListJobs(request))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "INVALID_FIELD", [f"filter.{name}"])


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options_are_named(server: RunningServer, name: str) -> None:
    refusal = ask(server, asking.picture(), options=OPTIONS[name])
    assert (refusal.code, refusal.fields) == (INVALID, [f"options.{name}"])


def test_an_unknown_reservation_is_told_before_anything_is_stored(server: RunningServer) -> None:
    refusal = ask(server, asking.picture(), options=job_event_pb2.JobOptions(reservation_id="r"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESERVATION_NOT_FOUND")


def test_an_unknown_device_is_told_with_those_there_are(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(device_ids=["cuda:77"]))
    refusal = ask(server, asking.picture(), options=options)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND")
    assert refusal.facts == {"device_id": "cuda:77", "known": "cpu"}


def test_unknown_ids_are_told_by_kind(server: RunningServer) -> None:
    calls: dict[str, Callable[[], object]] = {
        "JOB_NOT_FOUND": lambda: asking.job_of(server, "none"),
        "BLOB_NOT_FOUND": lambda: server.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id="none")),
        "DEVICE_NOT_FOUND": lambda: server.device.GetDevice(device_service_pb2.GetDeviceRequest(device_id="none")),
        "MODEL_NOT_FOUND": lambda: server.model.GetModel(model_service_pb2.GetModelRequest(model_id="none")),
        "LOADED_MODEL_NOT_FOUND": lambda: server.model.GetLoadedModel(
            model_service_pb2.GetLoadedModelRequest(loaded_model_id="none")
        ),
    }
    for reason, call in calls.items():
        refusal = asking.refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)
        assert "none" in refusal.facts.values()
        assert refusal.info.domain == "deviceops"


def test_a_model_load_asks_only_for_what_is_served(server: RunningServer) -> None:
    load = model_work_pb2.ModelLoad(
        model_id="emoji-sd",
        warm_up=True,
        components=[execution_pb2.ComponentSource(component_id="vae", precision=image_pb2.PRECISION_FLOAT16)],
    )
    unserved = {"warm_up", "components[0].precision"}
    refusal = asking.refused(lambda: server.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=load)))
    assert set(refusal.fields) == {f"model_load.{name}" for name in unserved}
    submission = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(model_load=load))
    refusal = asking.refused(lambda: server.processing.SubmitJob(submission))
    assert set(refusal.fields) == {f"spec.model_load.{name}" for name in unserved}


def test_nothing_of_a_refused_request_is_stored(server: RunningServer) -> None:
    def newest() -> list[str]:
        jobs = server.processing.ListJobs(processing_service_pb2.ListJobsRequest(page_size=1)).jobs
        return [job.id for job in jobs]

    before = newest()
    ask(server, G(sampling=S(steps=0)), request_id="refused-once")
    assert newest() == before
    job_id = asking.submit(server, request_id="refused-once")
    assert newest() == [job_id]
    asking.watch(server, job_id)
