"""IP-Adapters in our engine against diffusers' `load_ip_adapter`, on random weights: same pictures, noise and latents."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.imaging import square
from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given, GivenImagePrompt
from domains.inference.image_prompts import ImagePromptMode
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.image_prompts import ImagePrompts, ImagePromptsOfJob
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import CheckpointReady, Report
from domains.model.model import Model
from domains.model.on_device import load
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.image_prompt_files import (
    EDGE_PX,
    given,
    image_prompt,
    picture,
    write_adapter,
    write_encoder,
)
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family

VARIANTS = ("plain", "plus", "full")
REGION = torch.zeros(32, 48, 1, dtype=torch.uint8)
REGION[:, :24] = 255


class Prompted(Loaded):
    """A tiny model with adapters and the encoder that they read with."""

    def __init__(self, model: Model, folder: Path, pipeline: Any = None) -> None:
        super().__init__(model, pipeline)
        unet = self.ours.modules["unet"]
        self.encoder = write_encoder(folder / "image_encoder")
        self.adapters = {
            name: write_adapter(folder / f"{name}.safetensors", unet, name, seed) for seed, name in enumerate(VARIANTS)
        }
        self.pool = NetworkPool(RealHardware(self.ours.device))

    def of(self, wanted: ResolvedGeneration, files: Sequence[GivenImagePrompt]) -> ImagePrompts:
        """The image prompts of a job."""
        job, unet = ImagePromptsOfJob("job", wanted, files, self.pool), self.unet
        while not job.bring(self.ours, unet):
            pass
        return job.made(wanted, self.ours, unet)

    @property
    def unet(self) -> Any:
        """The engine's."""
        view: Any = family_of(self.ours)
        return view.unet


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Prompted:
    name: str = request.param
    folder = tmp_path_factory.mktemp("prompted")
    if name == "sd1":
        return Prompted(tiny, folder, reference_pipeline)
    return Prompted(write_tiny_family(name, folder / name), folder)


def begun(family: Prompted, wanted: ResolvedGeneration, files: Sequence[GivenImagePrompt]) -> Trajectory:
    view, prompts = family_of(family.ours), family.of(wanted, files)
    found = condition(family.ours, view, wanted, PromptCache())
    config, device = family.ours.scheduler_config, family.ours.device
    return begin(view, wanted, config, found.conditions, device, guides=Guides(image_prompts=prompts))


def ours(family: Prompted, wanted: ResolvedGeneration, files: Sequence[GivenImagePrompt]) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(family, wanted, files)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def theirs(family: Prompted, wanted: ResolvedGeneration, pictures: Sequence[Sequence[Tensor]], **more: Any) -> Tensor:
    """Of diffusers' pipeline with the adapters that the request names."""
    pipe = with_theirs(family, wanted)
    pipe.set_ip_adapter_scale(more.pop("scale")) if "scale" in more else None
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    count = len(wanted.seeds)
    return pipe(
        prompt=[wanted.prompt] * count,
        negative_prompt=[wanted.negative_prompt] * count,
        ip_adapter_image=[[Image.fromarray(np.asarray(one)) for one in some] for some in pictures],
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        latents=noise,
        output_type="latent",
        **more,
    ).images


def with_theirs(family: Prompted, wanted: ResolvedGeneration) -> Any:
    """Diffusers' pipeline with the encoder, and with the adapters that the request names."""
    pipe = family.fresh()
    encoder: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(family.encoder.folder)
    reader = transformers.CLIPImageProcessor(size=EDGE_PX, crop_size=EDGE_PX)
    pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
    parts = [_parts(one.model_id, family) for one in wanted.image_prompts]
    pipe.load_ip_adapter(parts, subfolder="", weight_name=[""] * len(parts))
    pipe.set_ip_adapter_scale([one.weight for one in wanted.image_prompts])
    return pipe


def _parts(name: str, family: Prompted) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in load_file(Path(family.adapters[name].folder) / f"{name}.safetensors").items():
        part, _, rest = key.partition(".")
        found[part][rest] = tensor
    return found


