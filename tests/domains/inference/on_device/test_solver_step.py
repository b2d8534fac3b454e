"""One product follows the lines of many walks, whatever their samplers, and each goes where it would go alone."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from domains.inference.on_device import solver_step
from domains.inference.on_device.noise import Noise, draw_together
from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.solver_step import follow
from domains.inference.on_device.tensor_bytes import bytes_of
from domains.inference.samplers import SAMPLERS
from domains.inference.solvers.line import Line
from domains.inference.solvers.weights import NOISE, weights_of
from tests.domains.inference.solvers.walking import SD1, denoiser, gap, planned

STEPS = 4
ROUNDING = 1e-5
"""Of the scale of the latents: the products of a group may be summed in another order."""


class Walker:
    """A walk with a stand-in for its denoiser."""

    def __init__(self, sampler: str, pictures: int = 1) -> None:
        plan = planned(sampler, SD1, "normal", STEPS)
        self.lines: Sequence[Line] = plan.lines
        self.noise = Noise([*range(pictures)], (4, 6, 6), torch.device("cpu"))
        self.state = SolverState(self.noise.draw() * plan.initial_scale, plan.lines)

    @property
    def done(self) -> bool:
        return self.state.place == len(self.lines)

    @property
    def output(self) -> Tensor:
        return denoiser(self.state.latents, self.lines[self.state.place].timestep)


def walk(group: Sequence[Walker]) -> None:
    """One line of each that is not done."""
    moving = [one for one in group if not one.done]
    noises = draw_together([one.noise if NOISE in one.state.weights.reads else None for one in moving])
    follow([one.state for one in moving], [one.output for one in moving], noises)


def walked_alone(sampler: str, pictures: int = 1) -> Tensor:
    alone = Walker(sampler, pictures)
    while not alone.done:
        walk([alone])
    return alone.state.latents


def test_all_samplers_walk_together_and_each_ends_where_it_ends_alone() -> None:
    group = [Walker(sampler, pictures=1 + place % 3) for place, sampler in enumerate(SAMPLERS)]
    calls = 0
    while not all(one.done for one in group):
        walk(group)
        calls += 1
    assert calls == max(len(one.lines) for one in group)
    for one, sampler in zip(group, SAMPLERS, strict=True):
        assert gap(one.state.latents, walked_alone(sampler, len(one.state.latents))) < ROUNDING, sampler


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_with_their_channels_last_walk_as_others_do(sampler: str, pictures: int) -> None:
    """An encoder on CUDA makes such latents, and a denoiser such outputs."""
    walker = Walker(sampler, pictures)
    begun = walker.state.latents.contiguous(memory_format=torch.channels_last)
    walker.state = SolverState(begun, walker.lines)
    while not walker.done:
        noise = draw_together([walker.noise if NOISE in walker.state.weights.reads else None])
        follow([walker.state], [walker.output.contiguous(memory_format=torch.channels_last)], noise)
    assert torch.equal(walker.state.latents, walked_alone(sampler, pictures))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_walk_alone_is_bitwise_the_same_each_time(sampler: str) -> None:
    assert torch.equal(walked_alone(sampler, 2), walked_alone(sampler, 2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_more_is_remembered_than_later_lines_read(sampler: str) -> None:
    walker = Walker(sampler)
    for weights in weights_of(walker.lines):
        walk([walker])
        assert sum(name.startswith("kept.") for name in walker.state.named()) == weights.remembered
    assert walker.state.named().keys() <= {"latents", "anchor"}  # nothing is read after the last line


def test_numbers_that_are_none_stay_in_their_own_row() -> None:
    group = [Walker("dpmpp_2m"), Walker("lms"), Walker("euler")]
    walk(group)
    group[1].state.latents.fill_(torch.nan)
    walk(group)
    assert [bool(one.state.latents.isfinite().all()) for one in group] == [True, False, True]


def no_rows(*_: object) -> Tensor:
    return torch.empty(0)


def test_a_line_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    group = [Walker("unipc"), Walker("euler")]
    walk(group)
    before = [one.state.named() for one in group]
    with monkeypatch.context() as patch:
        patch.setattr(solver_step, "_rows", no_rows)
        with pytest.raises(RuntimeError):
            walk(group)
    assert [one.state.place for one in group] == [1, 1]
    for one, tensors in zip(group, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.state.named().items())


def test_a_part_of_a_storage_counts_as_that_part_and_overlapping_parts_as_the_storage_at_most() -> None:
    whole = torch.zeros(4, 10)
    assert bytes_of([whole[1], whole[2], whole[1]]) == 80
    assert bytes_of([whole[:3], whole[1:]]) == whole.nbytes
    assert bytes_of([whole[:1].expand(100, 10)]) == whole.nbytes
