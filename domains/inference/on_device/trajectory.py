"""A job's pictures between noise and final latents: all of them move together, one step at a time."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch
from msgspec import structs
from torch import Tensor

from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters
from domains.inference.on_device.composed import gathered, spread
from domains.inference.on_device.families.family import (
    Conditions,
    Family,
    KeepOn,
    PictureLatents,
    StepRows,
    alike,
    regardless,
)
from domains.inference.on_device.forwards import Forwards, has_single_rows, in_forwards
from domains.inference.on_device.guides import NO_GUIDES, Guides
from domains.inference.on_device.inpainting import LatentMask, Masked, begin_masked, kept_mask
from domains.inference.on_device.noise import Noise, draw_together
from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.solver_step import follow
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.wrapping import NO_WRAPS, Wraps
from domains.inference.solvers.flow_sigmas import Flow
from domains.inference.solvers.plan import Plan, plan
from domains.inference.solvers.weights import NOISE
from domains.model.families import FAMILIES


class Renew(Protocol):
    """Computes the conditions of a step with its prompts and with adapters."""

    def __call__(self, adapters: Adapters, step: int) -> Conditions:
        """The conditions of a step, counted from 0."""
        ...

    def variant(self, step: int) -> int:
        """Which prompts count in a step."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it keeps."""
        ...


