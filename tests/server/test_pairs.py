"""Whatever two ways of making a picture meet in one request: the plan refuses them by a field, or the picture is made."""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deviceops.common.v1 import error_pb2, image_pb2
from deviceops.inference.v1 import (
    conditioning_pb2,
    generation_pb2,
    inference_service_pb2,
    passes_pb2,
    sampling_pb2,
)
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.imaging import encode
from tests.domains.inference.on_device.control_files import write_controlnet
from tests.domains.inference.on_device.detector_files import write_detector
from tests.domains.inference.on_device.image_prompt_files import adapter_tensors, write_encoder
from tests.domains.inference.on_device.lora_files import layers, matrices
from tests.domains.inference.on_device.t2i_files import ATTENTION_FIRST
from tests.domains.inference.on_device.tiny_families import unet, write_parts
from tests.domains.inference.on_device.upscaler_files import write_upscaler
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_families import WIDE
from tests.server.test_image_prompts import wide_pipeline
from tests.server.test_models import scanned

EDGE_PX = 64
_ROWS, _COLUMNS = np.mgrid[0:EDGE_PX, 0:EDGE_PX]
PICTURE = image_pb2.ImageInput(
    data=encode(np.stack([_ROWS * 3, _COLUMNS * 3, _ROWS + _COLUMNS], -1).astype(np.uint8), "image/png")
)
HALF = image_pb2.ImageInput(data=encode(np.where(_COLUMNS < 24, 255, 0).astype(np.uint8), "image/png"))
A1111 = generation_pb2.PROMPT_SYNTAX_A1111
MADE_AT_ONCE = 5
"""Pairs of those that the plan takes, the same in each run: a fault that was found is found again."""


def _begun(generation: generation_pb2.Generation) -> None:
    generation.init_image.image.CopyFrom(PICTURE)


def _masked(generation: generation_pb2.Generation) -> None:
    _begun(generation)
    generation.mask.image.CopyFrom(HALF)


def _zoomed(generation: generation_pb2.Generation) -> None:
    _masked(generation)
    generation.mask.zoom_to_mask = True


def _grown(generation: generation_pb2.Generation) -> None:
    _begun(generation)
    generation.outpaint.left_px = 16


def _lora(**more: Any) -> conditioning_pb2.LoraInput:
    return conditioning_pb2.LoraInput(model_id="styled", weight=0.5, **more)


