"""Finds the faults of a request's own walk: its noise levels, and what its sampler or model does not read."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

from domains.errors import Violation, excerpt
from domains.inference import limits
from domains.inference.checks.bounds import within
from domains.inference.fields import FIELDS
from domains.inference.generation import Sampling
from domains.inference.samplers import SAMPLERS, WALK_OPTIONS
from domains.model.model import Model


def walk_violations(sampling: Sampling) -> Iterator[Violation]:
    """Values that are wrong by themselves."""
    own = sampling.own
    allowed = FIELDS["sampling.timestep_spacing"].allowed
    if own.timestep_spacing and own.timestep_spacing not in allowed:
        known = ", ".join(allowed)
        text = f"there is no timestep spacing {excerpt(own.timestep_spacing)!r}; known: {known}"
        yield Violation(field=_path("timestep_spacing"), message=text, allowed=known)
    yield from within("sampling.solver_order", own.solver_order)
    yield from within("sampling.flow_shift", own.flow_shift)
    yield from _list("sigmas", own.sigmas, limits.SIGMA, least=2)
    yield from _list("timesteps", own.timesteps, limits.TIMESTEP, least=1)


def levels_together(sampling: Sampling) -> Iterator[Violation]:
    """Fields that a list of noise levels excludes."""
    own = sampling.own
    if own.steps is None:
        return
    levels = "sigmas" if own.sigmas else "timesteps"
    for name, given in _given(sampling).items():
        if given and name not in (levels, "solver_order"):
            text = f"{levels} give the noise levels, and their number the steps; leave {name} out"
            yield Violation(field=_path(name), message=text)


def walk_for_sampler(sampler: str, asked: Sampling) -> Iterator[Violation]:
    """Options that the sampler does not read."""
    for name, given in _given(asked).items():
        if given and name in WALK_OPTIONS and name not in SAMPLERS[sampler].options:
            able = ", ".join(one.id for one in SAMPLERS.values() if name in one.options)
            text = f"{sampler} does not read {name}; leave it out, or take one that does: {able}"
            yield Violation(field=_path(name), message=text)


def walk_for_model(asked: Sampling, model: Model) -> Iterator[Violation]:
    """Values that a model of this kind does not read."""
    own, kind = asked.own, "flow models" if model.flow else f"models of the family {model.family}"
    if own.flow_shift is not None and not model.flow:
        text = f"{kind} have no shift of their noise levels; leave it out"
        yield Violation(field=_path("flow_shift"), message=text)
    if own.timestep_spacing and model.flow:
        text = f"{kind} have no trained timesteps to lay the steps on; leave it out, or give flow_shift"
        yield Violation(field=_path("timestep_spacing"), message=text)
    if own.sigmas and model.flow and own.sigmas[0] > 1:
        text = f"{own.sigmas[0]:g} is above 1, the share of noise at which {kind} begin"
        yield Violation(field=f"{_path('sigmas')}[0]", message=text, allowed="0..1")
    most = model.train_steps
    if own.timesteps and most and own.timesteps[0] >= most:
        text = f"{own.timesteps[0]} is not within 0..{most - 1}: model {model.id} was trained with {most} timesteps"
        yield Violation(field=f"{_path('timesteps')}[0]", message=text, allowed=f"0..{most - 1}")
    if own.timesteps and model.flow and own.timesteps[-1] == 0:
        text = f"{kind} have no noise at timestep 0, where the walk ends by itself; leave it out"
        yield Violation(field=f"{_path('timesteps')}[{len(own.timesteps) - 1}]", message=text, allowed="1..999")


def _given(asked: Sampling) -> Mapping[str, bool]:
    own = asked.own
    return {
        "steps": asked.steps is not None,
        "sigma_schedule": bool(asked.sigma_schedule),
        "timestep_spacing": bool(own.timestep_spacing),
        "solver_order": own.solver_order is not None,
        "flow_shift": own.flow_shift is not None,
        "sigmas": bool(own.sigmas),
        "timesteps": bool(own.timesteps),
    }


def _list(name: str, values: tuple[float, ...], bounds: tuple[float, float], *, least: int) -> Iterator[Violation]:
    if told := list(within(f"sampling.{name}", len(values))):
        yield from told
        return
    if values and len(values) < least:
        yield Violation(field=_path(name), message=f"has {len(values)} entry; a walk needs a beginning and an end")
    low, high = bounds
    for place, value in enumerate(values):
        if not (math.isfinite(value) and low <= value <= high):
            text, allowed = f"{value} is not within {low:g}..{high:g}", f"{low:g}..{high:g}"
            yield Violation(field=f"{_path(name)}[{place}]", message=text, allowed=allowed)
            return
    for place, (before, after) in enumerate(pairwise(values), 1):
        if after >= before:
            text = f"{after} is not below {before}, the one before; noise levels fall"
            yield Violation(field=f"{_path(name)}[{place}]", message=text)
            return


def _path(name: str) -> str:
    return f"generation.sampling.{name}"
