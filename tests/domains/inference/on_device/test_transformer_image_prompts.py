"""IP-Adapters of FLUX.1 and SD3 in our engine against diffusers' `load_ip_adapter`, on random weights: same pictures and
noise, same latents."""

from collections.abc import Mapping, Sequence
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.imaging import squeezed
from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given, GivenImagePrompt
from domains.inference.image_prompts import TIMED
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.areas import Area
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import NO_CONTROLS, Controls, ControlsOfJob
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import regardless
from domains.inference.on_device.families.packing import packed, unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.image_prompts import ImagePrompts, ImagePromptsOfJob
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.networks.joint_reads import reading_behind_blocks
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import CheckpointReady, Report
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.model import Model
from domains.model.on_device import load
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.control_files import control, stripes
from tests.domains.inference.on_device.control_files import given as control_given
from tests.domains.inference.on_device.image_prompt_files import (
    EDGE_PX,
    given,
    image_prompt,
    picture,
    write_adapter,
    write_clip,
    write_siglip,
)
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import their_guidance
from tests.domains.inference.on_device.test_every_family import PACKED, TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import TINY, flux, write_parts, write_tiny_family
from tests.domains.inference.on_device.transformer_controls import their_controlled, write_net

VARIANTS = {"flux1": ("xlabs", "diffusers"), "sd3": ("instantx",), "chroma": ("xlabs",)}
REGION = torch.zeros(32, 48, 1, dtype=torch.uint8)
REGION[:, :24] = 255


def write_family(name: str, folder: Path) -> Model:
    """A tiny model with several layers that read pictures."""
    if name == "sd3":
        return write_tiny_family(name, folder)
    pipeline, parts = TINY[name]
    deeper = ("FluxTransformer2DModel", flux(guidance=True, num_layers=2, num_single_layers=1))
    return write_parts(pipeline, {**parts, "transformer": deeper}, folder)


class Prompted(Loaded):
    """A tiny model with adapters and the encoder that they read with."""

    def __init__(self, model: Model, folder: Path) -> None:
        super().__init__(model)
        place = folder / "image_encoder"
        self.encoder = write_siglip(place, whole=True) if model.family == "sd3" else write_clip(place)
        self.adapters = {
            name: write_adapter(folder / f"{name}.safetensors", self.ours.modules["transformer"], name, seed)
            for seed, name in enumerate(VARIANTS[model.family])
        }
        self.adapter = next(iter(self.adapters.values()))
        self.pool = NetworkPool(RealHardware(self.ours.device))

    def shown(self, count: int = 1, **changes: Any) -> Any:
        """An image prompt with the first adapter."""
        return image_prompt(self.adapter, self.encoder, count, **changes)

    def of(self, wanted: ResolvedGeneration, files: Sequence[GivenImagePrompt], job_id: str) -> ImagePrompts:
        """The image prompts of a job."""
        job = ImagePromptsOfJob(job_id, wanted, files, self.pool)
        while not job.bring(self.ours, None):
            pass
        return job.made(wanted, self.ours, None)


