"""Components of other models, and passes beside the first one, through the server."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import (
    conditioning_pb2,
    generation_pb2,
    inference_service_pb2,
    passes_pb2,
    reproduction_pb2,
    sampling_pb2,
)
from deviceops.model.v1 import execution_pb2, loaded_model_pb2, model_service_pb2, model_work_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from server.cli.app import run
from tests.domains.inference.on_device.tiny_families import (
    their_pipeline,
    vae,
    write_other_sdxl,
    write_tiny_family,
)
from tests.domains.inference.on_device.tiny_refiner import write_tiny_refiner
from tests.domains.inference.on_device.upscaler_files import write_upscaler
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_image_to_image import upload
from tests.server.test_models import models, scanned

EDGE_PX, SEED = 64, 11


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, and a VAE by itself."""
    root = tmp_path_factory.mktemp("passes")
    for name in ("sdxl", "sd3"):
        write_tiny_family(name, root / name)
    write_tiny_refiner(root / "refiner")
    write_other_sdxl(root / "other-sdxl")
    torch.manual_seed(5)
    vae(4)(root).save_pretrained(root / "other-vae")
    write_upscaler(root / "grow.safetensors", "compact-2")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        yield running


def asked(name: str, **more: Any) -> generation_pb2.Generation:
    return generation_pb2.Generation(
        model_id=name,
        prompt="a rocket",
        negative_prompt="fog",
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED),
        **more,
    )


def made(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    last = asking.watch(server, asking.submit(server, generation))[-1]
    assert asking.kind(last) == "succeeded", last.event.failed.failure
    return last.generation_result


def file_of(server: RunningServer, result: Any) -> bytes:
    return asking.blob(server, result.images[0].file.blob_id)


def shown(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)


def theirs(pipe: Any, **more: Any) -> Any:
    """Diffusers' own picture."""
    picture = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        height=EDGE_PX,
        width=EDGE_PX,
        num_inference_steps=2,
        guidance_scale=7.0 if "3" in type(pipe).__name__ else 5.0,
        generator=torch.Generator().manual_seed(SEED),
        **more,
    ).images[0]
    return np.asarray(picture).astype(int)


VAE = execution_pb2.ComponentSource(component_id="vae", model_id="other-vae")
NO_T5 = execution_pb2.ComponentSource(component_id="text_encoder_3", omitted=True)


def plan(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    request = inference_service_pb2.PlanGenerationRequest(generation=generation)
    return server.inference.PlanGeneration(request, timeout=asking.CALL_S)


def test_another_vae_makes_the_picture_of_diffusers_with_it_and_leaves_no_trace(
    server: RunningServer, root: Path
) -> None:
    before = file_of(server, made(server, asked("sdxl")))
    planned = plan(server, asked("sdxl", components=[VAE]))
    (load,) = planned.estimate.loads
    there = loaded(server, "sdxl@cpu")
    parts = {one.component_id: one.device_bytes + one.host_bytes + one.mapped_bytes for one in there.components}
    assert load.device_bytes == parts["vae"], "all other components are there"
    result = made(server, asked("sdxl", components=[VAE]))
    pipe = their_pipeline(root / "sdxl")
    pipe.vae = type(pipe.vae).from_pretrained(root / "other-vae")
    assert np.abs(shown(file_of(server, result)) - theirs(pipe)).max() <= 1
    (told,) = result.resolved.generation.components
    assert (told.component_id, told.model_id, told.omitted) == ("vae", "other-vae", False)
    assert [(one.role, one.model_id, len(one.sha256)) for one in result.resolved.used_models] == [
        ("base", "sdxl", 64),
        ("vae", "other-vae", 64),
    ]
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result)
    assert file_of(server, made(server, asked("sdxl"))) == before


def loaded(server: RunningServer, name: str) -> Any:
    request = model_service_pb2.GetLoadedModelRequest(loaded_model_id=name)
    return server.model.GetLoadedModel(request, timeout=asking.CALL_S).loaded_model


