"""What meets in one request, at random, against diffusers: same weights, same pictures, same noise, same final latents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, load_file
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.outcome import LatentsReady, RunFinished
from domains.model.model import Model
from tests.domains.inference.on_device import image_prompt_files as prompts
from tests.domains.inference.on_device.control_files import control, stripes, write_controlnet
from tests.domains.inference.on_device.control_files import given as given_control
from tests.domains.inference.on_device.from_picture import from_picture, gradient
from tests.domains.inference.on_device.lora_files import of_all_layers, resolved
from tests.domains.inference.on_device.masked import levels, mask
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_image_to_image import stored
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

WIDTH_PX, HEIGHT_PX = 64, 32
PICTURE = gradient(WIDTH_PX, HEIGHT_PX)
WHITE = levels(WIDTH_PX, HEIGHT_PX, (24, 8, 48, 24))
SHOWN = prompts.picture(1)
TOLERANCE = 1e-4
_theirs: Any = diffusers


class Mix(NamedTuple):
    """What one request asks for."""

    start: str = "noise"
    """`noise`, `picture`, or `mask`: a part of the picture."""
    strength: float = 0.5
    controls: tuple[float, ...] = ()
    """Weights."""
    shown: float | None = None
    """Weight of a picture that an IP-Adapter reads."""
    lora: float | None = None
    """Weight."""
    sampler: str = "euler"
    seeds: tuple[int, ...] = (3,)
    guidance: float = 4.0


MIXES = st.builds(
    Mix,
    start=st.sampled_from(["noise", "picture", "mask"]),
    strength=st.sampled_from([0.5, 0.75, 1.0]),
    controls=st.lists(st.sampled_from([0.4, 1.0]), max_size=2).map(tuple),
    shown=st.sampled_from([None, 0.3, 1.0]),
    lora=st.sampled_from([None, -0.5, 0.7]),
    sampler=st.sampled_from(["euler", "euler_a", "dpmpp_2m", "ddim", "unipc"]),
    seeds=st.sampled_from([(3,), (3, 9)]),
    guidance=st.sampled_from([1.0, 4.0]),
)


class Files(NamedTuple):
    """What all mixes can name."""

    folder: Path
    net: Model
    adapter: Model
    encoder: Model
    lora: Model


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.fixture(scope="module")
def files(loop: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(loop, tmp_path_factory.mktemp("mixes"))


def write_files(loop: Recorder, folder: Path) -> Files:
    """All that mixes can name, for the loop's model."""
    (folder / "mask").mkdir()
    return Files(
        folder=folder,
        net=write_controlnet(folder / "net", loop.loaded, 2),
        adapter=prompts.write_adapter(folder / "plain.safetensors", loop.loaded.modules["unet"]),
        encoder=prompts.write_encoder(folder / "image_encoder"),
        lora=of_all_layers(loop.loaded, folder / "style.safetensors", dora=False),
    )


def asked(model: Model, files: Files, mix: Mix) -> ResolvedGeneration:
    shown = () if mix.shown is None else (prompts.image_prompt(files.adapter, files.encoder, weight=mix.shown),)
    return request(
        model,
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        steps=4,
        sampler=mix.sampler,
        seeds=mix.seeds,
        guidance_scale=mix.guidance,
        init_image=None if mix.start == "noise" else from_picture(mix.strength),
        mask=mask() if mix.start == "mask" else None,
        controls=tuple(control(files.net, weight=weight) for weight in mix.controls),
        image_prompts=shown,
        loras=() if mix.lora is None else (resolved(files.lora, mix.lora),),
        return_latents=True,
    )


def ours(loop: Recorder, files: Files, mix: Mix) -> Tensor:
    """The latents that a job hands out."""
    wanted, name = asked(loop.loaded.model, files, mix), f"mix {len(loop.order)}"
    maps = [stripes(WIDTH_PX, HEIGHT_PX, place) for place in range(len(mix.controls))]
    told = Given(
        loop.loaded.model,
        wanted,
        picture=None if mix.start == "noise" else stored(files.folder, PICTURE),
        mask=stored(files.folder / "mask", torch.from_numpy(WHITE)) if mix.start == "mask" else None,
        controls=tuple(given_control(files.net, one, files.folder) for one in maps),
        image_prompts=tuple(
            prompts.given(files.adapter, files.encoder, [SHOWN], files.folder) for _ in wanted.image_prompts
        ),
        loras=tuple(files.lora for _ in wanted.loras),
    )
    loop.loop.submit(name, told)
    loop.run()
    assert isinstance(loop.last(name), RunFinished), loop.last(name)
    found = [one.data for one in loop.of(name, LatentsReady) if isinstance(one, LatentsReady)]
    return torch.cat([tensor for data in found for tensor in load(data).values()])


