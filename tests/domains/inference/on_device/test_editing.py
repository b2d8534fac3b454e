"""Models made for editing, which see a picture beside the prompt, against diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.controls import Control, PictureSource, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.given import Given
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import InitImage
from domains.inference.input_picture import InputPicture
from domains.inference.masks import InpaintMask
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.packing import packed, unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import CheckpointReady, Report
from domains.inference.prompts import Syntax
from domains.inference.references import Reference, ResolvedReference
from domains.inference.resolution.references import default_image_guidance, nearest_px
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.model.model import Model, ModelState
from domains.model.on_device import OnDeviceModel, load
from domains.progress import Progressed, Stage, Unit
from tests.domains.inference.on_device.from_picture import gradient
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import embedded_model, request, their_guidance
from tests.domains.inference.on_device.test_every_family import FOG, OWL, TOLERANCE, gap
from tests.domains.inference.on_device.test_image_to_image import PAUSE, stored
from tests.domains.inference.on_device.test_native_inpainting import SDXL_TEXT
from tests.domains.inference.on_device.tiny_families import TINY, Parts, unet, write_parts

PICTURE = gradient(48, 32)
"""What is seen: (32, 48, 3)."""
EDITORS: dict[str, tuple[str, str, Parts]] = {
    "sd1": (
        "sd2",
        "StableDiffusionInstructPix2PixPipeline",
        {
            "unet": (
                "UNet2DConditionModel",
                unet(
                    cross_attention_dim=32,
                    attention_head_dim=(2, 4),
                    in_channels=8,
                    out_channels=4,
                    use_linear_projection=False,
                ),
            )
        },
    ),
    "sdxl": (
        "sdxl",
        "StableDiffusionXLInstructPix2PixPipeline",
        {"unet": ("UNet2DConditionModel", unet(in_channels=8, out_channels=4, **SDXL_TEXT))},
    ),
    "flux1": ("flux1", "FluxKontextPipeline", {}),
}
"""By family: the tiny model that it changes, the pipeline, the components that are other ones."""


@pytest.fixture(scope="module", params=list(EDITORS))
def editor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnDeviceModel:
    name: str = request.param
    like, pipeline, changes = EDITORS[name]
    model = write_parts(pipeline, {**TINY[like][1], **changes}, tmp_path_factory.mktemp("editing") / name)
    assert (model.family, model.variant, model.state, model.problem) == (name, "editing", ModelState.AVAILABLE, "")
    return load(model, "cpu")


def seen(width_px: int = 48, height_px: int = 32) -> ResolvedReference:
    image = UsedPicture(blob_id="b-1", sha256="0" * 64)
    return ResolvedReference(image=image, fit=ImageFit.COVER, width_px=width_px, height_px=height_px)


def asked(model: Model, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {
        "sampler": "euler",
        "steps": 3,
        "width_px": 48,
        "height_px": 32,
        "prompt": OWL,
        "negative_prompt": FOG,
        "references": (seen(),),
        "image_guidance_scale": default_image_guidance(model),
    }
    return request(model, **{**plain, **changes})


def begun(loaded: OnDeviceModel, wanted: ResolvedGeneration, pictures: Any = (PICTURE,)) -> Trajectory:
    view = family_of(loaded)
    latents = [view.encode_reference(one) for one in pictures]
    found = condition(loaded, view, wanted, PromptCache(), pictures=latents)
    config, device = loaded.scheduler_config, loaded.device
    return begin(view, wanted, config, found.conditions, device, renew=found.renew)


def our_latents(loaded: OnDeviceModel, wanted: ResolvedGeneration, pictures: Any = (PICTURE,)) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(loaded, wanted, pictures)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def their_latents(loaded: OnDeviceModel, wanted: ResolvedGeneration, picture: Tensor = PICTURE) -> Tensor:
    kind: Any = getattr(diffusers, EDITORS[wanted.family][1])
    pipeline = kind.from_pretrained(loaded.model.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    shape, pictures = family_of(loaded).latent_shape(wanted.width_px, wanted.height_px), len(wanted.seeds)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    size: dict[str, Any] = {"height": wanted.height_px, "width": wanted.width_px}
    more: dict[str, Any] = {"image_guidance_scale": wanted.image_guidance_scale}
    if wanted.family == "flux1":
        more = {"max_area": wanted.width_px * wanted.height_px, "_auto_resize": False}
    if wanted.guidance_rescale:
        more["guidance_rescale"] = wanted.guidance_rescale
    image = Image.fromarray(picture.numpy())
    found = pipeline(
        prompt=[wanted.prompt] * pictures,
        image=image if wanted.family == "flux1" else [image] * pictures,
        num_inference_steps=wanted.steps,
        latents=packed(noise) if wanted.family == "flux1" else noise,
        output_type="latent",
        **their_guidance(wanted),
        **(size if wanted.family != "sd1" else {}),
        **more,
    ).images
    return unpacked(found, *shape[1:]) if wanted.family == "flux1" else found


CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "two_pictures": {"seeds": (3, 9)},
    "without_guidance": {"guidance_scale": 1.0},
    "blank_negative_prompt": {"negative_prompt": ""},
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_are_those_of_diffusers(editor: OnDeviceModel, case: str) -> None:
    wanted = asked(editor.model, **CASES[case])
    assert gap(our_latents(editor, wanted), their_latents(editor, wanted)) < TOLERANCE


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_guidance_by_the_picture_counts_as_in_diffusers(editor: OnDeviceModel, scale: float) -> None:
    if editor.model.family == "flux1":
        pytest.skip("it reads the picture as it reads its own latents")
    wanted = asked(editor.model, image_guidance_scale=scale)
    assert gap(our_latents(editor, wanted), their_latents(editor, wanted)) < TOLERANCE
    assert gap(our_latents(editor, wanted), our_latents(editor, asked(editor.model))) > 10 * TOLERANCE


def test_its_contrast_is_pulled_back_as_in_diffusers(editor: OnDeviceModel) -> None:
    if editor.model.family != "sdxl":
        pytest.skip("diffusers has it for the editors of SDXL alone")
    wanted = asked(editor.model, guidance_scale=9.0, guidance_rescale=0.7)
    assert gap(our_latents(editor, wanted), their_latents(editor, wanted)) < TOLERANCE


def test_the_picture_counts(editor: OnDeviceModel) -> None:
    other = our_latents(editor, asked(editor.model), (PICTURE.flip(0),))
    assert gap(other, our_latents(editor, asked(editor.model))) > 10 * TOLERANCE


def test_a_picture_of_another_shape_is_seen_by_kontext_as_in_diffusers(editor: OnDeviceModel) -> None:
    if editor.model.family != "flux1":
        pytest.skip("a U-Net sees a picture in the result's size")
    wanted, picture = asked(editor.model, references=(seen(32, 64),)), gradient(32, 64)
    assert gap(our_latents(editor, wanted, (picture,)), their_latents(editor, wanted, picture)) < TOLERANCE
    without = asked(editor.model, references=())
    assert gap(our_latents(editor, without, ()), our_latents(editor, wanted, (picture,))) > 10 * TOLERANCE


def test_jobs_share_forwards(editor: OnDeviceModel) -> None:
    jobs = [
        asked(editor.model),
        asked(editor.model, seeds=(1, 2), guidance_scale=3.0, steps=4),
        asked(editor.model, guidance_scale=1.0),
    ]
    alone = [our_latents(editor, wanted) for wanted in jobs]
    with torch.inference_mode():
        group = [begun(editor, wanted) for wanted in jobs]
        assert len({one.alike for one in group}) == 1
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


def test_prompts_that_guide_together_do_so_beside_the_picture(editor: OnDeviceModel) -> None:
    if editor.model.family == "flux1":
        pytest.skip("it reads prompts as plain text")
    one = asked(editor.model)
    twice = asked(editor.model, prompt=f"{OWL} :0.25 AND {OWL} :0.75", prompt_syntax=Syntax.A1111)
    assert gap(our_latents(editor, twice), our_latents(editor, replace(one, prompt_syntax=Syntax.A1111))) < TOLERANCE


def test_a_seen_picture_shows_signs_of_life_while_it_is_encoded(
    editor: OnDeviceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.inference.on_device.load_run._LIFE_S", 0.0)
    loop = Recorder(editor.model)
    try:
        wanted = asked(editor.model)
        loop.loop.submit("a", Given(editor.model, wanted, references=(stored(tmp_path, PICTURE),)))
        loop.run()
        assert Progressed(stage=Stage.CONDITIONING, completed=0, total=1, unit=Unit.IMAGES) in loop.reports["a"]
    finally:
        loop.loop.close()


def test_a_paused_job_goes_on_to_the_same_bytes(editor: OnDeviceModel, tmp_path: Path) -> None:
    loop, wanted = Recorder(editor.model), asked(editor.model)
    at = Progressed(stage=Stage.DENOISING, completed=1, total=wanted.steps, unit=Unit.STEPS)

    def pause(job_id: str, report: Report) -> None:
        if job_id == "paused" and report == at:
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    files = (stored(tmp_path, PICTURE),)
    try:
        for name in ("whole", "paused"):
            loop.loop.submit(name, Given(editor.model, wanted, references=files))
            loop.run()
        (kept,) = loop.of("paused", CheckpointReady)
        assert isinstance(kept, CheckpointReady)
        (tmp_path / "kept").mkdir()
        progress = stored(tmp_path / "kept", torch.frombuffer(bytearray(kept.data), dtype=torch.uint8))
        loop.loop.submit("resumed", Given(editor.model, wanted, references=files, kept=progress))
        loop.run()
        assert loop.files("resumed") == loop.files("whole") != []
    finally:
        loop.loop.close()


READ = InputPicture(blob_id="b-1", sha256="0" * 64, width_px=300, height_px=200)


def refused(model: Model, *, pictures: int = 1, sampling: Sampling | None = None, **changes: Any) -> list[str]:
    given = (Reference(image=PictureSource(blob_id="b-1")),) * pictures
    asked = Generation(prompt="x", references=given, sampling=sampling or Sampling(), **changes)
    with pytest.raises(InvalidRequest) as told:
        resolve(asked, model, RequestFiles(picture=READ, mask=READ, references=[READ] * pictures))
    assert told.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    return [one.field for one in told.value.violations]


def test_what_the_model_cannot_see_is_refused_by_name(editor: OnDeviceModel) -> None:
    model = editor.model
    assert refused(model, pictures=2) == ["generation.reference_images"]
    if model.family != "flux1":
        assert refused(model, pictures=0) == ["generation.reference_images"]
    else:
        assert refused(model, sampling=Sampling(image_guidance_scale=2.0)) == [
            "generation.sampling.image_guidance_scale"
        ]
    assert refused(embedded_model()) == ["generation.reference_images"]
    start, zoomed = InitImage(blob_id="b-1"), InpaintMask(blob_id="b-2", zoom_to_mask=True)
    assert refused(model, init_image=start, mask=zoomed) == ["generation.reference_images"]
    control = Control(model_id="c", image=PictureSource(blob_id="b-1"))
    assert refused(model, controls=(control,)) == ["generation.reference_images"]


def test_a_picture_is_brought_to_a_size_that_the_model_takes(editor: OnDeviceModel) -> None:
    asked = Generation(
        prompt="x", references=(Reference(image=PictureSource(blob_id="b-1")),), width_px=64, height_px=96
    )
    (found,) = resolve(asked, editor.model, RequestFiles(references=[READ])).references
    assert found.fit is ImageFit.COVER
    wanted = (1248, 832) if editor.model.family == "flux1" else (64, 96)
    assert (found.width_px, found.height_px) == wanted


def test_sizes_of_kontext_are_those_of_diffusers() -> None:
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    for aspect in (0.1, 0.43, 0.77, 1.0, 1.33, 1.5, 2.0, 9.0):
        _, *theirs = min((abs(aspect - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        assert nearest_px(aspect) == tuple(theirs)