def test_sd3_without_t5_makes_the_picture_of_diffusers_and_shares_the_rest(server: RunningServer, root: Path) -> None:
    whole = shown(file_of(server, made(server, asked("sd3"))))
    result = made(server, asked("sd3", components=[NO_T5]))
    pipe = their_pipeline(root / "sd3")
    pipe.text_encoder_3 = pipe.tokenizer_3 = None
    found = shown(file_of(server, result))
    assert np.abs(found - theirs(pipe)).max() <= 1
    assert np.abs(found - whole).max() > 1
    without = loaded(server, "sd3+text_encoder_3=@cpu")
    assert "text_encoder_3" not in {one.component_id for one in without.components}
    assert [(one.component_id, one.omitted) for one in result.resolved.generation.components] == [
        ("text_encoder_3", True)
    ]


def test_a_model_that_is_assembled_for_a_request_is_not_in_the_catalogue(server: RunningServer) -> None:
    made(server, asked("sdxl", components=[VAE]))
    name = "sdxl+vae=other-vae"
    assert {one.component_id: one.source_model_id for one in loaded(server, f"{name}@cpu").components} == {
        **dict.fromkeys(("text_encoder", "text_encoder_2", "unet"), "sdxl"),
        "vae": "other-vae",
    }
    assert name not in models(server)
    unloaded(server)
    forget = model_service_pb2.ForgetModelRequest(model_id=name)
    refusal = asking.refused(lambda: server.model.ForgetModel(forget, timeout=asking.CALL_S))
    assert refusal.reason == "MODEL_NOT_FOUND"
    nowhere = asking.refused(lambda: asking.submit(server, asked("nowhere+vae=other-vae")))
    assert nowhere.reason == "MODEL_NOT_FOUND"


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown": ("sdxl", {"component_id": "text_encoder_3", "omitted": True}, "INVALID_FIELD", "no component"),
    "twice": ("sdxl", {"component_id": "", "model_id": "other-vae"}, "INVALID_FIELD", "each one once"),
    "needed": ("sdxl", {"component_id": "vae", "omitted": True}, "COMPONENT_MISSING", "do not work without vae"),
    "both": (
        "sd3",
        {"component_id": "vae", "model_id": "sdxl", "omitted": True},
        "UNSUPPORTED_COMBINATION",
        "not both",
    ),
    "of another family": (
        "sdxl",
        {"component_id": "vae", "model_id": "sd3"},
        "MODEL_INCOMPATIBLE",
        "name one that fits",
    ),
    "not in the source": (
        "sdxl",
        {"component_id": "unet", "model_id": "other-vae"},
        "COMPONENT_MISSING",
        "has no component unet",
    ),
    "nowhere": ("sdxl", {"component_id": "vae", "model_id": "nowhere"}, "MODEL_NOT_FOUND", "nowhere"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_component_that_cannot_be_taken_is_refused_by_name_before_any_step(server: RunningServer, case: str) -> None:
    model, source, reason, words = REFUSED[case]
    generation = asked(model, components=[execution_pb2.ComponentSource(**source)])
    refusal = asking.refused(lambda: asking.submit(server, generation))
    told = refusal.message + " ".join(one.description for one in refusal.bad_request.field_violations)
    assert (refusal.reason, words in told) == (reason, True), told


LARGER_PX = 96
AGAIN = passes_pb2.HiresPass(scale=1.5, strength=0.5, steps=4, prompt="a comet")


def test_a_second_pass_makes_the_larger_picture_which_its_file_can_make_again(server: RunningServer) -> None:
    updates = asking.watch(server, asking.submit(server, asked("sdxl", hires_pass=AGAIN)))
    result = updates[-1].generation_result
    file = file_of(server, result)
    assert shown(file).shape == (LARGER_PX, LARGER_PX, 3)
    told = result.resolved.generation.hires_pass
    assert (told.size.width_px, told.size.height_px, told.steps, told.sampler) == (LARGER_PX, LARGER_PX, 4, "euler")
    assert (told.latent_filter, told.guidance_scale, told.prompt) == (
        image_pb2.RESAMPLING_FILTER_BICUBIC,
        5.0,
        "a comet",
    )
    assert (result.resolved.generation.width_px, result.images[0].file.size.width_px) == (EDGE_PX, LARGER_PX)
    assert file_of(server, made(server, result.resolved.generation)) == file
    progress = [one.event.progress for one in updates if asking.kind(one) == "progress"]
    ratios = [one.completed_ratio for one in progress if one.HasField("completed_ratio")]
    assert ratios == sorted(ratios)
    assert max(one.completed_ratio for one in progress if one.stage == "denoising") < 0.5, (
        "two of four steps, and the end"
    )
    stages = [one.event.stage_started.stage for one in updates if asking.kind(one) == "stage_started"]
    assert stages[stages.index("denoising") :] == [
        *("denoising", "conditioning", "enlarging", "hires", "decoding", "encoding")
    ]
    picture = reproduction_pb2.Reproduction(image=image_pb2.ImageInput(data=file))
    request = inference_service_pb2.ReproduceImageRequest(reproduction=picture)
    report = [*server.inference.ReproduceImage(request, timeout=asking.CALL_S)][-1].report
    assert report.verdict == reproduction_pb2.REPRODUCTION_VERDICT_IDENTICAL


def test_the_plan_covers_the_second_pass(server: RunningServer) -> None:
    larger = asked("sdxl")
    larger.width_px = larger.height_px = LARGER_PX
    for generation in (asked("sdxl"), larger):
        made(server, generation)
    once, twice, alone = (
        plan(server, one).estimate for one in (asked("sdxl"), asked("sdxl", hires_pass=AGAIN), larger)
    )
    assert twice.run_time.ToTimedelta() > max(once.run_time.ToTimedelta(), alone.run_time.ToTimedelta())


def test_the_second_pass_can_have_another_model(server: RunningServer) -> None:
    own = passes_pb2.HiresPass(model_id="other-sdxl")
    own.MergeFrom(AGAIN)
    same = file_of(server, made(server, asked("sdxl", hires_pass=AGAIN)))
    result = made(server, asked("sdxl", hires_pass=own))
    assert [(one.role, one.model_id, len(one.sha256)) for one in result.resolved.used_models] == [
        ("base", "sdxl", 64),
        ("hires", "other-sdxl", 64),
    ]
    assert np.abs(shown(file_of(server, result)) - shown(same)).max() > 1
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result)
    own.model_id = "sd3"
    refusal = asking.refused(lambda: asking.submit(server, asked("sdxl", hires_pass=own)))
    assert (refusal.reason, "model sdxl of sdxl" in refusal.message) == ("MODEL_INCOMPATIBLE", True)


