"""A second seed moves the noise of the first as A1111's variation seed does; pictures in between, and resumed ones."""

import math

import pytest
import torch

from domains.errors import InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.on_device.noise import Noise, generator_of, moved
from domains.inference.resolution.resolve import resolve
from domains.inference.seed_variation import ResolvedSeedVariation, SeedVariation
from tests.domains.inference.on_device.requests import embedded_model

SHAPE = (4, 6, 5)
CPU = torch.device("cpu")


def drawn(seed: int) -> torch.Tensor:
    return torch.empty(SHAPE).normal_(generator=generator_of(seed))


def noise(strength: float, varied: int = 0, seeds: tuple[int, ...] = (3, 4)) -> Noise:
    return Noise((1, 2), SHAPE, CPU, ResolvedSeedVariation(seeds=seeds, strength=strength), varied)


def test_each_column_turns_by_a_share_of_the_angle() -> None:
    first, other = drawn(1), drawn(3)
    found = moved(first, other, 0.25)
    for channel in range(SHAPE[0]):
        for column in range(SHAPE[2]):
            one, two = first[channel, :, column].double(), other[channel, :, column].double()
            angle = math.acos(float(one @ two / (one.norm() * two.norm())))
            wanted = (math.sin(0.75 * angle) * one + math.sin(0.25 * angle) * two) / math.sin(angle)
            torch.testing.assert_close(found[channel, :, column].double(), wanted, atol=1e-5, rtol=1e-4)


def test_the_ends_are_the_seeds_own_noise() -> None:
    assert torch.equal(noise(0.0).draw(), torch.stack([drawn(1), drawn(2)]))
    assert torch.equal(noise(1.0).draw(), torch.stack([drawn(3), drawn(4)]))
    assert torch.isfinite(noise(0.5, seeds=(1, 2)).draw()).all()


def test_the_draw_that_the_walk_begins_with_is_moved_alone() -> None:
    plain = Noise((1, 2), SHAPE, CPU)
    varied = noise(0.5, varied=1)
    assert torch.equal(varied.draw(), plain.draw())
    assert not torch.equal(varied.draw(), plain.draw())
    assert torch.equal(varied.draw(), plain.draw())


def test_each_picture_has_the_next_seed() -> None:
    asked = Sampling(seeds=(5, 9), seed_variation=SeedVariation(seed=2**63 - 1, strength=0.5))
    found = resolve(Generation(prompt="owl", sampling=asked), embedded_model())
    assert found.seed_variation == ResolvedSeedVariation(seeds=(2**63 - 1, 0), strength=0.5)


@pytest.mark.parametrize(
    "variation", [SeedVariation(seed=1), SeedVariation(strength=1.5), SeedVariation(strength=math.nan)]
)
def test_a_variation_without_a_strength_is_refused(variation: SeedVariation) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(Generation(prompt="owl", sampling=Sampling(seed_variation=variation)), embedded_model())
    assert [one.field for one in refused.value.violations] == ["generation.sampling.seed_variation.strength"]
