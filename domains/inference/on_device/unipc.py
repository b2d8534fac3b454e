"""UniPC (Zhao et al. 2023) without waiting for the device.

Diffusers' step solves a small linear system on the device and waits for it. But the step is linear in its tensors: next
latents = Σ coefficient · tensor. So diffusers' own step runs on the CPU over basis vectors, which gives the coefficients,
and the device only adds up. What holds for the next latents holds for the tensors that it remembers too.
"""

from typing import Any

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor


class UniPC(UniPCMultistepScheduler):
    """Diffusers' solver; `step_with` in place of `step`."""

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        """Begin a new walk."""
        super().set_timesteps(*args, **kwargs)
        self.held_outputs: list[Tensor | None] = list(self.model_outputs)
        """Estimates of the clean latents, the newest last; None before there were so many."""
        self.held_sample: Tensor | None = None
        """The last corrected latents."""

    def step_with(self, output: Tensor, timestep: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The next latents, and the estimate of the clean ones."""
        inputs = [latents, output, self.held_sample, *self.held_outputs]
        following, sample, outputs = self._coefficients([tensor is not None for tensor in inputs], timestep)
        self.held_sample = _sum(sample, inputs)
        self.held_outputs = [None if weights is None else _sum(weights, inputs) for weights in outputs]
        clean = self.held_outputs[-1]
        return _sum(following, inputs), latents if clean is None else clean

    def _coefficients(self, known: list[bool], timestep: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Weights of the inputs in: the next latents, the corrected latents, the outputs to remember."""
        # (inputs, 1): diffusers wants a dimension of channels.
        latents, output, *others = torch.eye(len(known), dtype=torch.float64).unsqueeze(-1)
        remembered = [vector if here else None for vector, here in zip(others, known[2:], strict=True)]
        self.last_sample: Any = remembered[0]
        self.model_outputs: list[Any] = remembered[1:]
        following = self.step(output, timestep, latents, return_dict=False)[0]
        return following, self.last_sample, list(self.model_outputs)


def _sum(weights: Tensor, inputs: list[Tensor | None]) -> Tensor:
    """Σ weight · input; a weight of zero costs nothing."""
    terms = [
        (weight, tensor) for weight, tensor in zip(weights[:, 0].tolist(), inputs, strict=True) if tensor is not None
    ]
    (weight, tensor), *others = [term for term in terms if term[0] != 0] or terms[:1]
    total = tensor * weight
    for weight, tensor in others:
        total = torch.add(total, tensor, alpha=weight)
    return total