def theirs(model: Model, files: Files, mix: Mix) -> Tensor:
    """Of diffusers' pipeline for what meets."""
    pipe = _pipeline(model, files, mix)
    if mix.lora is not None:
        path = Path(files.lora.folder)
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
        pipe.set_adapters(["it"], [mix.lora])
    count = len(mix.seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in mix.seeds]
    told: dict[str, Any] = {
        "prompt": ["owl"] * count,
        "negative_prompt": [""] * count,
        "num_inference_steps": 4,
        "guidance_scale": mix.guidance,
        "generator": generators,
        "output_type": "latent",
    }
    begin = [Image.fromarray(PICTURE.numpy())] * count
    maps = [Image.fromarray(stripes(WIDTH_PX, HEIGHT_PX, place).numpy()) for place in range(len(mix.controls))]
    if mix.start == "noise":
        shape = (1, 4, HEIGHT_PX // 2, WIDTH_PX // 2)
        told["latents"] = torch.cat([torch.randn(shape, generator=one) for one in generators])
        told |= {"width": WIDTH_PX, "height": HEIGHT_PX}
    else:
        told |= {"image": begin, "strength": mix.strength}
    if mix.start == "mask":
        told |= {"mask_image": [Image.fromarray(WHITE)] * count, "width": WIDTH_PX, "height": HEIGHT_PX}
    if maps:
        # Of several, diffusers takes one map each for all pictures.
        told["image" if mix.start == "noise" else "control_image"] = maps if len(maps) > 1 else maps * count
        weights = list(mix.controls)
        told["controlnet_conditioning_scale"] = weights if len(maps) > 1 else weights[0]
    if mix.shown is not None:
        told["ip_adapter_image"] = [[Image.fromarray(np.asarray(SHOWN))]]
    return pipe(**told).images


def _pipeline(model: Model, files: Files, mix: Mix) -> Any:
    own = reference_pipeline(model)
    part = {"noise": "", "picture": "Img2Img", "mask": "Inpaint"}[mix.start]
    parts: dict[str, Any] = dict(own.components)
    none: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if mix.controls:
        nets = [_theirs.ControlNetModel.from_pretrained(files.net.folder) for _ in mix.controls]
        parts["controlnet"] = nets if len(nets) > 1 else nets[0]
    kind = getattr(_theirs, f"StableDiffusion{'ControlNet' if mix.controls else ''}{part}Pipeline")
    pipe = kind(**{**parts, **none})
    pipe.set_progress_bar_config(disable=True)
    scheduler, options = CLASSES[mix.sampler]
    # Diffusers' DDIM clips to −1..1 where the config is silent, which is wrong for latents.
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options, clip_sample=False)
    if mix.shown is not None:
        encoder: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(files.encoder.folder)
        reader = transformers.CLIPImageProcessor(size=prompts.EDGE_PX, crop_size=prompts.EDGE_PX)
        pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
        found: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, tensor in load_file(Path(files.adapter.folder) / "plain.safetensors").items():
            name, _, rest = key.partition(".")
            found[name][rest] = tensor
        pipe.load_ip_adapter([found], subfolder="", weight_name=[""])
        pipe.set_ip_adapter_scale([mix.shown])
    return pipe


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(Mix("mask", 0.75, (0.4, 1.0), 0.3, 0.7, "euler_a", (3, 9)))
@given(mix=MIXES)
def test_what_meets_makes_the_latents_of_diffusers(loop: Recorder, files: Files, mix: Mix) -> None:
    mine, other = ours(loop, files, mix), theirs(loop.loaded.model, files, mix)
    assert mine.shape == other.shape
    assert float((mine - other).abs().max() / other.abs().max().clamp(min=1)) < TOLERANCE
