"""The sampler of one job: a fresh diffusers scheduler with our sampler's options and the model's training config.

Diffusers' schedulers keep their tables on the CPU as 0-dim tensors, which a device reads as plain numbers; so a step
enqueues kernels and waits for nothing.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.on_device.unipc import UniPC
from domains.inference.samplers import SAMPLERS, steps_refusal
from domains.model.sampler_names import FLAG_OF_SCHEDULE
from domains.model.scheduler_config import FILE, fault_in, train_steps_of

_TRIED_STEPS = 4
_SPACINGS: tuple[Mapping[str, object], ...] = (
    {},
    {"timestep_spacing": "trailing", "steps_offset": 0},
    {"timestep_spacing": "linspace", "steps_offset": 0},
)
"""Options that replace the model's own, in the order of their trial; one of them works for each number of steps."""

Step = Callable[[Any, Tensor, Tensor, Tensor, "Tensor | None", float], tuple[Tensor, Tensor]]
"""(diffusers scheduler, model output, timestep, latents, noise, eta) → (next latents, estimate of clean latents)."""


def _predicting(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None, eta: float):
    result = scheduler.step(output, timestep, latents)
    return result.prev_sample, result.pred_original_sample


def _ddim(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None, eta: float):
    result = scheduler.step(output, timestep, latents, eta=eta, variance_noise=noise)
    return result.prev_sample, result.pred_original_sample


def _multistep(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None, eta: float):
    latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return latents, scheduler.model_outputs[-1]


def _ancestral(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None, eta: float):
    return scheduler.step_with(output, latents, noise)


def _unipc(scheduler: Any, output: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None, eta: float):
    return scheduler.step_with(output, timestep, latents)