CASES: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "plain": ({"plain": {}}, {}),
    "plus": ({"plus": {}}, {}),
    "full_without_guidance": ({"full": {"weight": 0.7}}, {"guidance_scale": 1.0}),
    "two_with_several_pictures": ({"plain": {"weight": 0.4}, "plus": {"weight": 1.3}}, {"seeds": (3, 9), "steps": 2}),
}
PICTURES = {"plain": [picture(1)], "plus": [picture(2), picture(3)], "full": [picture(4)]}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_with_ip_adapters_are_those_of_diffusers(family: Prompted, tmp_path: Path, case: str) -> None:
    changes, more = CASES[case]
    found = [(family.adapters[name], PICTURES[name], one) for name, one in changes.items()]
    prompts = tuple(image_prompt(model, family.encoder, len(some), **one) for model, some, one in found)
    wanted = asked(family, image_prompts=prompts, **{"sampler": "euler", **more})
    files = [given(model, family.encoder, some, tmp_path) for model, some, _ in found]
    latents = ours(family, wanted, files)
    pictures = [some for _, some, _ in found]
    assert gap(latents, theirs(family, wanted, pictures)) < TOLERANCE
    # The pictures show: it is no rounding that is compared.
    assert gap(latents, final_latents(family.ours, asked(family, **{"sampler": "euler", **more}))) > 0.01


def test_a_region_keeps_pictures_to_it_as_in_diffusers(family: Prompted, tmp_path: Path) -> None:
    adapter = family.adapters["plain"]
    wanted = asked(family, sampler="euler", image_prompts=(image_prompt(adapter, family.encoder),))
    found = ours(family, wanted, [given(adapter, family.encoder, [picture(1)], tmp_path, REGION)])
    masks = IPAdapterMaskProcessor().preprocess([Image.fromarray(REGION[..., 0].numpy())], height=32, width=48)
    arguments = {"ip_adapter_masks": [masks.reshape(1, 1, 32, 48)]}
    assert gap(found, theirs(family, wanted, [[picture(1)]], cross_attention_kwargs=arguments)) < TOLERANCE


def test_style_and_composition_are_the_layers_that_diffusers_documents(family: Prompted, tmp_path: Path) -> None:
    if family.model.family != "sdxl":
        return
    adapter = family.adapters["plain"]
    prompts = tuple(image_prompt(adapter, family.encoder, mode=one) for one in (ImagePromptMode.STYLE,))
    wanted = asked(family, sampler="euler", image_prompts=prompts)
    found = ours(family, wanted, [given(adapter, family.encoder, [picture(1)], tmp_path)])
    # The tiny U-Net has fewer blocks than the published one; its first block upwards has two layers.
    scale = {"up": {"block_0": [0.0, 1.0]}}
    assert gap(found, theirs(family, wanted, [[picture(1)]], scale=scale)) < TOLERANCE
    plain = asked(family, sampler="euler")
    assert gap(found, final_latents(family.ours, plain)) > 0.001


def test_a_negative_picture_leads_away_from_it(family: Prompted, tmp_path: Path) -> None:
    adapter, shown = family.adapters["plus"], picture(1)
    wanted = asked(family, image_prompts=(image_prompt(adapter, family.encoder),), guidance_scale=3.0)
    plain, negative = (
        ours(family, wanted, [given(adapter, family.encoder, [shown], tmp_path, negative=one)])
        for one in (None, picture(5))
    )
    assert gap(plain, negative) > 0.001
    # What both rows see alike, guidance does not amplify: only the prompt is left to guide.
    same = ours(family, wanted, [given(adapter, family.encoder, [shown, shown], tmp_path, negative=shown)])
    with torch.inference_mode():
        files = [given(adapter, family.encoder, [shown, shown], tmp_path, negative=shown)]
        (prompt,) = family.of(wanted, files).all
    assert all(torch.allclose(one[0], one[1], atol=1e-5) for pair in prompt.keys for one in pair)
    assert gap(same, negative) > 0.001


def test_jobs_with_and_without_ip_adapters_share_forwards(family: Prompted, tmp_path: Path) -> None:
    first, second = family.adapters["plain"], family.adapters["plus"]
    encoder = family.encoder

    def files(*models: Model, region: Tensor | None = None) -> list[GivenImagePrompt]:
        return [given(one, encoder, PICTURES[one.id], tmp_path, region) for one in models]

    one, two = image_prompt(first, encoder), image_prompt(second, encoder, 2, weight=0.6)
    ranged = image_prompt(first, encoder, end_ratio=0.5)
    mixed: list[tuple[list[GivenImagePrompt], ResolvedGeneration]] = [
        ([], asked(family)),
        (files(first), asked(family, image_prompts=(ranged,), steps=4)),
        (files(first, second), asked(family, image_prompts=(one, two), seeds=(1, 2))),
        (files(second), asked(family, image_prompts=(two,), guidance_scale=1.0)),
        (files(first), asked(family, image_prompts=(one,), guidance_start_ratio=0.5)),
        (files(first, region=REGION), asked(family, image_prompts=(one,))),
    ]
    alone = [ours(family, wanted, some) for some, wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted, some) for some, wanted in mixed]
        assert len({one.alike for one in group}) == 1
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_an_ip_adapter_without_weight_or_steps_gives_the_bytes_of_none(family: Prompted, tmp_path: Path) -> None:
    adapter = family.adapters["plain"]
    plain = final_latents(family.ours, asked(family))
    files = [given(adapter, family.encoder, [picture(1)], tmp_path)]
    without: list[dict[str, Any]] = [{"weight": 0.0}, {"start_ratio": 0.5, "end_ratio": 0.6}]
    for changes in without:
        wanted = asked(family, image_prompts=(image_prompt(adapter, family.encoder, **changes),))
        assert torch.equal(ours(family, wanted, files), plain)
    assert family.pool.sizes() == {}


