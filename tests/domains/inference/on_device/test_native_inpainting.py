"""Models made for inpainting, which read the mask and the picture without it, against diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.benchmark import ModelBenchmark, benchmark_cases
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.init_image import InitImage
from domains.inference.input_picture import InputPicture
from domains.inference.masks import InpaintMask
from domains.inference.on_device.families.packing import unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.trajectory import walk_together
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.model.model import Model, ModelState
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.from_picture import PACKED, from_picture, gradient
from tests.domains.inference.on_device.masked import Pixels, begun_masked, levels, mask, masked_latents
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_inpainting import kept_at, run
from tests.domains.inference.on_device.tiny_families import TINY, Parts, flux, unet, vae, write_parts

PICTURE = gradient(64, 32)
WHITE = levels(64, 32, (16, 8, 48, 24))
SDXL_TEXT: dict[str, Any] = {
    "cross_attention_dim": 48,
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 464,
    "projection_class_embeddings_input_dim": 32 + 6 * 464,
}
_FILL: Parts = {
    "transformer": ("FluxTransformer2DModel", flux(guidance=True, in_channels=384, out_channels=64)),
    # Its mask has a channel for each of 8×8 pixels.
    "vae": (
        "AutoencoderKL",
        vae(
            16,
            scaling_factor=0.36,
            shift_factor=0.12,
            use_quant_conv=False,
            use_post_quant_conv=False,
            block_out_channels=(16,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
    ),
}
NATIVE: dict[str, tuple[str, Parts]] = {
    "sd2": (
        "StableDiffusionInpaintPipeline",
        {
            "unet": (
                "UNet2DConditionModel",
                unet(cross_attention_dim=32, attention_head_dim=(2, 4), in_channels=9, out_channels=4),
            )
        },
    ),
    "sdxl": (
        "StableDiffusionXLInpaintPipeline",
        {"unet": ("UNet2DConditionModel", unet(in_channels=9, out_channels=4, **SDXL_TEXT))},
    ),
    "flux1": ("FluxFillPipeline", _FILL),
}


@pytest.fixture(scope="module", params=list(NATIVE))
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnDeviceModel:
    name: str = request.param
    pipeline, changes = NATIVE[name]
    model = write_parts(pipeline, {**TINY[name][1], **changes}, tmp_path_factory.mktemp("native") / name)
    assert (model.family, model.variant, model.state, model.problem) == (name, "inpainting", ModelState.AVAILABLE, "")
    return load(model, "cpu")


def asked(model: Model, strength: float, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"sampler": "euler", "steps": 4, "width_px": 64, "height_px": 32, "mask": mask()}
    plain["init_image"] = from_picture(strength)
    plain["guidance_scale"] = 1.0 if model.family == "flux1" else 5.0
    return request(model, **{**plain, **changes})


def their_latents(wanted: ResolvedGeneration, folder: Path, white: Pixels) -> Tensor:
    kind: Any = getattr(diffusers, NATIVE[wanted.family][0])
    pipeline = kind.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures = len(wanted.seeds)
    found = pipeline(
        [wanted.prompt] * pictures,
        image=[Image.fromarray(PICTURE.numpy())] * pictures,
        mask_image=[Image.fromarray(white)] * pictures,
        strength=wanted.init_image.strength if wanted.init_image else 1.0,
        height=wanted.height_px,
        width=wanted.width_px,
        num_inference_steps=wanted.steps,
        **_guided(wanted),
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images
    return unpacked(found, wanted.height_px // 8, wanted.width_px // 8) if wanted.family in PACKED else found


def _guided(wanted: ResolvedGeneration) -> dict[str, float]:
    """The pipeline of FLUX.1 Fill reads no negative prompt."""
    scale = wanted.distilled_guidance if wanted.family == "flux1" else wanted.guidance_scale
    return {"guidance_scale": scale or 0.0}


@pytest.mark.parametrize(("strength", "seeds"), [(1.0, (3,)), (0.75, (3, 9))])
def test_the_latents_are_those_of_diffusers(native: OnDeviceModel, strength: float, seeds: tuple[int, ...]) -> None:
    wanted = asked(native.model, strength, seeds=seeds)
    ours = masked_latents(native, wanted, PICTURE, WHITE)
    theirs = their_latents(wanted, Path(native.model.folder), WHITE)
    assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < 1e-4


def test_the_model_reads_the_mask_and_the_picture_around_it(native: OnDeviceModel) -> None:
    wanted = asked(native.model, 1.0)
    plain = masked_latents(native, wanted, PICTURE, WHITE)
    other = PICTURE.clone()
    other[:, :8] = 0
    hidden = PICTURE.clone()
    hidden[8:24, 16:48] = 0
    wider = levels(64, 32, (16, 8, 56, 24))
    assert float((masked_latents(native, wanted, other, WHITE) - plain).abs().max()) > 1e-3
    assert float((masked_latents(native, wanted, PICTURE, wider) - plain).abs().max()) > 1e-3
    # All begins at noise: what is hidden has no influence.
    torch.testing.assert_close(masked_latents(native, wanted, hidden, WHITE), plain, rtol=0, atol=0)


def test_jobs_share_forwards(native: OnDeviceModel) -> None:
    jobs = [asked(native.model, 1.0, seeds=(1, 2)), asked(native.model, 0.6, steps=5, guidance_scale=3.0)]
    alone = [masked_latents(native, one, PICTURE, WHITE) for one in jobs]
    with torch.inference_mode():
        group = [begun_masked(native, one, PICTURE, WHITE) for one in jobs]
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        assert float((one.latents - latents).abs().max() / latents.abs().max().clamp(min=1)) < 1e-4
    assert family_of(native).latent_shape(64, 32)[0] == group[0].latents.shape[1]


def test_a_paused_part_goes_on_to_the_same_bytes(native: OnDeviceModel, tmp_path: Path) -> None:
    loop = Recorder(native.model)
    try:
        wanted = asked(native.model, 1.0)
        run(loop, tmp_path, "whole", wanted, WHITE)
        kept = kept_at(loop, tmp_path, "paused", wanted, 1, WHITE)
        run(loop, tmp_path, "resumed", wanted, WHITE, kept=kept)
        assert loop.files("resumed") == loop.files("whole") != []
    finally:
        loop.loop.close()


def test_a_request_without_a_mask_is_refused_by_name(native: OnDeviceModel) -> None:
    start = InitImage(blob_id="b-1")
    picture = InputPicture(blob_id="b-1", sha256="0" * 64, width_px=64, height_px=64)
    with pytest.raises(InvalidRequest) as refused:
        resolve(Generation(prompt="x", init_image=start), native.model, RequestFiles(picture=picture))
    assert [one.field for one in refused.value.violations] == ["generation.mask"]
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    both = Generation(prompt="x", init_image=start, mask=InpaintMask(blob_id="b-2"))
    assert resolve(both, native.model, RequestFiles(picture=picture, mask=picture)).mask is not None
    with pytest.raises(InvalidRequest) as refused:
        list(benchmark_cases(ModelBenchmark(model_id=native.model.id), native.model))
    assert [one.field for one in refused.value.violations] == ["model_benchmark.model_id"]
