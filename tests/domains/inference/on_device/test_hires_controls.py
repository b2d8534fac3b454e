"""Controls beside a second pass: each pass reads its map at its own size, as a chain of diffusers' pipelines does."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenControl
from domains.inference.kept_file import ControlFiles, KeptFile
from domains.inference.latents import ResolvedLatents
from domains.inference.on_device.latent_file import latents_file
from domains.inference.outcome import CheckpointReady, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.progress import Stage
from tests.domains.inference.on_device.control_files import control, given, stored, stripes, write_controlnet
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.t2i_files import write_adapted, write_t2i
from tests.domains.inference.on_device.test_hires import (
    AGAIN,
    FIRST,
    PAUSES,
    SECOND,
    STEPS,
    asked,
    far,
    files,
    final_latents,
    hires,
    run,
)

_theirs: Any = diffusers
NARROW, WIDE = stripes(*FIRST), 255 - stripes(*SECOND, 40)
"""Maps of the passes. They show different things, so that a map in the wrong pass is noticed."""


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.fixture(scope="module")
def net(loop: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_controlnet(tmp_path_factory.mktemp("net"), loop.loaded, 2)


def of_both(net: Model, folder: Path, region: Tensor | None = None, narrow: Tensor = NARROW) -> GivenControl:
    """The maps of both passes, and where they count: in the left half of both."""
    plain = given(net, narrow, folder)
    again = ControlFiles(map=stored(WIDE, folder, "wide"))
    if region is None:
        return replace(plain, enlarged=again)
    halves = [_left(*size) for size in (FIRST, SECOND)]
    first, second = (stored(half, folder, f"left-{place}") for place, half in enumerate(halves))
    return replace(plain, region=first, enlarged=replace(again, region=second))


def _left(width: int, height: int) -> Tensor:
    found = torch.zeros(height, width, 1, dtype=torch.uint8)
    found[:, : width // 2] = 255
    return found


def _shown(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.asarray(pixels))


def theirs(model: Model, net: Model, wanted: ResolvedGeneration) -> Tensor:
    """Diffusers' text-to-image pass, then its image-to-image pass, both with the ControlNet."""
    (one,), again = wanted.controls, wanted.hires_pass
    assert again is not None
    parts = {**reference_pipeline(model).components, "controlnet": _theirs.ControlNetModel.from_pretrained(net.folder)}
    none: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    shape = (4, FIRST[1] // 2, FIRST[0] // 2)
    generators = [torch.Generator().manual_seed(seed) for seed in wanted.seeds]
    told: dict[str, Any] = {
        "prompt": [wanted.prompt] * len(wanted.seeds),
        "controlnet_conditioning_scale": one.weight,
        "control_guidance_start": one.start_ratio,
        "control_guidance_end": one.end_ratio,
        "output_type": "latent",
    }
    first = _theirs.StableDiffusionControlNetPipeline(**{**parts, **none})
    first.set_progress_bar_config(disable=True)
    made = first(
        image=_shown(NARROW),
        width=FIRST[0],
        height=FIRST[1],
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        latents=torch.cat([torch.randn((1, *shape), generator=one) for one in generators]),
        **told,
    ).images
    start = torch.nn.functional.interpolate(made, size=(SECOND[1] // 2, SECOND[0] // 2), mode="bicubic")
    second = _theirs.StableDiffusionControlNetImg2ImgPipeline(**{**parts, **none})
    second.set_progress_bar_config(disable=True)
    return second(
        image=start,
        control_image=_shown(WIDE),
        width=SECOND[0],
        height=SECOND[1],
        strength=again.strength,
        num_inference_steps=AGAIN,
        guidance_scale=again.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        **told,
    ).images


@pytest.mark.parametrize(
    "changes",
    [{}, {"weight": 0.6, "end_ratio": 0.5}, {"weight": 10.0, "start_ratio": 0.25}],
    ids=["whole", "ends", "begins"],
)
def test_the_latents_of_both_passes_with_a_controlnet_are_those_of_diffusers(
    loop: Recorder, tiny: Model, net: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any]
) -> None:
    wanted = asked(tiny, hires(strength=1.0), controls=(control(net, **changes),), steps=4)
    found = final_latents(loop, wanted, monkeypatch, controls=(of_both(net, tmp_path),))
    assert far(found, theirs(tiny, net, wanted)) < 1e-4
    # The map of the second pass shows: it is no rounding that is compared.
    other = replace(of_both(net, tmp_path), enlarged=ControlFiles(map=stored(stripes(*SECOND), tmp_path, "other")))
    assert far(found, final_latents(loop, wanted, monkeypatch, controls=(other,))) > 2e-4
    assert loop.loop.resources.control_bytes() == {}


def test_a_control_holds_to_its_region_in_both_passes(
    loop: Recorder, tiny: Model, net: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = asked(tiny, hires(strength=1.0), controls=(control(net),))
    whole = final_latents(loop, wanted, monkeypatch, controls=(of_both(net, tmp_path),))
    kept = of_both(net, tmp_path, _left(*FIRST))
    assert kept.enlarged is not None
    both = final_latents(loop, wanted, monkeypatch, controls=(kept,))
    one = final_latents(
        loop, wanted, monkeypatch, controls=(replace(kept, enlarged=replace(kept.enlarged, region=None)),)
    )
    assert min(far(both, whole), far(one, both)) > 1e-3


@pytest.mark.parametrize("when", ["after the first pass", "before it enlarges", "in the second pass"])
def test_a_pause_with_a_controlnet_leaves_the_picture_bit_exact(
    loop: Recorder, tiny: Model, net: Model, tmp_path: Path, when: str
) -> None:
    wanted, maps = asked(tiny, hires(sampler="euler_a"), controls=(control(net),)), (of_both(net, tmp_path),)
    whole = files(run(loop, wanted, controls=maps))
    last, end = run(loop, wanted, PAUSES[when], controls=maps)[-2:]
    assert isinstance(last, CheckpointReady)
    assert isinstance(end, RunStopped)
    assert loop.loop.resources.control_bytes() == {}, "a paused job holds no network"
    path = tmp_path / "kept.safetensors"
    path.write_bytes(last.data)
    kept = KeptFile(path=str(path), sha256=sha256(last.data).hexdigest())
    resumed = run(loop, wanted, controls=maps, kept=kept)
    assert files(resumed) == whole
    done = resumed[-1]
    assert isinstance(done, RunFinished)
    assert not done.receipt.degradations
    assert end.receipt.steps_executed + done.receipt.steps_executed == STEPS + 2


def test_the_network_stays_between_the_passes(loop: Recorder, tiny: Model, net: Model, tmp_path: Path) -> None:
    wanted = asked(tiny, controls=(control(net),))
    there: list[bool] = []

    def look(report: Any) -> bool:
        if isinstance(getattr(report, "stage", None), Stage) and report.stage is Stage.ENLARGING:
            there.append(bool(loop.loop.resources.control_bytes()))
        return False

    assert isinstance(run(loop, wanted, look, controls=(of_both(net, tmp_path),))[-1], RunFinished)
    assert there
    assert all(there)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorder, Model]]:
    folder = tmp_path_factory.mktemp("adapted")
    recorder = Recorder(write_adapted("sd2", folder / "sd2"))
    yield recorder, write_t2i(folder / "adapter", 1, channels=(16, 32), downscale_factor=4)
    recorder.loop.close()


def test_a_t2i_adapter_reads_the_map_of_each_pass(
    adapted: tuple[Recorder, Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop, net = adapted
    model = loop.loaded.model
    first = {"width_px": 64, "height_px": 32}
    maps = replace(
        given(net, stripes(64, 32), tmp_path), enlarged=ControlFiles(map=stored(stripes(96, 64, 9), tmp_path, "wide"))
    )
    second = hires(width_px=96, height_px=64, strength=1.0)
    wanted = asked(model, second, controls=(control(net, t2i_adapter=True),), **first)
    found = final_latents(loop, wanted, monkeypatch, controls=(maps,))
    plain = final_latents(loop, asked(model, second, **first), monkeypatch)
    other = replace(maps, enlarged=ControlFiles(map=stored(stripes(96, 64), tmp_path, "other")))
    assert far(found, plain) > 1e-3
    assert far(found, final_latents(loop, wanted, monkeypatch, controls=(other,))) > 1e-4
    # A job that begins with the enlarged latents makes the same: its one pass was held against diffusers.
    made = final_latents(loop, replace(wanted, hires_pass=None), monkeypatch, controls=(maps,))
    start = latents_file(
        torch.nn.functional.interpolate(made, size=(made.shape[2] * 2, made.shape[3] * 3 // 2), mode="bicubic")
    )
    path = tmp_path / "start.safetensors"
    path.write_bytes(start)
    alone = replace(
        wanted,
        hires_pass=None,
        width_px=96,
        height_px=64,
        steps=AGAIN,
        guidance_scale=second.guidance_scale,
        init_latents=ResolvedLatents(strength=1.0),
    )
    again = given(net, stripes(96, 64, 9), tmp_path)
    begun = KeptFile(path=str(path), sha256=sha256(start).hexdigest())
    assert far(found, final_latents(loop, alone, monkeypatch, controls=(again,), latents=begun)) < 1e-4
    assert loop.loop.resources.control_bytes() == {}


def test_a_size_that_a_t2i_adapter_cannot_read_in_the_second_pass_is_told_before_the_first_step(
    adapted: tuple[Recorder, Model], tmp_path: Path
) -> None:
    loop, net = adapted
    odd = {"width_px": 66, "height_px": 34}
    maps = replace(
        given(net, stripes(64, 32), tmp_path), enlarged=ControlFiles(map=stored(stripes(66, 34), tmp_path, "odd"))
    )
    wanted = asked(
        loop.loaded.model, hires(**odd), controls=(control(net, t2i_adapter=True),), width_px=64, height_px=32
    )
    end = run(loop, wanted, controls=(maps,))[-1]
    assert isinstance(end, RunFailed)
    assert (end.reason, end.receipt.steps_executed) == ("UNSUPPORTED_COMBINATION", 0), end.message
    assert "hires_pass.size.width_px" in repr(end)
    assert loop.loop.resources.control_bytes() == {}