def test_an_adapter_of_another_model_or_encoder_is_refused_before_any_step(family: Prompted, tmp_path: Path) -> None:
    name = "sd2" if family.model.family == "sdxl" else "sdxl"
    other = load(write_tiny_family(name, tmp_path / name), "cpu")
    adapter = write_adapter(tmp_path / "stranger.safetensors", other.modules["unet"])
    wanted = asked(family, image_prompts=(image_prompt(adapter, family.encoder),))
    files = [given(adapter, family.encoder, [picture(1)], tmp_path)]
    job = ImagePromptsOfJob("job", wanted, files, NetworkPool(RealHardware(family.ours.device)))
    with pytest.raises(FailedPrecondition, match="does not fit model") as refused:
        list(iter(lambda: job.bring(family.ours, family.unet), True))
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    narrow = write_encoder(tmp_path / "narrow", embedding=40)
    adapter = family.adapters["plain"]
    wanted = asked(family, image_prompts=(image_prompt(adapter, narrow),))
    with pytest.raises(FailedPrecondition, match="vectors of 40 values"), torch.inference_mode():
        family.of(wanted, [given(adapter, narrow, [picture(1)], tmp_path)])


def test_pictures_are_cut_and_resampled_as_the_encoder_was_trained() -> None:
    tall = torch.randint(0, 256, (71, 45, 3), generator=torch.Generator().manual_seed(7), dtype=torch.uint8).numpy()
    reader = transformers.CLIPImageProcessor(size=EDGE_PX, crop_size=EDGE_PX, do_normalize=False, do_rescale=False)
    expected = reader(Image.fromarray(tall), return_tensors="np").pixel_values[0].transpose(1, 2, 0)
    assert np.abs(square(tall, EDGE_PX).astype(float) - expected).max() <= 1


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_an_exact_job_that_was_paused_goes_on_to_the_same_picture_and_its_networks_leave_before_the_steps(
    loop: Recorder, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "image_encoder")
    adapter = write_adapter(tmp_path / "plain.safetensors", loop.loaded.modules["unet"])
    size: dict[str, Any] = {"width_px": 32, "height_px": 32, "steps": 4, "sampler": "euler_a"}
    prompts = (image_prompt(adapter, encoder),)
    wanted = request(loop.loaded.model, image_prompts=prompts, determinism=Determinism.EXACT, **size)
    files = (given(adapter, encoder, [picture(1)], tmp_path),)
    held: list[dict[str, int]] = []

    def pause(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and (report.stage, report.completed) == (Stage.DENOISING, 2):
            if job_id in ("whole", "paused"):  # one beside may be here while they still prepare
                held.append(loop.loop.resources.control_bytes())
            if job_id == "paused":
                loop.loop.stop(job_id, Stop(kind=StopKind.PAUSE, cause="the device is needed"))

    loop.on_report = pause
    for name in ("whole", "paused"):
        loop.loop.submit(name, Given(loop.loaded.model, wanted, image_prompts=files))
        # The next request has none, and shares the device.
        loop.loop.submit(f"beside {name}", Given(loop.loaded.model, request(loop.loaded.model, **size)))
        loop.run()
    (kept,) = loop.of("paused", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    loop.loop.submit("resumed", Given(loop.loaded.model, wanted, kept=file, image_prompts=files))
    loop.loop.submit("plain", Given(loop.loaded.model, request(loop.loaded.model, **size)))
    loop.run()
    assert loop.files("resumed") == loop.files("whole")
    assert loop.files("plain") != loop.files("whole")
    assert loop.files("plain") == loop.files("beside whole")
    assert held == [{}, {}]
