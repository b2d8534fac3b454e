"""Noise depends on the seed and on nothing else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.inference.on_device.noise import Noise

SEEDS = st.integers(0, 2**63 - 1)
CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(st.lists(SEEDS, min_size=1, max_size=4), st.data())
def test_a_seed_draws_the_same_noise_whatever_its_neighbours(seeds: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(seeds) - 1))
    together, alone = Noise(seeds, (4, 6, 5), CPU), Noise(seeds[index : index + 1], (4, 6, 5), CPU)
    for _ in range(3):
        assert torch.equal(together.draw()[index], alone.draw()[0])


def test_each_draw_is_new() -> None:
    noise = Noise([1, 2], (4, 8, 8), CPU)
    first = noise.draw()
    assert not torch.equal(first, noise.draw())
    assert not torch.equal(first[0], first[1])


def test_the_whole_range_of_seeds_is_told_apart() -> None:
    low, high = (Noise([seed], (4, 8, 8), CPU).draw() for seed in (7, 2**63 - 1))
    assert not torch.equal(low, high)