class _EulerAncestral(EulerAncestralDiscreteScheduler):
    """Diffusers' tables, with a step that receives its noise: diffusers' own copies it in and waits for the device."""

    def step_with(self, output: Tensor, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Algorithm 2 of Karras et al. 2022 with k-diffusion's ancestral split of the next noise level."""
        index = self.step_index
        sigma, following = self.sigmas[index], self.sigmas[index + 1]
        up = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5
        down = (following**2 - up**2) ** 0.5
        x0 = self._x0(output, latents, sigma)
        self._step_index = index + 1
        return latents + (latents - x0) / sigma * (down - sigma) + noise * up, x0

    def _x0(self, output: Tensor, latents: Tensor, sigma: Tensor) -> Tensor:
        config: Any = self.config
        match config.prediction_type:
            case "epsilon":
                return latents - sigma * output
            case "v_prediction":
                return output * (-sigma / (sigma**2 + 1) ** 0.5) + latents / (sigma**2 + 1)
            case _:
                return output


@dataclass(frozen=True, kw_only=True)
class _Solver:
    scheduler: type
    step: Step
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Fixed by our id, regardless of the model's config."""


_SOLVERS: Mapping[str, _Solver] = {
    "euler": _Solver(scheduler=EulerDiscreteScheduler, step=_predicting),
    "euler_a": _Solver(scheduler=_EulerAncestral, step=_ancestral),
    "ddim": _Solver(scheduler=DDIMScheduler, step=_ddim),
    "dpmpp_2m": _Solver(
        scheduler=DPMSolverMultistepScheduler,
        step=_multistep,
        options={"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "unipc": _Solver(scheduler=UniPC, step=_unipc, options={"predict_x0": True}),
}


class Sampler:
    """The sampler of one job. Not shared, because it keeps its position and the last outputs."""

    def __init__(
        self, sampler: str, config: Mapping[str, object], *, sigma_schedule: str, steps: int, eta: float | None
    ) -> None:
        """`config`: the model's scheduler_config.json.

        Raises InvalidRequest for a sampler, schedule or number of steps that cannot be walked, MODEL_INCOMPATIBLE for a
        config that no scheduler can be built from.
        """
        _refuse_unknown(sampler, sigma_schedule)
        self.id = sampler
        self._solver = _SOLVERS[sampler]
        self._eta = (eta or 0.0) if SAMPLERS[sampler].eta else 0.0
        self._scheduler = _spaced(self._solver, sampler, config, sigma_schedule, steps)
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(0)  # else the first step looks its index up in a device tensor
        self.timesteps: Tensor = self._scheduler.timesteps
        """(steps,), on the CPU; the timestep of each step for the denoiser."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    @property
    def initial_scale(self) -> float:
        """Standard deviation of the initial noise."""
        return float(self._scheduler.init_noise_sigma)

    @property
    def needs_noise(self) -> bool:
        """Whether each step takes new noise."""
        return SAMPLERS[self.id].stochastic or self._eta > 0

    def scaled(self, latents: Tensor, index: int) -> Tensor:
        """Latents, scaled as the denoiser needs them at step `index`."""
        return self._scheduler.scale_model_input(latents, self.timesteps[index])

    def step(self, output: Tensor, latents: Tensor, index: int, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute step `index`: the next latents, and the estimate of the clean ones. Call once a step, in order."""
        return self._solver.step(self._scheduler, output, self.timesteps[index], latents, noise, self._eta)

    @property
    def _held_sample(self) -> Tensor | None:
        return getattr(self._scheduler, "held_sample", None)

    def tensors(self) -> list[Tensor]:
        """The device tensors that the sampler keeps."""
        names = ("model_outputs", "held_outputs")  # diffusers' multistep solvers', and our UniPC's
        held = [*(tensor for name in names for tensor in getattr(self._scheduler, name, ())), self._held_sample]
        return [tensor for tensor in held if isinstance(tensor, Tensor)]


def try_config(config: Mapping[str, object]) -> None:
    """Raise MODEL_INCOMPATIBLE if a sampler cannot walk with a model's scheduler_config.json."""
    for sampler in SAMPLERS:
        try:
            walk = Sampler(sampler, config, sigma_schedule="normal", steps=_TRIED_STEPS, eta=None)
            latents = torch.zeros(1, 4, 1, 1)
            for index in range(walk.steps):
                walk.scaled(latents, index)
                latents, _ = walk.step(latents, latents, index, latents if walk.needs_noise else None)
        except DeviceOpsError as error:
            # Only some requests are impossible with this sampler; they are refused when they come.
            if error.reason is not ErrorReason.UNSUPPORTED_COMBINATION:
                raise
        except Exception as error:  # diffusers raises any error for an option that it cannot use
            raise _incompatible(f"{sampler} cannot use it: {error}", sampler=sampler) from error


def _spaced(solver: _Solver, sampler: str, config: Mapping[str, object], sigma_schedule: str, steps: int) -> Any:
    """A scheduler with its timesteps set: by the model's own spacing, or by another one where that repeats a noise
    level, leaves the trained steps or gives another number of steps (diffusers' do, for numbers near that of training)."""
    if fault := fault_in(config):
        raise FailedPrecondition(fault.message, ErrorReason.MODEL_INCOMPATIBLE, file=FILE, field=fault.field)
    trained = train_steps_of(config)
    if config.get("thresholding") and sampler == "unipc":
        message = "unipc cannot threshold, which the model's scheduler_config.json asks for; take another sampler"
        violation = Violation(field="generation.sampling.sampler", message=message)
        raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
    for spacing in _SPACINGS:
        scheduler = _built(solver, {**config, **spacing}, sigma_schedule)
        try:
            scheduler.set_timesteps(steps)
        except Exception as error:  # diffusers raises any error for an option that it cannot use
            if steps <= trained:
                raise _incompatible(f"{sampler} cannot use it: {error}", sampler=sampler) from error
            continue
        if len(scheduler.timesteps) == steps and _walkable(scheduler, sampler, trained):
            return scheduler
    raise steps_refusal(sampler, steps, trained)


def _walkable(scheduler: Any, sampler: str, trained: int) -> bool:
    """Whether each step can be computed: DDIM looks its timesteps up in the trained ones, multistep solvers divide by the
    difference of two noise levels."""
    if sampler == "ddim":
        return 0 <= int(scheduler.timesteps.min()) <= int(scheduler.timesteps.max()) < trained
    if sampler in ("dpmpp_2m", "unipc"):
        return bool((torch.diff(scheduler.sigmas) < 0).all())
    return True


def _built(solver: _Solver, config: Mapping[str, object], sigma_schedule: str) -> Any:
    # DDIM clips to −1..1 by default, which is wrong for latents; it is off unless the config asks for it.
    options = {"clip_sample": False, **config, **solver.options}
    # The request's schedule alone counts; diffusers refuses a scheduler with two of these.
    options |= {flag: schedule == sigma_schedule for schedule, flag in FLAG_OF_SCHEDULE.items()}
    known = inspect.signature(solver.scheduler.__init__).parameters
    try:
        return solver.scheduler(**{name: value for name, value in options.items() if name in known})
    except Exception as error:  # diffusers raises any error for an option that it cannot use, ImportError too
        raise _incompatible(f"{solver.scheduler.__name__} cannot use it: {error}") from error


def _incompatible(what: str, **facts: str) -> FailedPrecondition:
    message = f"{FILE} describes no sampler: {what[:300]}"
    return FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, file=FILE, **facts)


def _refuse_unknown(sampler: str, sigma_schedule: str) -> None:
    if sampler not in _SOLVERS:
        message = f"there is no sampler {sampler!r}; known: {', '.join(_SOLVERS)}"
        violation = Violation(field="generation.sampling.sampler", message=message, allowed=", ".join(_SOLVERS))
        raise InvalidRequest([violation])
    takes = SAMPLERS[sampler].sigma_schedules
    if sigma_schedule not in takes:
        message = f"{sampler} does not take the sigma schedule {sigma_schedule!r}; it takes: {', '.join(takes)}"
        violation = Violation(field="generation.sampling.sigma_schedule", message=message, allowed=", ".join(takes))
        raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