MASK = image_pb2.ImageInput(data=b"x")
NOT_AGAIN: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "too large": ({"scale": 4.0}, "INVALID_FIELD", "hires_pass.scale", "at most 4096"),
    "smaller": (
        {"size": image_pb2.ImageSize(width_px=512, height_px=2048)},
        "INVALID_FIELD",
        "hires_pass.size",
        "does not make it smaller",
    ),
    "no multiple": (
        {"size": image_pb2.ImageSize(width_px=2052, height_px=2048)},
        "INVALID_FIELD",
        "hires_pass.size.width_px",
        "multiple",
    ),
    "another sampler's eta": (
        {"sampler": "euler", "sigma_schedule": "none"},
        "INVALID_FIELD",
        "hires_pass.sigma_schedule",
        "there is no",
    ),
    "a schedule of others": (
        {"sampler": "ddim", "sigma_schedule": "karras"},
        "UNSUPPORTED_COMBINATION",
        "hires_pass.sigma_schedule",
        "does not take",
    ),
    "an upscaler without a name": (
        {"upscaler_model_id": ""},
        "INVALID_FIELD",
        "hires_pass.upscaler_model_id",
        "must not be empty",
    ),
    "a filter of pixels": (
        {"latent_filter": image_pb2.RESAMPLING_FILTER_LANCZOS},
        "NOT_IMPLEMENTED",
        "hires_pass.latent_filter",
        "BICUBIC",
    ),
}


@pytest.mark.parametrize("case", list(NOT_AGAIN))
def test_a_second_pass_that_cannot_be_is_refused_by_its_field(server: RunningServer, case: str) -> None:
    given, reason, field, words = NOT_AGAIN[case]
    generation = asked("sdxl", hires_pass=passes_pb2.HiresPass(**given))
    generation.width_px = generation.height_px = 2048
    refusal = asking.refused(lambda: asking.submit(server, generation))
    assert (refusal.reason, refusal.fields) == (reason, [f"spec.generation.{field}"])
    assert words in refusal.message