def _region(**more: Any) -> conditioning_pb2.RegionalPrompt:
    box = postprocessing_pb2.PixelBox(width_px=EDGE_PX // 2, height_px=EDGE_PX)
    return conditioning_pb2.RegionalPrompt(rectangle=box, prompt="a lemon", **more)


def _edited(generation: generation_pb2.Generation) -> None:
    generation.prompt_syntax, generation.prompt = A1111, generation.prompt + " [red:blue:0.5]"


def _joined(generation: generation_pb2.Generation) -> None:
    generation.prompt_syntax, generation.prompt = A1111, generation.prompt + " AND a lemon :0.5"


def _sampled(**values: Any) -> Callable[[generation_pb2.Generation], None]:
    return lambda generation: generation.sampling.MergeFrom(sampling_pb2.Sampling(**values))


def _again(**values: Any) -> Callable[[generation_pb2.Generation], None]:
    return lambda generation: generation.hires_pass.MergeFrom(passes_pb2.HiresPass(scale=1.5, strength=0.5, **values))


def _with(**values: Any) -> Callable[[generation_pb2.Generation], None]:
    return lambda generation: generation.MergeFrom(generation_pb2.Generation(**values))


WAYS: Mapping[str, Callable[[generation_pb2.Generation], None]] = {
    "init_image": _begun,
    "mask": _masked,
    "zoom": _zoomed,
    "outpaint": _grown,
    "control": _with(
        controls=[
            conditioning_pb2.ControlInput(model_id="edges", image=PICTURE, region=HALF, fit=image_pb2.IMAGE_FIT_COVER)
        ]
    ),
    "image_prompt": _with(
        image_prompts=[conditioning_pb2.ImagePrompt(model_id="pictured", images=[PICTURE], region=HALF)]
    ),
    "region": _with(regions=[_region()]),
    "region_lora": _with(regions=[_region(loras=[_lora()], end_ratio=0.5)]),
    "lora": _with(loras=[_lora(start_ratio=0.5)]),
    "learned_word": _with(textual_inversions=[conditioning_pb2.TextualInversionInput(model_id="owl", token="rocket")]),
    "hires": _again(),
    "hires_of_pixels": _again(pixel_filter=image_pb2.RESAMPLING_FILTER_LANCZOS),
    "hires_upscaler": _again(upscaler_model_id="grow"),
    "hires_model": _again(model_id="other"),
    "detail": _with(detail_passes=[passes_pb2.DetailPass(detector_model_id="red", edge_px=EDGE_PX)]),
    "seamless": _with(seamless_x=True),
    "and": _joined,
    "edit_by_step": _edited,
    "blend": _with(blended_prompts=[generation_pb2.WeightedPrompt(prompt="a cat")]),
    "long_prompt": _with(long_prompt=generation_pb2.LONG_PROMPT_CHUNK),
    "guidance_range": _sampled(guidance_end_ratio=0.5),
    "rescale": _sampled(guidance_rescale=0.5),
    "variation": _sampled(seed_variation=sampling_pb2.SeedVariation(strength=0.3)),
    "two_pictures": _sampled(seeds=[3, 9]),
    "latents_out": _with(return_latents=True),
    "exact": _with(determinism=generation_pb2.DETERMINISM_EXACT),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with one of each network that guides it."""
    root = tmp_path_factory.mktemp("pairs")
    pipeline, parts = WIDE
    # Attention in the first level, by which a scan tells ControlNets.
    make = unet(**{**ATTENTION_FIRST, "cross_attention_dim": 1024})
    write_parts(pipeline, {**parts, "unet": ("UNet2DConditionModel", make)}, root / "wide")
    net: Any = wide_pipeline(root).unet
    torch.manual_seed(3)
    file: dict[str, torch.Tensor] = {}
    for name, layer in layers(net, ("to_q", "to_v", "ff.net.2", "conv1")).items():
        file[f"unet.{name}.lora_A.weight"], file[f"unet.{name}.lora_B.weight"] = matrices(layer, 2)
    save_file(file, root / "styled.safetensors")
    write_controlnet(root / "edges", SimpleNamespace(modules={"unet": net}), 4)
    write_encoder(root / "image_encoder")
    save_file(adapter_tensors(net, "plain"), root / "pictured.safetensors")
    save_file({"<owl>": torch.randn(2, 1024) * 0.05}, root / "owl.safetensors")
    write_upscaler(root / "grow.safetensors", "compact-2")
    write_detector(root / "red.safetensors")

    def reseeded(folder: Path) -> Any:
        torch.manual_seed(9)
        return make(folder)

    write_parts(pipeline, {**parts, "unet": ("UNet2DConditionModel", reseeded)}, root / "other")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        yield running


def asked(*names: str) -> generation_pb2.Generation:
    generation = generation_pb2.Generation(
        model_id="wide",
        prompt="a rocket",
        negative_prompt="fog",
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, sampler="euler", guidance_scale=4.0),
    )
    for name in names:
        WAYS[name](generation)
    if not generation.sampling.seeds:
        generation.sampling.seed = 11
    return generation


def refusal(server: RunningServer, generation: generation_pb2.Generation) -> list[Any]:
    request = inference_service_pb2.PlanGenerationRequest(generation=generation)
    found = server.inference.PlanGeneration(request, timeout=asking.CALL_S).findings
    return [one for one in found if one.severity == error_pb2.SEVERITY_ERROR]


def _refused(one: str, *others: str) -> set[frozenset[str]]:
    return {frozenset((one, other)) for other in others}


HIRES = [name for name in WAYS if name.startswith("hires")]
REGIONS = ("region", "region_lora")
REFUSED = (
    # What surrounds a part keeps its pixels.
    _refused("mask", *HIRES)
    | _refused("zoom", *HIRES, "outpaint", "seamless")
    | _refused("outpaint", *HIRES, *REGIONS)
    # AND adds guidances up over the whole picture.
    | _refused("and", *REGIONS, "blend", "guidance_range", "rescale")
    | _refused("seamless", "hires_upscaler", "detail")
    # Its region lies in the whole picture.
    | _refused("image_prompt", "detail")
)
"""Pairs that the plan refuses. A pair that is built leaves the table."""


def test_each_way_alone_is_taken(server: RunningServer) -> None:
    assert {name: refusal(server, asked(name)) for name in WAYS} == {name: [] for name in WAYS}


def test_two_ways_are_taken_or_refused_by_a_field(server: RunningServer) -> None:
    found: set[frozenset[str]] = set()
    for pair in combinations(WAYS, 2):
        told = refusal(server, asked(*pair))
        if told:
            found.add(frozenset(pair))
            reasons = {one.reason for one in told}
            assert reasons == {error_pb2.ERROR_REASON_UNSUPPORTED_COMBINATION}, (pair, told)
            assert all(one.field and len(one.message) > 20 for one in told), (pair, told)
    assert found == REFUSED


def test_some_pairs_that_are_taken_make_a_picture(server: RunningServer) -> None:
    able = [pair for pair in combinations(WAYS, 2) if frozenset(pair) not in REFUSED]
    for pair in random.Random(14).sample(able, MADE_AT_ONCE):
        last = asking.watch(server, asking.submit(server, asked(*pair)))[-1]
        assert asking.kind(last) == "succeeded", (pair, last)
