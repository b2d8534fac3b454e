"""Each computed family from a folder to a picture, through the server."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from deviceops.common.v1 import error_pb2, image_pb2
from deviceops.inference.v1 import (
    conditioning_pb2,
    generation_pb2,
    inference_service_pb2,
    passes_pb2,
    sampling_pb2,
)
from deviceops.model.v1 import execution_pb2, model_pb2, model_service_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.model.families import COMPUTED, FAMILIES
from tests.domains.inference.on_device.control_files import stripes, write_controlnet
from tests.domains.inference.on_device.lora_files import layers, matrices
from tests.domains.inference.on_device.single_files import contents, give_configs, write_single
from tests.domains.inference.on_device.t2i_files import three_levels, write_t2i
from tests.domains.inference.on_device.test_editing import EDITORS
from tests.domains.inference.on_device.tiny_families import (
    TINY,
    clip,
    family_of_name,
    flux,
    t5,
    their_pipeline,
    unet,
    vae,
    write_parts,
    write_tiny_family,
)
from tests.domains.inference.on_device.transformer_controls import encoded_without_noise, write_net
from tests.domains.model.detect.adapters import adapter, kohya
from tests.domains.model.headers import write_header
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_models import models, scanned

_diffusers: Any = diffusers  # which imports its classes when they are asked for
EDGE_PX, SEED = 64, 11
SINGLE = "one-file"
"""The tiny SDXL as a single file."""


def _wide_clip(folder: Path) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=2014,
        bos_token_id=2012,
        eos_token_id=2013,
        pad_token_id=2013,
        hidden_size=1024,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return transformers.CLIPTextModel(config)


WIDE = (
    TINY["sd2"][0],
    {
        **TINY["sd2"][1],
        "text_encoder": ("CLIPTextModel", _wide_clip),
        "unet": ("UNet2DConditionModel", unet(cross_attention_dim=1024, attention_head_dim=(2, 4))),
    },
)
"""A tiny model whose text encoder is as wide as that of Stable Diffusion 2: learned words are told by their width."""
WIDE_FLUX = (
    TINY["flux1"][0],
    {
        **TINY["flux1"][1],
        "text_encoder": ("CLIPTextModel", clip(768)),
        "text_encoder_2": ("T5EncoderModel", t5(4096, 16)),
        "transformer": ("FluxTransformer2DModel", flux(guidance=True, text=4096, pooled=768)),
    },
)
"""A tiny FLUX.1 whose text is as wide as that of published ones: ControlNets are told by that."""
OF_8 = (
    TINY["sdxl"][0],
    {
        **TINY["sdxl"][1],
        "unet": ("UNet2DConditionModel", three_levels),
        "vae": (
            "AutoencoderKL",
            vae(
                4,
                block_out_channels=(16,) * 4,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
        ),
    },
)
"""A tiny SDXL with latent pixels of 8×8 as published ones: T2I adapters are told by that."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each family, LoRAs of one, and the header of one for a published model."""
    root = tmp_path_factory.mktemp("families")
    for name in TINY:
        write_tiny_family(name, root / name)
    file = write_single(root / f"{SINGLE}.safetensors", contents("sdxl", root / "sdxl"))
    give_configs(file, root / "sdxl")
    unet: Any = their_pipeline(root / "sd2").unet
    torch.manual_seed(3)
    save_file(
        {
            f"unet.{name}.lora_{end}.weight": matrix
            for name, layer in layers(unet, ("to_q", "to_v", "ff.net.2")).items()
            for end, matrix in zip("AB", matrices(layer, 4), strict=True)
        },
        root / "styled.safetensors",
    )
    misfit = {f"lora_unet_nowhere_to_q.lora_{end}.weight": torch.ones(2, 2) for end in ("down", "up")}
    save_file(misfit, root / "misfit.safetensors")
    write_header(root / "published.safetensors", adapter("sdxl_unet", kohya, keep="attn2.to_k"))
    write_controlnet(root / "edges", SimpleNamespace(modules={"unet": their_pipeline(root / "sdxl").unet}), 4)
    write_parts(*WIDE, root / "wide")
    write_parts(*OF_8, root / "of-8")
    write_parts(*WIDE_FLUX, root / "wide-flux")
    transformer = their_flux(root).transformer
    write_net(root / "flux-edges", "flux1-union", SimpleNamespace(modules={"transformer": transformer}))
    transformer = their_pipeline(root / "z_image").transformer
    write_net(root / "z-edges", "z_image-2.1", SimpleNamespace(modules={"transformer": transformer}))
    write_t2i(root / "layout", 1, (16, 32, 32, 32), downscale_factor=16, adapter_type="full_adapter_xl")
    _, pipeline, changes = EDITORS["sdxl"]
    write_parts(pipeline, {**TINY["sdxl"][1], **changes}, root / "editor")
    save_file({"<owl>": torch.randn(2, 1024) * 0.05}, root / "owl.safetensors")
    save_file({"emb_params": torch.randn(1, 768)}, root / "of-sd1.safetensors")
    save_file({"emb_params": torch.randn(1, 1024)}, root / "nameless.safetensors")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        # A device is listed once its worker has tried it.
        asking.watch(running, asking.submit(running))
        yield running


