"""What a request says about its walk beside the sampler, the sigma schedule and the number of steps."""

from collections.abc import Mapping

import msgspec

SPACINGS = ("leading", "linspace", "trailing")
"""How steps can lie on the trained timesteps; diffusers' names."""


class OwnWalk(msgspec.Struct, frozen=True, kw_only=True):
    """A request's own noise levels, and what it says in place of the model's files. All of it can be absent."""

    timestep_spacing: str = ""
    """A name of `SPACINGS`. Empty: as the model's files say."""
    solver_order: int | None = None
    """Order of the solver, 1..3. Absent: as the model's files say, else 2."""
    flow_shift: float | None = None
    """How far the sigmas of a flow model are shifted. Absent: as the model's files say."""
    sigmas: tuple[float, ...] = ()
    """Falling noise levels, the one that the walk ends at included: σ/α, of flow models σ. Empty: by the schedule."""
    timesteps: tuple[int, ...] = ()
    """Falling timesteps of the model at which the steps begin. Empty: by the schedule."""

    @property
    def steps(self) -> int | None:
        """The number of steps that the levels give. None: there are none."""
        return len(self.sigmas) - 1 if self.sigmas else len(self.timesteps) or None

    @property
    def options(self) -> Mapping[str, object]:
        """Options of scheduler_config.json that replace the model's own."""
        told: dict[str, object] = {}
        if self.timestep_spacing:
            told["timestep_spacing"] = self.timestep_spacing
        if self.solver_order is not None:
            told["solver_order"] = self.solver_order
        if self.flow_shift is not None:
            told |= {"shift": self.flow_shift, "use_dynamic_shifting": False}
        return told


AS_THE_MODEL = OwnWalk()
"""No own levels or options: the model's files decide."""