def test_an_upscaler_enlarges_for_the_second_pass_and_the_result_names_it(server: RunningServer) -> None:
    by_model = passes_pb2.HiresPass(upscaler_model_id="grow", scale=1.5, strength=0.5)
    generation = asked("sdxl", hires_pass=by_model)
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    told = result.resolved.generation.hires_pass
    assert (told.upscaler_model_id, told.size.width_px, result.images[0].file.size.width_px) == ("grow", 96, 96)
    assert [(one.role, one.model_id) for one in result.resolved.used_models[1:]] == [("upscaler", "grow")]
    again = asking.watch(server, asking.submit(server, result.resolved.generation))[-1].generation_result
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    lanczos = image_pb2.RESAMPLING_FILTER_LANCZOS
    plain = asked("sdxl", hires_pass=passes_pb2.HiresPass(scale=1.5, strength=0.5, pixel_filter=lanczos))
    other = asking.watch(server, asking.submit(server, plain))[-1].generation_result
    assert other.images[0].file.sha256 != result.images[0].file.sha256
    by_model.upscaler_model_id = "sdxl"
    refusal = asking.refused(lambda: asking.submit(server, asked("sdxl", hires_pass=by_model)))
    assert refusal.reason == "MODEL_INCOMPATIBLE"
    assert "is a checkpoint and no upscaler" in refusal.message


def test_a_second_pass_beside_a_mask_is_refused(server: RunningServer) -> None:
    generation = asked("sdxl", hires_pass=AGAIN)
    generation.init_image.image.CopyFrom(MASK)
    generation.mask.image.CopyFrom(MASK)
    refusal = asking.refused(lambda: asking.submit(server, generation))
    assert (refusal.reason, refusal.fields) == ("UNSUPPORTED_COMBINATION", ["spec.generation.hires_pass"])


def latents_of(server: RunningServer, result: Any) -> Any:
    return load(asking.blob(server, result.images[0].latents.blob_id))["latents"]


def from_latents(blob_id: str, strength: float | None = None, **sampling: Any) -> generation_pb2.Generation:
    latents = conditioning_pb2.LatentInput(blob_id=blob_id, strength=strength)
    generation = asked("sdxl", init_latents=latents, return_latents=True)
    generation.sampling.MergeFrom(sampling_pb2.Sampling(**sampling))
    return generation


def test_latents_that_a_job_hands_out_make_its_picture_again(server: RunningServer) -> None:
    whole = made(server, asked("sdxl", return_latents=True))
    told = whole.images[0].latents
    assert (told.channels, told.rows, told.columns, told.completed_steps) == (4, EDGE_PX // 4, EDGE_PX // 4, 2)
    picture = shown(file_of(server, whole))
    again = made(server, from_latents(told.blob_id, 0.0))
    assert np.array_equal(shown(file_of(server, again)), picture)
    assert asking.blob(server, again.images[0].latents.blob_id) == asking.blob(server, told.blob_id)
    half = asked("sdxl", return_latents=True)
    half.sampling.last_step = 1
    begun = made(server, half).images[0].latents
    assert begun.completed_steps == 1
    result = made(server, from_latents(begun.blob_id, first_step=1))
    assert np.abs(shown(file_of(server, result)) - picture).max() <= 1
    resolved = result.resolved.generation
    assert (resolved.init_latents.blob_id, resolved.sampling.add_noise) == (begun.blob_id, False)
    assert file_of(server, made(server, resolved)) == file_of(server, result)


def test_latents_that_do_not_fit_are_refused_by_their_field(server: RunningServer) -> None:
    latents = made(server, asked("sdxl", return_latents=True)).images[0].latents.blob_id
    other_size = from_latents(latents)
    other_size.width_px = 128
    other_family = from_latents(latents)
    other_family.model_id = "sd3"
    no_latents = from_latents(upload(server, b"no safetensors"))
    for generation, words in (
        (other_size, "give a size that fits"),
        (other_family, "16×16×16"),
        (no_latents, "no safetensors file"),
    ):
        refusal = asking.refused(lambda generation=generation: asking.submit(server, generation))
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["spec.generation.init_latents.blob_id"])
        assert words in refusal.message
    both = from_latents(latents)
    both.init_image.image.CopyFrom(MASK)
    refusal = asking.refused(lambda: asking.submit(server, both))
    assert (refusal.reason, refusal.fields) == ("UNSUPPORTED_COMBINATION", ["spec.generation.init_latents"])


REFINER = passes_pb2.RefinerPass(model_id="refiner", start_ratio=0.5)


