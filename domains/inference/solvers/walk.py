"""The steps that a job's latents walk, before a solver turns them into lines."""

from collections.abc import Callable

import msgspec

from domains.inference.solvers.level import Level


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's scheduler_config.json or a request says about the solver itself."""

    eta: float = 0.0
    """Share of new noise in DDIM (Song et al. 2021) and strategic noise γ in TCD."""
    order: int = 2
    """Highest order of UniPC and DEIS."""
    heun: bool = False
    """Whether DPM-Solver++ takes its second term in the form named heun, not midpoint."""
    bh1: bool = False
    """Whether UniPC takes B(h) = h, not e^h − 1."""
    lower_order_final: bool = True
    """Whether the last steps of a short walk are of a lower order, for stability."""
    euler_at_final: bool = False
    """Whether the last step is always of the first order."""
    uncorrected: tuple[int, ...] = ()
    """Steps of UniPC that are not corrected."""
    large_variance: bool = False
    """Whether DDPM draws with variance β, not with that of the posterior."""


class Step(msgspec.Struct, frozen=True):
    """From one noise level to a lower one."""

    begin: Level
    end: Level


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """All steps from noise to a picture."""

    steps: tuple[Step, ...]
    prediction: str
    """What the denoiser's output is: `epsilon` (the noise), `v_prediction` (Salimans & Ho 2022), `sample` (the clean
    latents) or `flow` (noise − clean)."""
    initial_scale: float
    """Standard deviation of the first latents."""
    between: Callable[[float], Level]
    """The level at a ratio σ/α between two of the walk's."""
    at_timestep: Callable[[int], Level]
    """The level of a trained timestep."""
    options: Options = Options()
    skipped: int = 0
    """Number of steps that were left out before the first, since the walk begins at a picture."""

    @property
    def planned(self) -> int:
        """Number of steps, those left out included: solvers tell short walks by it, as diffusers' do."""
        return self.skipped + len(self.steps)

    def after(self, skipped: int) -> "Walk":
        """The walk without its first steps. Solvers begin anew: nothing is remembered of what was left out."""
        if not skipped or skipped >= len(self.steps):
            return msgspec.structs.replace(self, steps=self.steps[skipped:], skipped=skipped)
        scale = self.steps[skipped].begin.sigma
        return msgspec.structs.replace(self, steps=self.steps[skipped:], skipped=skipped, initial_scale=scale)

    @property
    def flow(self) -> bool:
        """Whether latents are (1 − σ)·clean + σ·noise."""
        return self.prediction == "flow"
