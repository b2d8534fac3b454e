"""Strong guidance with its contrast pulled back: as in diffusers, row by row, without a trace in other rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.on_device.rescale import rescaled
from domains.inference.on_device.trajectory import walk_together
from domains.inference.prompts import Syntax
from domains.inference.resolution.resolve import resolve
from domains.model.model import Model
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.test_inpainting import kept_at, run
from tests.domains.inference.on_device.tiny_families import write_tiny_family


@pytest.fixture(scope="module", params=["sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


STRONG: dict[str, Any] = {"guidance_scale": 9.0, "guidance_rescale": 0.7}


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_the_latents_are_those_of_diffusers(family: Loaded, share: float) -> None:
    wanted = asked(family, seeds=(3, 9), guidance_scale=9.0, guidance_rescale=share)

    def pipe(**arguments: Any) -> Any:
        return family.theirs(**arguments, guidance_rescale=share)

    ours = final_latents(family.ours, wanted)
    assert gap(ours, their_latents(family, wanted, pipe)) < TOLERANCE
    assert gap(ours, final_latents(family.ours, asked(family, seeds=(3, 9), guidance_scale=9.0))) > 10 * TOLERANCE


def test_jobs_with_and_without_it_share_forwards(family: Loaded) -> None:
    jobs = [asked(family, **STRONG), asked(family, guidance_scale=9.0), asked(family, guidance_scale=1.0)]
    alone = [final_latents(family.ours, wanted) for wanted in jobs]
    with torch.inference_mode():
        group = [begun(family, wanted) for wanted in jobs]
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


def test_a_row_without_it_keeps_its_bits_whatever_its_values() -> None:
    steered, with_text = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    steered[1] = 2.0  # no deviation
    found = rescaled(steered, with_text, torch.tensor([0.5, 0.0]).view(-1, 1, 1, 1))
    torch.testing.assert_close(found[:1], rescale_noise_cfg(steered[:1], with_text[:1], 0.5))
    assert torch.equal(found[1], steered[1])


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_a_paused_job_goes_on_to_the_same_bytes(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    wanted = request(tiny, steps=4, width_px=16, height_px=16, **STRONG)
    run(loop, tmp_path, "whole", wanted)
    kept = kept_at(loop, tmp_path, "paused", wanted, 2)
    run(loop, tmp_path, "resumed", wanted, kept=kept)
    run(loop, tmp_path, "plain", request(tiny, wanted, guidance_rescale=0.0))
    assert loop.files("resumed") == loop.files("whole") != loop.files("plain")


def test_prompts_that_guide_together_have_no_contrast_to_pull_back() -> None:
    asked = Generation(prompt="a AND b", prompt_syntax=Syntax.A1111, sampling=Sampling(guidance_rescale=0.5))
    with pytest.raises(InvalidRequest) as refused:
        resolve(asked, embedded_model())
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in refused.value.violations] == ["generation.sampling.guidance_rescale"]