def test_a_refiner_is_a_second_model_of_the_job_which_plan_and_result_name(server: RunningServer) -> None:
    alone = latents_of(server, made(server, asked("sdxl", return_latents=True)))
    planned = plan(server, asked("sdxl", refiner=REFINER))
    (load,) = planned.estimate.loads
    assert load.model_id == "refiner"
    updates = asking.watch(server, asking.submit(server, asked("sdxl", refiner=REFINER, return_latents=True)))
    result = updates[-1].generation_result
    there = loaded(server, "refiner@cpu")
    sizes = [one.device_bytes + one.host_bytes + one.mapped_bytes for one in there.components]
    # Buffers that no file carries are not in the forecast.
    assert load.device_bytes == pytest.approx(sum(sizes), rel=1e-3)
    assert "refining" in [one.event.stage_started.stage for one in updates if asking.kind(one) == "stage_started"]
    assert np.abs(latents_of(server, result) - alone).max() > 1e-3
    told = result.resolved.generation.refiner
    assert (told.model_id, told.start_ratio, told.aesthetic_score, told.negative_aesthetic_score) == (
        *("refiner", 0.5, 6.0, 2.5),
    )
    assert [(one.role, one.family) for one in result.resolved.used_models] == [
        ("base", "sdxl"),
        ("refiner", "sdxl_refiner"),
    ]
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result)
    unload = model_service_pb2.UnloadModelRequest(loaded_model_id=there.id)
    server.model.UnloadModel(unload, timeout=asking.CALL_S)
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result), "it was loaded again"
    spec = generation_pb2.Generation(model_id="refiner", prompt="x")
    refusal = asking.refused(lambda: asking.submit(server, spec))
    assert (refusal.reason, "makes no pictures by itself" in refusal.message) == ("MODEL_INCOMPATIBLE", True)


@pytest.mark.parametrize(
    ("base", "refiner", "reason", "words"),
    [
        ("sdxl", "sd3", "MODEL_INCOMPATIBLE", "no refiner"),
        ("sd3", "refiner", "MODEL_INCOMPATIBLE", "goes on from models of sdxl"),
        ("sdxl", "nowhere", "MODEL_NOT_FOUND", "nowhere"),
        ("sdxl", "", "INVALID_FIELD", "must not be empty"),
    ],
)
def test_a_refiner_that_cannot_go_on_is_refused(
    server: RunningServer, base: str, refiner: str, reason: str, words: str
) -> None:
    generation = asked(base, refiner=passes_pb2.RefinerPass(model_id=refiner))
    refusal = asking.refused(lambda: asking.submit(server, generation))
    assert (refusal.reason, words in refusal.message) == (reason, True), refusal.message


# Components of loads, estimates and hints


def on_cpu(server: RunningServer, **load: Any) -> Any:
    work = model_work_pb2.ModelLoad(**load)
    return asking.journal_of(server.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=work)))


def unloaded(server: RunningServer) -> None:
    server.model.UnloadModel(model_service_pb2.UnloadModelRequest(all=model_service_pb2.EveryLoadedModel()))


def test_a_load_takes_components_of_other_models_for_the_jobs_that_will_ask_for_them(server: RunningServer) -> None:
    unloaded(server)
    updates = on_cpu(server, model_id="sdxl", components=[VAE])
    name = "sdxl+vae=other-vae@cpu"
    assert updates[-1].loaded_model.id == name
    spec = asking.job_of(server, updates[0].event.job_id).spec.model_load
    assert (spec.model_id, list(spec.components)) == ("sdxl", [VAE])
    job_id = asking.submit(server, asked("sdxl", components=[VAE]))
    stages = [update.event.stage_started.stage for update in asking.watch(server, job_id)]
    assert "loading" not in stages, "it was there already"
    request = model_service_pb2.EstimateModelRequest(model_load=spec)
    (forecast,) = server.model.EstimateModel(request, timeout=asking.CALL_S).estimates
    assert (forecast.weights_bytes, forecast.load_time.ToNanoseconds()) == (0, 0)
    assert on_cpu(server, model_id="sdxl", components=[VAE])[-1].loaded_model.reused


