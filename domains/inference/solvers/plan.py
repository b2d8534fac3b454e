"""What a sampler will do with a model: its lines, from the model's scheduler_config.json and a request's choices."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.own_walk import AS_THE_MODEL, OwnWalk
from domains.inference.samplers import SAMPLERS, most_trained_steps, schedules_for, steps_refusal, walkers_of
from domains.inference.solvers.flow_sigmas import Flow, flow_sigmas
from domains.inference.solvers.flow_walk import flow_walk
from domains.inference.solvers.level import Level
from domains.inference.solvers.line import Line
from domains.inference.solvers.own_levels import own_levels
from domains.inference.solvers.table import SOLVERS, Solver
from domains.inference.solvers.trained_walk import trained_walk
from domains.inference.solvers.walk import Options, Walk
from domains.model.scheduler_config import FILE, fault_in, is_flow, train_steps_of

_TRIED_STEPS = 4
_SPACINGS: tuple[Mapping[str, object], ...] = (
    {},
    {"timestep_spacing": "trailing", "steps_offset": 0},
    {"timestep_spacing": "linspace", "steps_offset": 0},
)
"""Options that replace the model's own, in the order of their trial; one of them works for each number of steps."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A walk as a table."""

    lines: tuple[Line, ...]
    initial_scale: float
    """Standard deviation of the initial noise."""
    begin: Level | None = None
    """The noise level at which a walk from a picture begins. None: no step is computed."""
    ends: tuple[Level, ...] = ()
    """The noise level at the end of each step, as the next step takes it."""
    left: int = 0
    """Number of steps that the walk stops before; then the last latents hold noise."""

    @property
    def steps(self) -> int:
        """Number of steps; a step has one or two lines."""
        return sum(line.ends_step for line in self.lines)


def plan(
    sampler: str,
    config: Mapping[str, Any],
    *,
    sigma_schedule: str,
    steps: int,
    eta: float | None,
    flow: Flow | None = None,
    visited: range | None = None,
    own: OwnWalk = AS_THE_MODEL,
) -> Plan:
    """Raises InvalidRequest for a sampler, schedule or number of steps that cannot be walked, MODEL_INCOMPATIBLE for a
    config with an impossible value. `flow` counts for flow models alone. `visited`: which of the steps are
    computed, from 0; None: all. `own`: the request's own levels, which count in place of schedule and steps, and
    options, which count in place of the config's."""
    config = {**config, **own.options}
    _refuse_unknown(sampler, sigma_schedule if own.steps is None else "normal", flow=is_flow(config))
    if fault := fault_in(config):
        raise _incompatible(fault.message, field=fault.field)
    solver = SOLVERS[sampler]
    try:
        options = _options(sampler, config, eta)
        if own.steps is not None:
            walk = own_levels(solver, config, own, options)
        elif is_flow(config):
            sigmas = flow_sigmas(config, sigma_schedule, steps, flow or Flow())
            walk = flow_walk(sigmas.tolist(), options, train_steps_of(config))
        else:
            spacings = ({},) if own.timestep_spacing else _SPACINGS
            walk = _walk(solver, sampler, config, sigma_schedule, steps, options, spacings)
        part = range(len(walk.steps)) if visited is None else visited
        walk, left = walk.after(part.start), len(walk.steps) - part.stop
        if not part:
            return Plan(lines=(), initial_scale=walk.initial_scale)
        ends = (*(step.begin for step in walk.steps[1:]), walk.steps[-1].end)
        return Plan(
            lines=tuple(_before(len(part), solver.lines(walk))),
            initial_scale=walk.initial_scale,
            begin=walk.steps[0].begin,
            ends=ends[: len(part)],
            left=left,
        )
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise _incompatible(f"{FILE} describes no noise that {sampler} can walk: {error}", sampler=sampler) from error


def _before(stop: int, lines: Iterable[Line]) -> Iterator[Line]:
    """The lines of the first steps, up to the one to stop before. Later steps count in them all the same: a solver lowers
    its order only where the whole walk ends."""
    ended = 0
    for line in lines:
        if ended == stop:
            return
        ended += line.ends_step
        yield line


def try_config(config: Mapping[str, Any]) -> None:
    """Raise MODEL_INCOMPATIBLE if a sampler cannot walk with a model's scheduler_config.json."""
    for sampler in walkers_of(flow=is_flow(config)):
        try:
            plan(sampler, config, sigma_schedule="normal", steps=_TRIED_STEPS, eta=None)
        except DeviceOpsError as error:
            # Only some requests are impossible with this sampler; they are refused when they come.
            if error.reason is not ErrorReason.UNSUPPORTED_COMBINATION:
                raise


def _walk(
    solver: Solver,
    sampler: str,
    config: Mapping[str, Any],
    sigma_schedule: str,
    steps: int,
    options: Options,
    spacings: Sequence[Mapping[str, object]],
) -> Walk:
    """By the model's own spacing, or by another one where that repeats a level or gives another number of steps."""
    for spacing in spacings:
        if found := trained_walk(solver, {**config, **spacing}, sigma_schedule, steps, options):
            return found
    trained = train_steps_of(config)
    raise steps_refusal(sampler, steps, most_trained_steps(trained, sampler, sigma_schedule) or trained)


def _options(sampler: str, config: Mapping[str, Any], eta: float | None) -> Options:
    solver_type = config.get("solver_type")
    return Options(
        eta=(SAMPLERS[sampler].default_eta if eta is None else eta) if SAMPLERS[sampler].eta else 0.0,
        order=config.get("solver_order", 2),
        heun=solver_type == "heun",
        bh1=solver_type == "bh1",
        lower_order_final=config.get("lower_order_final", True),
        euler_at_final=config.get("euler_at_final", False),
        uncorrected=tuple(config.get("disable_corrector", ())),
        large_variance=config.get("variance_type") == "fixed_large",
    )


def _incompatible(message: str, **facts: str) -> FailedPrecondition:
    return FailedPrecondition(message[:400], ErrorReason.MODEL_INCOMPATIBLE, file=FILE, **facts)


def _refuse_unknown(sampler: str, sigma_schedule: str, *, flow: bool) -> None:
    if sampler not in SOLVERS:
        message = f"there is no sampler {sampler!r}; known: {', '.join(SOLVERS)}"
        violation = Violation(field="generation.sampling.sampler", message=message, allowed=", ".join(SOLVERS))
        raise InvalidRequest([violation])
    takes = schedules_for(sampler, flow=flow)
    if sigma_schedule not in takes:
        message = f"{sampler} does not take the sigma schedule {sigma_schedule!r}; it takes: {', '.join(takes)}"
        violation = Violation(field="generation.sampling.sigma_schedule", message=message, allowed=", ".join(takes))
        raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