@pytest.fixture(scope="module", params=["flux1", "sd3"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    folder = tmp_path_factory.mktemp("prompted")
    return Prompted(write_family(request.param, folder / request.param), folder)


def begun(
    family: Prompted,
    wanted: ResolvedGeneration,
    files: Sequence[GivenImagePrompt],
    job_id: str = "job",
    controls: Controls = NO_CONTROLS,
) -> Trajectory:
    view, prompts = family_of(family.ours), family.of(wanted, files, job_id)
    found = condition(family.ours, view, wanted, PromptCache())
    config, device = family.ours.scheduler_config, family.ours.device
    guides = Guides(image_prompts=prompts, controls=controls)
    return begin(view, wanted, config, found.conditions, device, renew=found.renew, guides=guides)


def ours(
    family: Prompted,
    wanted: ResolvedGeneration,
    files: Sequence[GivenImagePrompt],
    controls: Controls = NO_CONTROLS,
) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(family, wanted, files, controls=controls)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def theirs(family: Prompted, wanted: ResolvedGeneration, pictures: Sequence[Sequence[Tensor]], **more: Any) -> Tensor:
    """Of diffusers' pipeline with the adapters that the request names."""
    of_flux = wanted.family in PACKED
    pipe = with_theirs(family, wanted)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    as_images = [[Image.fromarray(np.asarray(one)) for one in some] for some in pictures]
    found = pipe(
        prompt=[wanted.prompt] * len(wanted.seeds),
        **more or {"ip_adapter_image": as_images if of_flux else as_images[0]},
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        **their_guidance(wanted),
        latents=packed(noise) if of_flux else noise,
        output_type="latent",
    ).images
    return unpacked(found, *shape[1:]) if of_flux else found


def with_theirs(family: Prompted, wanted: ResolvedGeneration) -> Any:
    """Diffusers' pipeline with the encoder, and with the adapters that the request names."""
    return (_with_flux if wanted.family in PACKED else _with_sd3)(family, wanted)


def _with_flux(family: Prompted, wanted: ResolvedGeneration) -> Any:
    pipe = family.fresh()
    encoder: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(family.encoder.folder)
    reader = transformers.CLIPImageProcessor(size=EDGE_PX, crop_size=EDGE_PX)
    pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
    names = [f"{one.model_id}.safetensors" for one in wanted.image_prompts]
    pipe.load_ip_adapter(family.adapter.folder, weight_name=names)
    layers = len(pipe.transformer.transformer_blocks)
    pipe.set_ip_adapter_scale([[one.weight] * layers for one in wanted.image_prompts])
    return pipe


def _with_sd3(family: Prompted, wanted: ResolvedGeneration) -> Any:
    pipe = family.fresh()
    encoder: Any = transformers.SiglipVisionModel.from_pretrained(family.encoder.folder)
    reader = transformers.SiglipImageProcessor(size={"height": EDGE_PX, "width": EDGE_PX})
    pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
    (prompt,) = wanted.image_prompts
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in load_file(Path(family.adapter.folder) / f"{prompt.model_id}.safetensors").items():
        part, _, rest = key.partition(".")
        parts[part][rest] = tensor
    pipe.load_ip_adapter(parts)
    pipe.set_ip_adapter_scale(prompt.weight)
    return pipe


CASES: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "flux1": [
        ({"xlabs": {}}, {}),
        ({"diffusers": {"weight": 0.7}}, {"guidance_scale": 1.0}),
        ({"xlabs": {"weight": 0.4}, "diffusers": {"weight": 1.3}}, {"seeds": (3, 9), "steps": 2}),
    ],
    "sd3": [
        ({"instantx": {}}, {}),
        ({"instantx": {"weight": 0.6}}, {"seeds": (3, 9), "steps": 2}),
    ],
}
PICTURES = {"xlabs": [picture(1)], "diffusers": [picture(2), picture(3)], "instantx": [picture(4)]}


def test_the_latents_with_ip_adapters_are_those_of_diffusers(family: Prompted, tmp_path: Path) -> None:
    for changes, more in CASES[family.model.family]:
        found = [(family.adapters[name], PICTURES[name], one) for name, one in changes.items()]
        prompts = tuple(image_prompt(model, family.encoder, len(some), **one) for model, some, one in found)
        wanted = asked(family, image_prompts=prompts, **more)
        files = [given(model, family.encoder, some, tmp_path) for model, some, _ in found]
        latents = ours(family, wanted, files)
        assert gap(latents, theirs(family, wanted, [some for _, some, _ in found])) < TOLERANCE, changes
        # The pictures show: it is no rounding that is compared.
        assert gap(latents, final_latents(family.ours, asked(family, **more))) > 0.01, changes


def test_chroma_reads_adapters_of_flux_as_in_diffusers(tmp_path: Path) -> None:
    chroma = Prompted(write_tiny_family("chroma", tmp_path / "chroma"), tmp_path)
    wanted = asked(chroma, image_prompts=(chroma.shown(),))
    found = ours(chroma, wanted, [given(chroma.adapter, chroma.encoder, [picture(1)], tmp_path)])
    assert gap(found, theirs(chroma, wanted, [[picture(1)]])) < TOLERANCE
    assert gap(found, final_latents(chroma.ours, asked(chroma))) > 0.01


def test_a_negative_picture_leads_away_from_it_as_in_diffusers(family: Prompted, tmp_path: Path) -> None:
    shown, other = picture(1), picture(5)
    wanted = asked(family, image_prompts=(family.shown(),), guidance_scale=3.0)
    files = [given(family.adapter, family.encoder, [shown], tmp_path, negative=other)]
    more: dict[str, Any] = {
        "ip_adapter_image": [Image.fromarray(shown.numpy())],
        "negative_ip_adapter_image": [Image.fromarray(other.numpy())],
    }
    if wanted.family == "sd3":
        encoder: Any = transformers.SiglipVisionModel.from_pretrained(family.encoder.folder)
        pixels = torch.stack([other, shown]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            seen = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        more = {"ip_adapter_image_embeds": seen}
    found = ours(family, wanted, files)
    assert gap(found, theirs(family, wanted, [], **more)) < TOLERANCE
    assert gap(found, ours(family, wanted, [given(family.adapter, family.encoder, [shown], tmp_path)])) > 0.001


def test_a_controlnet_and_pictures_guide_together_as_in_diffusers(family: Prompted, tmp_path: Path) -> None:
    net, map_px = write_net(tmp_path / "net", wanted_net := family.model.family, family.ours), stripes(48, 32)
    wanted = asked(family, image_prompts=(family.shown(weight=0.7),), controls=(control(net),))
    view = family_of(family.ours)
    job = ControlsOfJob("controls", wanted, [control_given(net, map_px, tmp_path)], family.pool)
    while not job.bring(family.ours):
        pass
    with torch.inference_mode():
        controls = job.made(
            condition(family.ours, view, wanted, PromptCache()).renew, family.ours, view.encode_reference
        )
    found = ours(family, wanted, [given(family.adapter, family.encoder, [picture(1)], tmp_path)], controls)
    job.networks.leave()
    shown = Image.fromarray(picture(1).numpy())
    pipe = (_with_flux if wanted_net == "flux1" else _with_sd3)(family, wanted)
    expected = their_controlled(family, wanted, [net], [map_px], [None], pipe, ip_adapter_image=shown)
    assert gap(found, expected) < TOLERANCE


def test_a_region_keeps_pictures_to_it(family: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = asked(family, image_prompts=(family.shown(),))

    def latents(region: Tensor | None) -> Tensor:
        return ours(family, wanted, [given(family.adapter, family.encoder, [picture(1)], tmp_path, region)])

    everywhere, half = latents(None), latents(REGION)
    assert gap(latents(torch.full_like(REGION, 255)), everywhere) < TOLERANCE
    assert gap(latents(torch.zeros_like(REGION)), final_latents(family.ours, asked(family))) < TOLERANCE
    assert gap(half, everywhere) > 0.001
    if wanted.family == "flux1":
        # Diffusers' processor, which takes masks and ignores them, with its output masked.
        whole: Any = FluxIPAdapterAttnProcessor.__call__
        mask = REGION[::8, ::8].float().div(255).flatten(0, 1)

        @wraps(whole)
        def masked(*arguments: Any, **named: Any) -> Any:
            hidden, text, shown = whole(*arguments, **named)
            return hidden, text, shown * mask

        monkeypatch.setattr(FluxIPAdapterAttnProcessor, "__call__", masked)
        assert gap(half, theirs(family, wanted, [[picture(1)]])) < TOLERANCE


def test_a_region_holds_no_token_of_a_picture_that_is_edited() -> None:
    """Tokens of reference pictures stand behind those of the latents."""
    block: Any = torch.nn.Module()
    block.attn = torch.nn.Module()
    block.attn.norm_q = torch.nn.Identity()

    def forward(text: None, hidden: Tensor) -> tuple[None, Tensor]:
        return text, block.attn.norm_q(hidden)[..., 0, :]

    block.forward = forward
    transformer: Any = torch.nn.Module()
    transformer.transformer_blocks = torch.nn.ModuleList([block])
    tokens = torch.ones(1, 2 * 3 + 4, 1, 8)
    keys = torch.ones(1, 1, 1, 8)
    for area, count in ((None, 10), (Area(map=torch.ones(1, 1, 4, 6)), 6)):
        read = [[Beside(slice(0, 1), keys, keys, area=area)]]
        with reading_behind_blocks(transformer, read, (4, 6), regardless):
            _, found = block(None, tokens)
        assert torch.equal(found[0, :, 0], torch.tensor([2.0] * count + [1.0] * (10 - count)))
    assert torch.equal(block(None, tokens)[1], tokens[..., 0, :]), "the hooks are gone"


def test_jobs_with_and_without_ip_adapters_share_forwards(family: Prompted, tmp_path: Path) -> None:
    names = list(family.adapters)
    first, second, encoder = family.adapters[names[0]], family.adapters[names[-1]], family.encoder

    def files(*models: Model, region: Tensor | None = None) -> list[GivenImagePrompt]:
        return [given(one, encoder, PICTURES[one.id], tmp_path, region) for one in models]

    one = image_prompt(first, encoder)
    two = image_prompt(second, encoder, len(PICTURES[second.id]), weight=0.6)
    ranged = image_prompt(first, encoder, end_ratio=0.5)
    mixed: list[tuple[list[GivenImagePrompt], ResolvedGeneration]] = [
        ([], asked(family)),
        (files(first), asked(family, image_prompts=(ranged,), steps=4)),
        (files(first, second), asked(family, image_prompts=(one, two), seeds=(1, 2))),
        (files(second), asked(family, image_prompts=(two,), guidance_scale=1.0)),
        (files(first, region=REGION), asked(family, image_prompts=(one,), guidance_start_ratio=0.5)),
    ]
    alone = [ours(family, wanted, some) for some, wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted, some, f"job {place}") for place, (some, wanted) in enumerate(mixed)]
        assert len({one.alike for one in group}) == 1
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_an_ip_adapter_without_weight_or_steps_gives_the_bytes_of_none(family: Prompted, tmp_path: Path) -> None:
    plain = final_latents(family.ours, asked(family))
    files = [given(family.adapter, family.encoder, [picture(1)], tmp_path)]
    without: list[dict[str, Any]] = [{"weight": 0.0}, {"start_ratio": 0.5, "end_ratio": 0.6}]
    for changes in without:
        assert torch.equal(ours(family, asked(family, image_prompts=(family.shown(**changes),)), files), plain)


def test_an_adapter_of_another_model_or_encoder_is_refused_before_any_step(family: Prompted, tmp_path: Path) -> None:
    other = {"flux1": "sd3", "sd3": "flux1"}[family.model.family]
    unlike = load(write_tiny_family(other, tmp_path / other), "cpu").modules["transformer"]
    pipeline, parts = TINY["flux1"]
    shallow = load(write_parts(pipeline, parts, tmp_path / "shallow"), "cpu").modules["transformer"]
    kinds = [(write_adapter(tmp_path / "unlike.safetensors", unlike, VARIANTS[other][0]), "have|make none")]
    if family.model.family == "flux1":
        kinds += [(write_adapter(tmp_path / "shallow.safetensors", shallow, "xlabs"), "1 layers where .* has 2")]
    for adapter, told in kinds:
        wanted = asked(family, image_prompts=(image_prompt(adapter, family.encoder),))
        files = [given(adapter, family.encoder, [picture(1)], tmp_path)]
        job = ImagePromptsOfJob("job", wanted, files, NetworkPool(RealHardware(family.ours.device)))
        with pytest.raises(FailedPrecondition, match=told) as refused:
            list(iter(lambda job=job: job.bring(family.ours, None), True))
        assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_pictures_are_squeezed_as_siglip_was_trained() -> None:
    tall = torch.randint(0, 256, (71, 45, 3), generator=torch.Generator().manual_seed(7), dtype=torch.uint8).numpy()
    size = {"height": EDGE_PX, "width": EDGE_PX}
    reader = transformers.SiglipImageProcessor(size=size, do_normalize=False, do_rescale=False)
    expected = reader(Image.fromarray(tall), return_tensors="np").pixel_values[0].transpose(1, 2, 0)
    assert np.abs(squeezed(tall, EDGE_PX).astype(float) - expected).max() <= 1


def test_a_pause_is_exact_and_offloading_changes_no_picture(family: Prompted, tmp_path: Path) -> None:
    model, size = family.model, {"width_px": 48, "height_px": 32, "steps": 4}
    wanted = asked(family, image_prompts=(family.shown(),), determinism=Determinism.EXACT, **size)
    files = (given(family.adapter, family.encoder, [picture(1)], tmp_path),)
    recorder = Recorder(model)
    held: list[Mapping[str, int]] = []

    def pause(job_id: str, report: Report) -> None:
        # A plain job beside them can be there while the adapter of the other is read.
        if job_id == "plain":
            return
        if isinstance(report, Progressed) and (report.stage, report.completed) == (Stage.DENOISING, 2):
            held.append(recorder.loop.resources.control_bytes())
            if job_id == "paused":
                recorder.loop.stop(job_id, Stop(kind=StopKind.PAUSE, cause="the device is needed"))

    recorder.on_report = pause
    for name in ("whole", "paused"):
        recorder.loop.submit(name, Given(model, wanted, image_prompts=files))
        recorder.run()
    (kept,) = recorder.of("paused", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    recorder.loop.submit("resumed", Given(model, wanted, kept=file, image_prompts=files))
    recorder.loop.submit("plain", Given(model, asked(family, **size)))
    recorder.run()
    assert recorder.files("resumed") == recorder.files("whole") != recorder.files("plain")
    # The adapters of SD3 make keys in every step; those of FLUX.1 leave before the first.
    adapter = {family.adapter.id: family.adapter.size_bytes}
    assert held == [adapter if model.family in TIMED else {}] * len(held), "as the forecast counts them"
    assert recorder.loop.resources.control_bytes() == {}
    for offload in (BY_COMPONENT, BY_LAYER):
        recorder.loop.unload(model.id)
        recorder.loop.load(offload, model, Execution(offload=offload))
        recorder.run()
        recorder.loop.submit(f"by {offload}", Given(model, wanted, image_prompts=files))
        recorder.run()
        assert recorder.files(f"by {offload}") == recorder.files("whole")
    recorder.loop.close()