class Trajectory:
    """Latents, the lines that they follow, and their noise."""

    def __init__(
        self,
        family: Family,
        conditions: Conditions,
        plan: Plan,
        noise: Noise,
        picture: PictureLatents | None = None,
        adapters: Adapters = NO_ADAPTERS,
        renew: Renew | None = None,
        masked: Masked | None = None,
        wraps: Wraps = NO_WRAPS,
        guides: Guides = NO_GUIDES,
        *,
        exact: bool = False,
    ) -> None:
        """`conditions`: for the first step. `picture`: where the walk begins; None: at pure noise. `renew`: the conditions
        of later steps; needed if their prompts or adapters are others. `masked`: the part of the picture that is made anew;
        None: all of it. `exact`: see `StepRows`."""
        self.family = family
        self.conditions = conditions
        self._adapters = self._present = adapters
        self._renew = renew
        self._variant = 0 if renew is None else renew.variant(0)
        self._guides = guides
        self.steps = plan.steps
        self.index = 0
        """Number of steps done."""
        self._lines = plan.lines
        self.forwards = Forwards.ALL
        """What shares a forward."""
        self._noise = noise
        self._ends = plan.ends
        self._left = plan.left
        self._wraps = wraps
        self._exact = exact
        first, self._mask = _initial(plan, noise, picture, masked)
        self._state = SolverState(first, plan.lines)
        timesteps = torch.tensor([line.timestep for line in plan.lines], dtype=torch.float32)
        self._timesteps = to_device(timesteps, self.latents.device)

    @property
    def latents(self) -> Tensor:
        """(pictures, channels, h/8, w/8), float32."""
        return self._state.latents

    @property
    def x0(self) -> Tensor | None:
        """The last estimate of the clean latents; None before the first."""
        return self._state.clean

    @property
    def handed(self) -> Tensor:
        """The latents for another walk. If this walk stops before its end, they are clean + σ/α·noise."""
        return self.latents / self._ends[-1].alpha if self._left and self._ends else self.latents

    @property
    def place(self) -> int:
        """Number of lines done."""
        return self._state.place

    @property
    def done(self) -> bool:
        """Whether the latents are final."""
        return self.place == len(self._lines)

    @property
    def between_steps(self) -> bool:
        """Whether the latents are at the end of a step, not at a place within."""
        return self.place == 0 or self._lines[self.place - 1].ends_step

    @property
    def rows(self) -> int:
        """Number of rows in a forward."""
        return len(self.latents) * self.conditions.rows

    @property
    def smaller_forwards(self) -> Forwards | None:
        """The next way to have less in a forward. None: there is none."""
        if self.forwards is Forwards.ALL and len(self.latents) > 1:
            return Forwards.PICTURE
        # What guides a picture knows both of its rows.
        whole = self.forwards is Forwards.ROW or bool(self._guides.tensors())
        return None if whole or not has_single_rows(self.conditions) else Forwards.ROW

    @property
    def alike(self) -> Hashable:
        """What trajectories of one model must have in common to share a forward."""
        return alike(self.latents, self.conditions, self._adapters.at(self.index), self._wraps)

    def inputs(self) -> StepRows:
        """The denoiser's inputs for the next line."""
        self.enter_phase()
        read = None if self._mask is None else self._mask.read
        return StepRows(
            latents=self.latents if read is None else torch.cat([self.latents, read], dim=1),
            timestep=self._timesteps[self.place],
            conditions=self.conditions,
            adapters=self._present,
            wraps=self._wraps,
            controls=self._guides.controls.at(self.index),
            image_prompts=self._guides.image_prompts.at(self.index),
            features=self._guides.features.at(self.index),
            exact=self._exact,
        )

    def enter_phase(self) -> None:
        """Take the prompts and adapters of the next step. Adapters change the keys in conditions, so these are made anew."""
        adapters = self._adapters.at(self.index)
        variant = self._variant if self._renew is None else self._renew.variant(self.index)
        if adapters is self._present and variant == self._variant:
            return
        if self._renew is None:
            raise RuntimeError("adapters of later steps need conditions of their own")
        self.conditions, self._present = self._renew(adapters, self.index), adapters
        self._variant = variant

    def arrive(self) -> None:
        """Complete a line that `follow` has done: count the step, and hold the latents to the picture outside a mask."""
        ends_step = self._lines[self.place - 1].ends_step
        self.index += ends_step
        if self._mask is not None and ends_step:
            end = self._ends[self.index - 1]
            self._state.latents = self._mask.held(self.latents, end, self._left + self.steps - self.index)

    def kept(self) -> dict[str, Tensor]:
        """The tensors that, with `place`, are enough to continue: the solver's and the states of the noise generators."""
        states = {f"generator.{picture}": state for picture, state in enumerate(self._noise.kept())}
        return self._state.named() | states | ({} if self._mask is None else self._mask.kept())

    def restore(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Continue from the tensors of `kept`, at a place."""
        self._noise.restore([tensors[f"generator.{picture}"] for picture in range(len(self.latents))])
        self._state.restore(tensors, place)
        self._mask = kept_mask(tensors, self.latents.device)
        self.index = sum(line.ends_step for line in self._lines[:place])

    def noise_states(self) -> list[Tensor]:
        """The state of each picture's noise generator, on the CPU."""
        return self._noise.kept()

    def go_on_with_noise(self, states: Sequence[Tensor]) -> None:
        """Continue another walk's noise generators from their states."""
        self._noise.restore(states)

    @property
    def state(self) -> SolverState:
        """The latents and history that the solver advances."""
        return self._state

    @property
    def drawing(self) -> Noise | None:
        """What the next line draws its noise from. None: it draws none."""
        return self._noise if NOISE in self._state.weights.reads else None

    def tensors(self) -> list[Tensor]:
        """The device tensors that the trajectory holds."""
        masks = () if self._mask is None else self._mask.kept().values()
        renewed = () if self._renew is None else self._renew.tensors()
        of_job = (*self._adapters.tensors(), *self._guides.tensors(), *masks, *renewed)
        return [*self._state.tensors(), *self.conditions.tensors(), *of_job]


def begin(
    family: Family,
    resolved: ResolvedGeneration,
    config: Mapping[str, object],
    conditions: Conditions,
    device: torch.device,
    picture: PictureLatents | None = None,
    adapters: Adapters = NO_ADAPTERS,
    renew: Renew | None = None,
    masked: Masked | None = None,
    guides: Guides = NO_GUIDES,
) -> Trajectory:
    """A trajectory at its initial noise, or at the noised picture. `config` is the model's scheduler config."""
    shape = family.latent_shape(resolved.width_px, resolved.height_px)
    facts = FAMILIES[resolved.family]
    planned = plan(
        resolved.sampler,
        config,
        sigma_schedule=resolved.sigma_schedule,
        steps=resolved.steps,
        eta=resolved.eta,
        flow=Flow(even=facts.even_sigmas, tokens=shape[1] * shape[2] // facts.patch_size**2),
        visited=resolved.visited,
        own=resolved.own,
    )
    if resolved.part.add_noise is False and planned.begin is not None:
        planned = structs.replace(planned, begin=structs.replace(planned.begin, sigma=0.0))
    # With a picture, the first draw samples the encoder's distribution.
    draws = picture is not None and picture.deviation is not None
    second = draws and (masked is None or masked.draws_picture)
    noise = Noise(resolved.seeds, shape, device, resolved.seed_variation, varied=int(second))
    exact = resolved.determinism is Determinism.EXACT
    of_job = picture, adapters, renew, masked, resolved.wraps, guides
    return Trajectory(family, conditions, planned, noise, *of_job, exact=exact)


def _initial(
    plan: Plan, noise: Noise, picture: PictureLatents | None, masked: Masked | None
) -> tuple[Tensor, LatentMask | None]:
    """The first latents. With a picture: drawn from its encoder's distribution, then noised: diffusers' order."""
    if picture is None:
        return noise.draw() * plan.initial_scale, None
    if plan.begin is None:
        return picture.mean, None
    if masked is not None:
        return begin_masked(plan, noise, picture, masked)
    clean = picture.drawn(noise.draw)
    return plan.begin.alpha * clean + plan.begin.sigma * noise.draw(), None


def outputs_of(group: Sequence[Trajectory], keep_on: KeepOn = regardless) -> Sequence[Tensor]:
    """The denoiser's output for the next line of each, in as few forwards as their family allows. All have the same model
    and are not done. Changes nothing. Raises what `keep_on` raises, and CodeMissing."""
    first = group[0]
    if len(group) == 1:
        return [in_forwards(first.inputs(), first.forwards, lambda rows: _denoised(first.family, [rows], keep_on)[0])]
    return _denoised(first.family, [trajectory.inputs() for trajectory in group], keep_on)


def _denoised(family: Family, jobs: Sequence[StepRows], keep_on: KeepOn) -> Sequence[Tensor]:
    """The denoiser's output for each job."""
    rows = [spread(job) for job in jobs]
    return gathered(family.denoise([one for some in rows for one in some], keep_on), jobs)


def drawn_for(group: Sequence[Trajectory]) -> Sequence[Tensor | None]:
    """The noise that `moved` reads. Drawn once a line, whether it can be followed or not."""
    return draw_together([trajectory.drawing for trajectory in group])


def moved(group: Sequence[Trajectory], outputs: Sequence[Tensor], noises: Sequence[Tensor | None]) -> None:
    """Follow the next line of each with the denoiser's output; `Trajectory.arrive` completes it. Changes nothing if it
    raises."""
    follow([trajectory.state for trajectory in group], outputs, noises)


def walk_together(group: Sequence[Trajectory], keep_on: KeepOn = regardless) -> None:
    """Do one line of each; see `outputs_of`."""
    outputs = outputs_of(group, keep_on)
    moved(group, outputs, drawn_for(group))
    for trajectory in group:
        trajectory.arrive()