def test_a_hint_reads_components_of_other_models_ahead(server: RunningServer) -> None:
    unloaded(server)
    watch = server.model.WatchLoadedModels(model_service_pb2.WatchLoadedModelsRequest(), timeout=asking.CALL_S)
    asking.until(watch, lambda message: message.in_sync)
    hint = model_service_pb2.PrefetchHint(model_id="sdxl", components=[VAE])
    answer = server.model.PrefetchModels(model_service_pb2.PrefetchModelsRequest(hints=[hint]), timeout=asking.CALL_S)
    assert list(answer.accepted_model_ids) == ["sdxl+vae=other-vae"]
    ready = "sdxl+vae=other-vae@host", loaded_model_pb2.LOADED_MODEL_STATE_READY
    asking.until(watch, lambda message: (message.loaded_model.id, message.loaded_model.state) == ready)
    watch.cancel()
    there = loaded(server, ready[0])
    assert {one.component_id for one in there.components} >= {"unet", "vae", "text_encoder", "text_encoder_2"}
    server.model.PrefetchModels(model_service_pb2.PrefetchModelsRequest(), timeout=asking.CALL_S)
    unloaded(server)


FAULTS: dict[str, tuple[list[execution_pb2.ComponentSource], str, list[str]]] = {
    "twice": ([VAE, VAE], "INVALID_FIELD", ["components[1].component_id"]),
    "unknown": ([NO_T5], "INVALID_FIELD", ["components"]),
    "both": (
        [execution_pb2.ComponentSource(component_id="vae", model_id="sd3", omitted=True)],
        "UNSUPPORTED_COMBINATION",
        ["components[0].omitted"],
    ),
    "a precision of its own": (
        [execution_pb2.ComponentSource(component_id="vae", precision=image_pb2.PRECISION_FLOAT16)],
        "NOT_IMPLEMENTED",
        ["components[0].precision"],
    ),
    "of another family": (
        [execution_pb2.ComponentSource(component_id="vae", model_id="sd3")],
        "MODEL_INCOMPATIBLE",
        [],
    ),
}


@pytest.mark.parametrize("case", list(FAULTS))
def test_a_component_of_a_load_or_a_hint_that_cannot_be_taken_is_named(server: RunningServer, case: str) -> None:
    components, reason, fields = FAULTS[case]
    hint = model_service_pb2.PrefetchHint(model_id="sdxl", components=components)
    calls: dict[str, Callable[[], Any]] = {
        "model_load.": lambda: on_cpu(server, model_id="sdxl", components=components),
        "hints[0].": lambda: server.model.PrefetchModels(model_service_pb2.PrefetchModelsRequest(hints=[hint])),
    }
    for path, call in calls.items():
        refusal = asking.refused(call)
        assert refusal.reason == reason
        assert [field.removeprefix(path) for field in refusal.fields] == fields


def test_components_can_be_named_on_the_command_line(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)
    assert run(["models", "load", "sdxl", "--component", "vae=other-vae"]) == 0
    assert "sdxl+vae=other-vae@cpu is loaded" in capsys.readouterr().out
    assert run(["models", "estimate", "sd3", "--without", "text_encoder_3", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["estimates"][0]["components"]
    assert "text_encoder_3" not in {part["componentId"] for part in parts}
    assert run(["models", "prefetch", "sd3", "--without", "text_encoder_3"]) == 0
    assert "read ahead: sd3+text_encoder_3=" in capsys.readouterr().out
    assert run(["models", "prefetch"]) == 0


# Components that take turns on the device

BOX = postprocessing_pb2.PixelBox(width_px=EDGE_PX // 2, height_px=EDGE_PX)
PASSES: dict[str, dict[str, Any]] = {
    "second pass": {"hires_pass": AGAIN},
    "region": {"regions": [conditioning_pb2.RegionalPrompt(prompt="a lemon", rectangle=BOX)]},
    "another vae": {"components": [VAE]},
    "refiner": {"refiner": REFINER},
}


def test_passes_and_regions_of_a_model_whose_components_take_turns_make_the_same_files(server: RunningServer) -> None:
    before = {name: file_of(server, made(server, asked("sdxl", **more))) for name, more in PASSES.items()}
    unloaded(server)
    turns = execution_pb2.ExecutionOptions(offload=execution_pb2.OFFLOAD_MODE_COMPONENT)
    for components in ([], [VAE]):
        on_cpu(server, model_id="sdxl", components=components, execution=turns)
    on_cpu(server, model_id="refiner", execution=turns)
    for name, more in PASSES.items():
        result = made(server, asked("sdxl", **more))
        assert result.resolved.execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT
        assert file_of(server, result) == before[name], name
    unloaded(server)
