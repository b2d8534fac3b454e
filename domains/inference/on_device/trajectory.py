"""A job's pictures between noise and final latents: all of them move together, one step at a time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.family import Conditions, Family, KeepOn, StepRows, regardless
from domains.inference.on_device.noise import Noise
from domains.inference.on_device.samplers import Sampler


class Trajectory:
    """Latents, their sampler and its noise."""

    def __init__(self, family: Family, conditions: Conditions, sampler: Sampler, noise: Noise) -> None:
        self.family = family
        self.conditions = conditions
        self.sampler = sampler
        self._noise = noise
        self.latents = noise.draw() * sampler.initial_scale
        """(pictures, channels, h/8, w/8), float32."""
        self.x0: Tensor | None = None
        """The last step's estimate of the clean latents; None before the first."""
        self.index = 0
        """Number of steps done."""
        self._timesteps = sampler.timesteps.to(self.latents.device)

    @property
    def done(self) -> bool:
        """Whether the latents are final."""
        return self.index == self.sampler.steps

    def rows(self) -> StepRows:
        """The denoiser's inputs for the next step."""
        scaled = self.sampler.scaled(self.latents, self.index)
        return StepRows(latents=scaled, timestep=self._timesteps[self.index], conditions=self.conditions)

    def apply(self, output: Tensor) -> None:
        """Do one step with the denoiser's output."""
        noise = self._noise.draw() if self.sampler.needs_noise else None
        self.latents, self.x0 = self.sampler.step(output, self.latents, self.index, noise)
        self.index += 1

    def tensors(self) -> list[Tensor]:
        """The device tensors that the trajectory holds."""
        estimate = [] if self.x0 is None else [self.x0]
        return [self.latents, *estimate, *self.conditions.tensors(), *self.sampler.tensors()]


def begin(
    family: Family,
    resolved: ResolvedGeneration,
    config: Mapping[str, object],
    conditions: Conditions,
    device: torch.device,
) -> Trajectory:
    """A trajectory at its initial noise. `config` is the model's scheduler config."""
    sampler = Sampler(
        resolved.sampler,
        config,
        sigma_schedule=resolved.sigma_schedule,
        steps=resolved.steps,
        eta=resolved.eta,
    )
    shape = family.latent_shape(resolved.width_px, resolved.height_px)
    return Trajectory(family, conditions, sampler, Noise(resolved.seeds, shape, device))


def walk_together(group: Sequence[Trajectory], keep_on: KeepOn = regardless) -> None:
    """Do one step of each, in as few forwards as their family allows. All have the same model and are not done.

    Raises what `keep_on` raises; the step is not walked then.
    """
    outputs = group[0].family.denoise([trajectory.rows() for trajectory in group], keep_on)
    for trajectory, output in zip(group, outputs, strict=True):
        trajectory.apply(output)
