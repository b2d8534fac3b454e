"""Samplers that diffusers has not, or has otherwise, against their published step in k-diffusion's terms.

There latents are x = clean + σ·noise, the denoiser answers with the clean latents, and t = −log σ.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from domains.inference.samplers import SAMPLERS
from domains.inference.solvers.level import at_ratio
from domains.inference.solvers.trained_noise import TrainedNoise
from tests.domains.inference.solvers.walking import SD1, denoiser, gap, noises, planned, walked

Denoise = Callable[[Tensor, float], Tensor]
NOISE = TrainedNoise(SD1)


def denoised(latents: Tensor, sigma: float, told: Callable[[float], float] = float) -> Tensor:
    """The clean latents of x at σ, from a denoiser of ε."""
    level = at_ratio(sigma, told(NOISE.timestep_of(sigma)))
    return latents - sigma * denoiser(latents * level.alpha, level.timestep)


def split(begin: float, end: float) -> tuple[float, float]:
    """(down, up) of k-diffusion's ancestral step with eta 1."""
    up = min(end, math.sqrt(end**2 * (begin**2 - end**2) / begin**2))
    return math.sqrt(end**2 - up**2), up


def dpmpp_2s_a(x: Tensor, sigmas: list[float], denoise: Denoise, fresh: Iterator[Tensor]) -> Tensor:
    for begin, end in pairwise(sigmas):
        clean = denoise(x, begin)
        down, up = split(begin, end)
        if not down:
            x = x + (x - clean) / begin * (down - begin)
            continue
        h = math.log(begin) - math.log(down)
        middle = math.exp(math.log(begin) - h / 2)
        second = middle / begin * x - math.expm1(-h / 2) * clean
        x = down / begin * x - math.expm1(-h) * denoise(second, middle) + next(fresh) * up
    return x


def dpmpp_sde(x: Tensor, sigmas: list[float], denoise: Denoise, fresh: Iterator[Tensor]) -> Tensor:
    for begin, end in pairwise(sigmas):
        clean = denoise(x, begin)
        if not end:
            x = x + (x - clean) / begin * (end - begin)
            continue
        middle = math.sqrt(begin * end)
        down, up = split(begin, middle)
        second = down / begin * x - math.expm1(math.log(down) - math.log(begin)) * clean + up * next(fresh)
        down, up = split(begin, end)
        x = down / begin * x - math.expm1(math.log(down) - math.log(begin)) * denoise(second, middle)
        x = x + up * next(fresh)
    return x


def dpmpp_3m_sde(x: Tensor, sigmas: list[float], denoise: Denoise, fresh: Iterator[Tensor]) -> Tensor:
    earlier: list[tuple[float, Tensor]] = []
    for index, (begin, end) in enumerate(pairwise(sigmas)):
        clean = denoise(x, begin)
        if not end:
            return clean
        h = math.log(begin) - math.log(end)
        twice = 2 * h
        # A walk of fewer than 15 steps ends with lower orders here, as diffusers' solvers do.
        order = min(len(earlier), 2) if index < len(sigmas) - 3 or len(sigmas) > 15 else min(len(earlier), 1)
        following = math.exp(-twice) * x - math.expm1(-twice) * clean
        phi_2 = math.expm1(-twice) / twice + 1
        if order == 2:
            (h_1, clean_1), (h_2, clean_2) = earlier[-1], earlier[-2]
            r0, r1 = h_1 / h, h_2 / h
            d1_0, d1_1 = (clean - clean_1) / r0, (clean_1 - clean_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            following = following + phi_2 * d1 - (phi_2 / twice - 0.5) * d2
        elif order == 1:
            h_1, clean_1 = earlier[-1]
            following = following + phi_2 * (clean - clean_1) / (h_1 / h)
        x = following + next(fresh) * end * math.sqrt(-math.expm1(-twice))
        earlier.append((h, clean))
    return x


def res_multistep(x: Tensor, sigmas: list[float], denoise: Denoise, fresh: Iterator[Tensor]) -> Tensor:
    last: Tensor | None = None
    for index, (begin, end) in enumerate(pairwise(sigmas)):
        clean = denoise(x, begin)
        if last is None or not end:
            x = x + (x - clean) / begin * (end - begin)
        else:
            h = math.log(begin) - math.log(end)
            before = (math.log(begin) - math.log(sigmas[index - 1])) / h
            phi_1 = math.expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            x = math.exp(-h) * x + h * ((phi_1 - phi_2 / before) * clean + phi_2 / before * last)
        last = clean
    return x


STEPPERS = {
    "dpmpp_2s_a": dpmpp_2s_a,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "res_multistep": res_multistep,
}
WAYS = [(name, schedule) for name in STEPPERS for schedule in SAMPLERS[name].sigma_schedules if schedule != "normal"]


@pytest.mark.parametrize(("name", "schedule"), [*WAYS, *((name, "normal") for name in STEPPERS)])
def test_the_latents_are_those_of_the_published_step(name: str, schedule: str) -> None:
    for steps in (1, 2, 5, 9, 20):
        plan = planned(name, SD1, schedule, steps)
        whole = [line for line in plan.lines if not (line.anchor is None and line.following.anchor)]
        sigmas = [sigma_of(line.clean.latents, line.clean.output) for line in whole]
        times = {round(sigma, 9): line.timestep for sigma, line in zip(sigmas, whole, strict=True)}

        def told(latents: Tensor, sigma: float, times: dict[float, float] = times) -> Tensor:
            return denoised(latents, sigma, lambda timestep: times.get(round(sigma, 9), timestep))

        fresh = (noise.double() for noise in noises())
        begin = next(fresh) * plan.initial_scale * math.sqrt(1 + sigmas[0] ** 2)
        reference = STEPPERS[name](begin, [*sigmas, 0.0], told, fresh)
        assert gap(walked(plan, dtype=torch.float64), reference) < 1e-6, steps


def sigma_of(of_latents: float, of_output: float) -> float:
    """σ/α of the level at which a denoiser of ε was asked: its clean latents are x/α − σ/α·ε."""
    assert of_latents >= 1
    return -of_output