def asked(name: str) -> generation_pb2.Generation:
    return generation_pb2.Generation(
        model_id=name,
        prompt="a rocket",
        negative_prompt="fog",
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED),
        previews=generation_pb2.PreviewOptions(every_steps=1, max_edge_px=16),
    )


@pytest.mark.parametrize("name", list(TINY))
def test_a_family_makes_the_picture_that_diffusers_makes(server: RunningServer, root: Path, name: str) -> None:
    updates = asking.watch(server, asking.submit(server, asked(name)))
    assert "preview" in asking.kinds(updates)
    result = updates[-1].generation_result
    theirs = their_picture(root / name, result.resolved.generation)
    assert np.abs(pixels(server, result).astype(int) - theirs.astype(int)).max() <= 1


def pixels(server: RunningServer, result: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(asking.blob(server, result.images[0].file.blob_id))).convert("RGB"))


def test_a_single_file_makes_the_picture_of_its_folder(server: RunningServer) -> None:
    pictures: list[Any] = []
    for name in (SINGLE, "sdxl"):
        updates = asking.watch(server, asking.submit(server, asked(name)))
        blob = asking.blob(server, updates[-1].generation_result.images[0].file.blob_id)
        pictures.append(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int))
    # Mapped weights lie at other places in the two files, which changes the last bit of sums.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_a_model_of_parts_makes_the_picture_of_its_parts(server: RunningServer) -> None:
    vae = execution_pb2.ComponentSource(component_id="vae", model_id=SINGLE)
    source = model_service_pb2.ModelPartsSource(base_model_id="sdxl", components=[vae])
    request = model_service_pb2.RegisterModelRequest(model_id="mix", parts_source=source)
    made = server.model.RegisterModel(request, timeout=asking.CALL_S)
    assert (made.model.id, made.model.state) == ("mix", model_pb2.MODEL_STATE_AVAILABLE)
    assert made.model.id in models(server)
    pictures: list[Any] = []
    for name in ("mix", "sdxl"):
        updates = asking.watch(server, asking.submit(server, asked(name)))
        blob = asking.blob(server, updates[-1].generation_result.images[0].file.blob_id)
        pictures.append(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_parts_that_do_not_fit_are_refused_with_the_field(server: RunningServer) -> None:
    vae = execution_pb2.ComponentSource(component_id="vae", model_id="flux1")
    source = model_service_pb2.ModelPartsSource(base_model_id="sdxl", components=[vae])
    request = model_service_pb2.RegisterModelRequest(model_id="wrong", parts_source=source)
    refusal = asking.refused(lambda: server.model.RegisterModel(request, timeout=asking.CALL_S))
    assert (refusal.reason, "latent_channels=16" in refusal.message) == ("MODEL_INCOMPATIBLE", True)
    assert "wrong" not in models(server)


def their_picture(folder: Path, resolved: generation_pb2.Generation) -> Any:
    family = family_of_name(folder.name)
    return _their_picture(their_pipeline(folder), family, resolved)


def _their_picture(pipe: Any, family: str, resolved: generation_pb2.Generation) -> Any:
    folder = Path(pipe.name_or_path)
    for lora in resolved.loras:
        pipe.load_lora_weights(folder.parent, weight_name=f"{lora.model_id}.safetensors", adapter_name=lora.model_id)
        pipe.set_adapters([lora.model_id], [lora.weight])
    picture = pipe(
        prompt=resolved.prompt,
        height=resolved.height_px,
        width=resolved.width_px,
        num_inference_steps=resolved.sampling.steps,
        **_their_guidance(family, resolved),
        generator=torch.Generator().manual_seed(resolved.sampling.seeds[0]),
    ).images[0]
    return np.asarray(picture)


def _their_guidance(family: str, resolved: generation_pb2.Generation) -> dict[str, Any]:
    sampling, negative = resolved.sampling, {"negative_prompt": resolved.negative_prompt}
    if family != "flux1":
        return {"guidance_scale": sampling.guidance_scale, **negative}
    return {"guidance_scale": sampling.distilled_guidance, "true_cfg_scale": sampling.guidance_scale, **negative}


def test_each_family_says_what_its_requests_may_contain(server: RunningServer) -> None:
    request = inference_service_pb2.GetInferenceCapabilitiesRequest()
    told = server.inference.GetInferenceCapabilities(request, timeout=asking.CALL_S)
    assert {one.family for one in told.capabilities} == {"sd1", *map(family_of_name, TINY)} == set(COMPUTED)
    assert {name: model.family for name, model in models(server).items() if name in TINY} == {
        name: family_of_name(name) for name in TINY
    }
    for capability in told.capabilities:
        guidance = next(field for field in capability.fields if field.field == "sampling.guidance_scale")
        assert float(guidance.default_value) == FAMILIES[capability.family].default_guidance
        flow = FAMILIES[capability.family].flow
        assert ("dpmpp_2m" in capability.samplers, "sgm_uniform" in capability.sigma_schedules) == (not flow, not flow)
        assert capability.samplers[0] == "euler"
        assert capability.prompt_window_tokens == FAMILIES[capability.family].prompt_tokens


def test_a_sampler_that_does_not_walk_a_family_is_refused_with_those_that_do(server: RunningServer) -> None:
    flow = asked("flux1")
    flow.sampling.sampler = "dpmpp_2m"
    refusal = asking.refused(lambda: asking.submit(server, flow))
    assert refusal.reason == "UNSUPPORTED_COMBINATION"
    (violation,) = refusal.bad_request.field_violations
    assert violation.field == "spec.generation.sampling.sampler"
    assert "euler, heun" in violation.description


def test_a_distilled_model_takes_few_steps_by_itself(server: RunningServer) -> None:
    request = inference_service_pb2.GetInferenceCapabilitiesRequest(model_id="flux1-schnell")
    (model,) = server.inference.GetInferenceCapabilities(request, timeout=asking.CALL_S).models
    assert (model.default_steps, model.default_guidance_scale, model.default_sampler) == (4, 1.0, "euler")


def png(width: int = EDGE_PX, height: int = EDGE_PX) -> image_pb2.ImageInput:
    file = io.BytesIO()
    Image.fromarray(stripes(width, height).numpy()).save(file, "PNG")
    return image_pb2.ImageInput(data=file.getvalue())


def test_an_editor_sees_the_picture_as_in_diffusers_and_the_result_asks_for_the_same(
    server: RunningServer, root: Path
) -> None:
    generation, seen = asked("editor"), png()
    generation.reference_images.add(image=seen)
    refusal = asking.refused(lambda: asking.submit(server, asked("editor")))
    assert refusal.bad_request.field_violations[0].field == "spec.generation.reference_images"
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    resolved = result.resolved.generation
    assert (resolved.sampling.image_guidance_scale, result.resolved.task) == (1.5, "editing")
    assert [one.field for one in result.resolved.used_images] == ["reference_images[0].image"]
    kind: Any = getattr(diffusers, EDITORS["sdxl"][1])
    pipe = kind.from_pretrained(root / "editor", dtype=torch.float32)
    theirs = pipe(
        prompt=resolved.prompt,
        negative_prompt=resolved.negative_prompt,
        image=Image.open(io.BytesIO(seen.data)),
        height=EDGE_PX,
        width=EDGE_PX,
        num_inference_steps=resolved.sampling.steps,
        guidance_scale=resolved.sampling.guidance_scale,
        image_guidance_scale=1.5,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    assert np.abs(pixels(server, result).astype(int) - np.asarray(theirs).astype(int)).max() <= 1
    again = asking.watch(server, asking.submit(server, resolved))[-1].generation_result
    assert again.images[0].file.sha256 == result.images[0].file.sha256


def with_control(net: str = "edges", model: str = "sdxl", **more: Any) -> generation_pb2.Generation:
    generation = asked(model)
    given: dict[str, Any] = {"model_id": net, "image": png(), **more}
    generation.controls.append(conditioning_pb2.ControlInput(**given))
    return generation


def white_png() -> image_pb2.ImageInput:
    """A mask with a white part."""
    levels = np.zeros((EDGE_PX, EDGE_PX), np.uint8)
    levels[8:24, 8:40] = 255
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return image_pb2.ImageInput(data=file.getvalue())


INPAINT = conditioning_pb2.ControlPreprocessing(inpaint=conditioning_pb2.InpaintPreprocessing())
CANNY = conditioning_pb2.ControlPreprocessing(canny=conditioning_pb2.CannyPreprocessing(high_threshold=150))


def test_a_preview_shows_the_map_that_a_controlnet_would_see(server: RunningServer) -> None:
    request = inference_service_pb2.PreviewConditioningRequest(generation=with_control(preprocessing=CANNY))
    (found,) = server.inference.PreviewConditioning(request, timeout=asking.CALL_S).control_maps
    shown = np.asarray(Image.open(io.BytesIO(asking.blob(server, found.file.blob_id))))
    edges = cv2.Canny(stripes(EDGE_PX, EDGE_PX).numpy(), 100, 150)
    assert (found.control_index, found.file.size.width_px) == (0, EDGE_PX)
    assert np.array_equal(shown, np.stack([edges] * 3, -1))


def test_a_map_for_inpainting_takes_the_mask_of_the_generation(server: RunningServer) -> None:
    generation = with_control(preprocessing=INPAINT)
    refusal = asking.refused(lambda: asking.submit(server, generation))
    assert refusal.reason == "UNSUPPORTED_COMBINATION"
    (violation,) = refusal.bad_request.field_violations
    assert violation.field == "spec.generation.controls[0].preprocessing.inpaint"
    generation.init_image.image.CopyFrom(png())
    generation.mask.image.CopyFrom(white_png())
    levels = np.asarray(Image.open(io.BytesIO(generation.mask.image.data)))
    request = inference_service_pb2.PreviewConditioningRequest(generation=generation)
    (found,) = server.inference.PreviewConditioning(request, timeout=asking.CALL_S).control_maps
    shown = np.asarray(Image.open(io.BytesIO(asking.blob(server, found.file.blob_id))))
    assert np.array_equal(shown, np.where(levels[..., None] > 0, 0, stripes(EDGE_PX, EDGE_PX).numpy()))
    marked = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    generation.controls[0].ClearField("preprocessing")
    plain = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    assert marked.images[0].file.sha256 != plain.images[0].file.sha256


def test_a_zoomed_part_is_guided_by_its_part_of_the_map(server: RunningServer) -> None:
    levels = np.zeros((96, 96), np.uint8)
    levels[40:56, 24:40] = 255
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    generation = with_control(image=png(96, 96))
    generation.init_image.image.CopyFrom(png(96, 96))
    generation.mask.image.data = file.getvalue()
    generation.mask.zoom_to_mask, generation.mask.zoom_padding_px = True, 8
    request = inference_service_pb2.PreviewConditioningRequest(generation=generation)
    (found,) = server.inference.PreviewConditioning(request, timeout=asking.CALL_S).control_maps
    seen = np.asarray(Image.open(io.BytesIO(asking.blob(server, found.file.blob_id))))
    part = Image.fromarray(stripes(96, 96).numpy()[32:64, 16:48])
    assert np.array_equal(seen, np.asarray(part.resize((EDGE_PX, EDGE_PX), Image.Resampling.LANCZOS)))
    guided = pixels(server, asking.watch(server, asking.submit(server, generation))[-1].generation_result)
    del generation.controls[:]
    plain = pixels(server, asking.watch(server, asking.submit(server, generation))[-1].generation_result)
    assert np.array_equal(guided[levels == 0], stripes(96, 96).numpy()[levels == 0])
    assert (guided != plain)[levels > 0].any()


def test_a_controlnet_guides_the_picture_as_in_diffusers_and_the_result_names_it(
    server: RunningServer, root: Path
) -> None:
    generation = with_control(weight=0.6, preprocessing=CANNY, region=png())
    updates = asking.watch(server, asking.submit(server, generation))
    resolved = updates[-1].generation_result.resolved
    (told,) = resolved.generation.controls
    assert (told.weight, told.preprocessing.canny.low_threshold, told.end_ratio) == (pytest.approx(0.6), 100, 1.0)
    assert [(one.role, one.model_id) for one in resolved.used_models[1:]] == [("controlnet", "edges")]
    assert [one.field for one in resolved.used_images] == ["controls[0].image", "controls[0].region"]
    generation.controls[0].ClearField("region")
    updates = asking.watch(server, asking.submit(server, generation))
    found = pixels(server, updates[-1].generation_result).astype(int)
    own = their_pipeline(root / "sdxl").components
    net = _diffusers.ControlNetModel.from_pretrained(root / "edges")
    pipe = _diffusers.StableDiffusionXLControlNetPipeline(**own, controlnet=net, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    edges = cv2.Canny(stripes(EDGE_PX, EDGE_PX).numpy(), 100, 150)
    theirs = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        image=Image.fromarray(np.stack([edges] * 3, -1)),
        controlnet_conditioning_scale=0.6,
        num_inference_steps=2,
        guidance_scale=resolved.generation.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    # The network left the device with its job, and the next picture is the model's own.
    updates = asking.watch(server, asking.submit(server, asked("sdxl")))
    plain = their_picture(root / "sdxl", updates[-1].generation_result.resolved.generation)
    assert np.abs(pixels(server, updates[-1].generation_result).astype(int) - plain.astype(int)).max() <= 1


def test_a_controlnet_guides_both_passes_and_the_result_makes_it_again(server: RunningServer) -> None:
    again = passes_pb2.HiresPass(scale=1.5, strength=0.5, steps=4)
    guided, plain = with_control(preprocessing=CANNY), asked("sdxl")
    for generation in (guided, plain):
        generation.hires_pass.CopyFrom(again)
    updates = asking.watch(server, asking.submit(server, guided))
    result = updates[-1].generation_result
    assert pixels(server, result).shape == (96, 96, 3)
    assert [one.role for one in result.resolved.used_models] == ["base", "controlnet"]
    remade = asking.watch(server, asking.submit(server, result.resolved.generation))[-1].generation_result
    assert remade.images[0].file.sha256 == result.images[0].file.sha256
    other = asking.watch(server, asking.submit(server, plain))[-1].generation_result
    assert other.images[0].file.sha256 != remade.images[0].file.sha256
    # The first pass's size is asked for, which an error names.
    guided.controls[0].image.CopyFrom(png(96, 96))
    refusal = asking.refused(lambda: asking.submit(server, guided))
    assert "the first pass 64×64" in refusal.bad_request.field_violations[0].description


def their_flux(root: Path) -> Any:
    return _diffusers.FluxPipeline.from_pretrained(root / "wide-flux", dtype=torch.float32)


def test_a_prompt_that_changes_between_steps_is_planned_and_made_with_a_controlnet(server: RunningServer) -> None:
    generation = with_control()
    generation.prompt, generation.prompt_syntax = "a [rocket:lemon:0.5]", generation_pb2.PROMPT_SYNTAX_A1111
    request = inference_service_pb2.PlanGenerationRequest(generation=generation)
    assert server.inference.PlanGeneration(request, timeout=asking.CALL_S).HasField("resolved")
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    again = asking.watch(server, asking.submit(server, result.resolved.generation))[-1].generation_result
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    generation.prompt = "a rocket"
    still = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    assert still.images[0].file.sha256 != result.images[0].file.sha256


def test_a_controlnet_of_flux_guides_the_picture_and_is_told_the_type_of_its_map(
    server: RunningServer, root: Path
) -> None:
    refusal = asking.refused(lambda: asking.submit(server, with_control("flux-edges", "wide-flux")))
    (violation,) = refusal.bad_request.field_violations
    assert violation.field == "spec.generation.controls[0].control_type"
    assert "canny, tile, depth" in violation.description
    generation = with_control("flux-edges", "wide-flux", weight=0.6, control_type="depth")
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    resolved = result.resolved
    assert [(one.role, one.model_id) for one in resolved.used_models[1:]] == [("controlnet", "flux-edges")]
    assert resolved.generation.controls[0].control_type == "depth"
    kind = _diffusers.FluxControlNetPipeline
    pipe = kind(
        **_parts(their_flux(root)), controlnet=_diffusers.FluxControlNetModel.from_pretrained(root / "flux-edges")
    )
    pipe.set_progress_bar_config(disable=True)
    with encoded_without_noise():
        theirs = pipe(
            prompt="a rocket",
            control_image=Image.fromarray(stripes(EDGE_PX, EDGE_PX).numpy()),
            control_mode=2,
            controlnet_conditioning_scale=0.6,
            width=EDGE_PX,
            height=EDGE_PX,
            num_inference_steps=2,
            guidance_scale=resolved.generation.sampling.distilled_guidance,
            generator=torch.Generator().manual_seed(SEED),
        ).images[0]
    found = pixels(server, result).astype(int)
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    again = asking.watch(server, asking.submit(server, resolved.generation))[-1].generation_result
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    plain = asking.watch(server, asking.submit(server, asked("wide-flux")))[-1].generation_result
    assert np.abs(pixels(server, plain).astype(int) - found).max() > 1


def test_a_controlnet_of_z_image_guides_the_picture_beside_one_with_a_missing_part(
    server: RunningServer, root: Path
) -> None:
    result = asking.watch(server, asking.submit(server, with_control("z-edges", "z_image", weight=0.6)))[
        -1
    ].generation_result
    assert [(one.role, one.model_id) for one in result.resolved.used_models[1:]] == [("controlnet", "z-edges")]
    pipe = _diffusers.ZImageControlNetPipeline(
        **their_pipeline(root / "z_image").components,
        controlnet=_diffusers.ZImageControlNetModel.from_pretrained(root / "z-edges"),
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        control_image=Image.fromarray(stripes(EDGE_PX, EDGE_PX).numpy()),
        controlnet_conditioning_scale=0.6,
        width=EDGE_PX,
        height=EDGE_PX,
        num_inference_steps=2,
        guidance_scale=result.resolved.generation.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    found = pixels(server, result).astype(int)
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    plain = asking.watch(server, asking.submit(server, asked("z_image")))[-1].generation_result
    assert np.abs(pixels(server, plain).astype(int) - found).max() > 1
    generation = with_control("z-edges", "z_image", weight=0.6)
    generation.init_image.image.CopyFrom(png())
    generation.mask.image.CopyFrom(white_png())
    alone = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    generation.controls.append(
        conditioning_pb2.ControlInput(model_id="z-edges", image=png(), preprocessing=INPAINT, weight=0.6)
    )
    beside = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    assert alone.images[0].file.sha256 != beside.images[0].file.sha256


def _parts(pipeline: Any) -> dict[str, Any]:
    return {
        name: one for name, one in pipeline.components.items() if name not in ("image_encoder", "feature_extractor")
    }


def test_a_t2i_adapter_guides_the_picture_as_in_diffusers_and_the_result_names_it(
    server: RunningServer, root: Path
) -> None:
    generation = with_control("layout", "of-8", weight=0.8)
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    assert [(one.role, one.model_id) for one in result.resolved.used_models[1:]] == [("t2i_adapter", "layout")]
    pipe = _diffusers.StableDiffusionXLAdapterPipeline.from_pretrained(
        root / "of-8", adapter=_diffusers.T2IAdapter.from_pretrained(root / "layout")
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        image=Image.fromarray(stripes(EDGE_PX, EDGE_PX).numpy()),
        adapter_conditioning_scale=0.8,
        width=EDGE_PX,
        height=EDGE_PX,
        num_inference_steps=2,
        guidance_scale=result.resolved.generation.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    found = pixels(server, result).astype(int)
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    plain = asking.watch(server, asking.submit(server, asked("of-8")))[-1].generation_result
    assert np.abs(pixels(server, plain).astype(int) - found).max() > 1


def _hundred() -> generation_pb2.Generation:
    generation = with_control()
    generation.controls.extend([generation.controls[0]] * 99)
    return generation


DEPTH = conditioning_pb2.ControlPreprocessing(depth=conditioning_pb2.DepthPreprocessing())
BAD_CONTROLS: dict[str, tuple[Callable[[], generation_pb2.Generation], str, str]] = {
    "a_hundred": (_hundred, "INVALID_FIELD", "at most 8"),
    "of_another_size": (lambda: with_control(image=png(32, 64)), "INVALID_FIELD", "32×64"),
    "a_region_of_another_size": (lambda: with_control(region=png(64, 32)), "INVALID_FIELD", "64×32"),
    "of_another_family": (lambda: with_control(model="sd2"), "MODEL_INCOMPATIBLE", "sdxl"),
    "a_t2i_adapter_of_another_family": (lambda: with_control("layout", "sd2"), "MODEL_INCOMPATIBLE", "sdxl"),
    "no_controlnet": (lambda: with_control("styled"), "MODEL_INCOMPATIBLE", "is a lora and no ControlNet"),
    "a_family_without": (lambda: with_control(model="chroma"), "UNSUPPORTED_COMBINATION", "chroma"),
    "a_net_of_flux": (lambda: with_control("flux-edges"), "MODEL_INCOMPATIBLE", "guides models of flux1"),
    "a_net_of_z_image": (lambda: with_control("z-edges"), "MODEL_INCOMPATIBLE", "guides models of z_image"),
    "a_net_of_another_transformer": (
        lambda: with_control("flux-edges", "z_image"),
        "MODEL_INCOMPATIBLE",
        "guides models of flux1",
    ),
    "a_type_for_one": (lambda: with_control(control_type="depth"), "UNSUPPORTED_COMBINATION", "knows one type"),
    "an_unknown_type": (lambda: with_control(control_type="aura"), "INVALID_FIELD", "known: pose, depth"),
    "a_type_of_sdxl": (
        lambda: with_control("flux-edges", "wide-flux", control_type="normal"),
        "UNSUPPORTED_COMBINATION",
        "known: canny, tile",
    ),
    "a_map_by_a_model": (lambda: with_control(preprocessing=DEPTH), "NOT_IMPLEMENTED", "does not serve"),
    "no_picture": (lambda: with_control(image=image_pb2.ImageInput(data=b"no")), "BAD_IMAGE", ""),
    "ends_before_it_starts": (lambda: with_control(start_ratio=0.5, end_ratio=0.5), "INVALID_FIELD", "end at 0.5"),
}


@pytest.mark.parametrize("case", list(BAD_CONTROLS))
def test_a_control_that_cannot_guide_is_refused_before_there_is_a_job(server: RunningServer, case: str) -> None:
    generation, reason, told = BAD_CONTROLS[case]
    refusal = asking.refused(lambda: asking.submit(server, generation()))
    said = refusal.message + "".join(one.description for one in refusal.bad_request.field_violations)
    assert (refusal.reason, told in said) == (reason, True), said


def with_lora(name: str, model: str = "sd2", weight: float | None = None) -> generation_pb2.Generation:
    generation = asked(model)
    generation.loras.append(conditioning_pb2.LoraInput(model_id=name, weight=weight))
    return generation


def test_a_lora_changes_the_picture_as_in_diffusers_and_the_result_names_it(server: RunningServer, root: Path) -> None:
    result = asking.watch(server, asking.submit(server, with_lora("styled", weight=0.8)))[-1].generation_result
    resolved = result.resolved
    theirs = their_picture(root / "sd2", resolved.generation)
    assert np.abs(pixels(server, result).astype(int) - theirs.astype(int)).max() <= 1
    content = hashlib.sha256((root / "styled.safetensors").read_bytes()).hexdigest()
    assert [(one.role, one.model_id, one.sha256) for one in resolved.used_models[1:]] == [("lora", "styled", content)]
    plain = asking.watch(server, asking.submit(server, asked("sd2")))[-1].generation_result
    again = asking.watch(server, asking.submit(server, resolved.generation))[-1].generation_result
    files = [one.images[0].file.blob_id for one in (plain, again)]
    assert np.abs(pixels(server, plain).astype(int) - theirs.astype(int)).max() > 1
    assert asking.blob(server, files[1]) == asking.blob(server, result.images[0].file.blob_id)
    assert content.encode() in asking.blob(server, files[1])


def test_a_lora_of_a_region_over_the_whole_picture_is_the_plain_one_and_the_result_names_it(
    server: RunningServer,
) -> None:
    plain = asking.watch(server, asking.submit(server, with_lora("styled", weight=0.8)))[-1].generation_result
    box = postprocessing_pb2.PixelBox(width_px=EDGE_PX, height_px=EDGE_PX)
    own = conditioning_pb2.LoraInput(model_id="styled", weight=0.8)
    generation = asked("sd2")
    generation.regions.add(rectangle=box, prompt=generation.prompt, loras=[own])
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    assert np.abs(pixels(server, result).astype(int) - pixels(server, plain).astype(int)).max() <= 1
    assert [(one.role, one.model_id) for one in result.resolved.used_models[1:]] == [("lora", "styled")]
    (told,) = result.resolved.generation.regions[0].loras
    assert (told.model_id, told.weight, told.end_ratio) == ("styled", 0.8, 1.0)
    again = asking.watch(server, asking.submit(server, result.resolved.generation))[-1].generation_result
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    generation.regions[0].loras[0].component_weights.add(component_id="transformer", weight=1)
    (violation,) = asking.refused(lambda: asking.submit(server, generation)).bad_request.field_violations
    assert violation.field == "spec.generation.regions[0].loras[0].component_weights[0].component_id"


REFUSED = {
    "of_another_base": (lambda: with_lora("published"), ("published", "sd2", "sdxl")),
    "no_lora": (lambda: with_lora("sdxl"), ("sdxl", "checkpoint")),
    "as_the_model": (lambda: asked("styled"), ("styled", "lora")),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_lora_that_cannot_be_applied_is_refused_before_there_is_a_job(server: RunningServer, case: str) -> None:
    generation, words = REFUSED[case]
    refusal = asking.refused(lambda: asking.submit(server, generation()))
    assert refusal.reason == "MODEL_INCOMPATIBLE"
    assert all(word in refusal.message for word in words)


def test_a_lora_whose_tensors_match_nothing_ends_the_job_before_its_first_step(server: RunningServer) -> None:
    job_id = asking.submit(server, with_lora("misfit"))
    assert asking.kind(asking.watch(server, job_id)[-1]) == "failed"
    job = asking.job_of(server, job_id)
    assert job.failure.reason == error_pb2.ERROR_REASON_MODEL_INCOMPATIBLE
    assert "lora_unet_nowhere_to_q" in job.failure.message
    assert not job.receipt.steps_executed


def test_an_unknown_component_of_a_lora_is_named_with_those_that_there_are(server: RunningServer) -> None:
    generation = with_lora("styled")
    generation.loras[0].component_weights.add(component_id="transformer", weight=1)
    (violation,) = asking.refused(lambda: asking.submit(server, generation)).bad_request.field_violations
    assert violation.field == "spec.generation.loras[0].component_weights[0].component_id"
    assert "unet" in violation.description


def with_word(
    name: str, model: str = "wide", token: str = "", weight: float | None = None
) -> generation_pb2.Generation:
    generation = asked(model)
    generation.prompt = "an <owl> on a rocket"
    generation.textual_inversions.append(
        conditioning_pb2.TextualInversionInput(model_id=name, token=token, weight=weight)
    )
    return generation


def test_a_learned_word_is_read_as_in_diffusers_and_the_result_names_it(server: RunningServer, root: Path) -> None:
    plain = asked("wide")
    plain.prompt = "an <owl> on a rocket"
    before = asking.watch(server, asking.submit(server, plain))[-1].generation_result
    result = asking.watch(server, asking.submit(server, with_word("owl")))[-1].generation_result
    resolved = result.resolved
    pipe = _diffusers.StableDiffusionPipeline.from_pretrained(root / "wide", dtype=torch.float32)
    pipe.load_textual_inversion(root, weight_name="owl.safetensors")
    theirs = _their_picture(pipe, "sd2", resolved.generation)
    assert np.abs(pixels(server, result).astype(int) - theirs.astype(int)).max() <= 1
    content = hashlib.sha256((root / "owl.safetensors").read_bytes()).hexdigest()
    used = [(one.role, one.model_id, one.sha256) for one in resolved.used_models[1:]]
    assert used == [("textual_inversion", "owl", content)]
    (word,) = resolved.generation.textual_inversions
    assert (word.token, word.weight) == ("<owl>", 1.0)
    after, again = (
        asking.watch(server, asking.submit(server, one))[-1].generation_result for one in (plain, resolved.generation)
    )
    files = [asking.blob(server, one.images[0].file.blob_id) for one in (before, after, result, again)]
    assert (files[0] == files[1], files[2] == files[3], content.encode() in files[3]) == (True, True, True)
    assert np.abs(pixels(server, before).astype(int) - theirs.astype(int)).max() > 1


def test_a_word_of_the_vocabulary_ends_the_job_before_its_first_step(server: RunningServer) -> None:
    job_id = asking.submit(server, with_word("nameless", token="style"))
    assert asking.kind(asking.watch(server, job_id)[-1]) == "failed"
    job = asking.job_of(server, job_id)
    assert job.failure.reason == error_pb2.ERROR_REASON_INVALID_FIELD
    assert ("vocabulary (style" in job.failure.message, job.receipt.steps_executed) == (True, 0)


WORDS_REFUSED = {
    "of_another_base": (with_word("of-sd1", token="x1"), "MODEL_INCOMPATIBLE", ("of-sd1", "wide", "sd1")),
    "a_lora": (with_word("styled", token="x1"), "MODEL_INCOMPATIBLE", ("styled", "lora")),
    "without_a_word": (with_word("nameless"), "INVALID_FIELD", ("nameless", "textual_inversions[0].token")),
    "a_space_before": (with_word("owl", token=" owl"), "INVALID_FIELD", ("textual_inversions[0].token",)),
    "too_long": (with_word("owl", token="x" * 256), "INVALID_FIELD", ("textual_inversions[0].token", "255")),
}


@pytest.mark.parametrize("case", list(WORDS_REFUSED))
def test_a_learned_word_that_cannot_be_read_is_refused_before_there_is_a_job(server: RunningServer, case: str) -> None:
    generation, reason, words = WORDS_REFUSED[case]
    refusal = asking.refused(lambda: asking.submit(server, generation))
    assert refusal.reason == reason
    assert all(word in f"{refusal.message} {refusal.bad_request}" for word in words)


def test_one_word_cannot_stand_for_two(server: RunningServer) -> None:
    generation = with_word("owl")
    generation.textual_inversions.append(conditioning_pb2.TextualInversionInput(model_id="nameless", token="<OWL>"))
    (violation,) = asking.refused(lambda: asking.submit(server, generation)).bad_request.field_violations
    assert violation.field == "spec.generation.textual_inversions[1].token"
    assert all(name in violation.description for name in ("owl", "nameless"))
