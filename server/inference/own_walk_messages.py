"""What a request says about its walk beside sampler, schedule and steps, to and from the fields of Sampling."""

from typing import Any

from deviceops.inference.v1 import sampling_pb2
from domains.inference.own_walk import OwnWalk


def from_own_walk(message: sampling_pb2.Sampling) -> OwnWalk:
    """The value of a message."""
    return OwnWalk(
        timestep_spacing=message.timestep_spacing,
        solver_order=message.solver_order if message.HasField("solver_order") else None,
        flow_shift=message.flow_shift if message.HasField("flow_shift") else None,
        sigmas=tuple(message.sigmas),
        timesteps=tuple(message.timesteps),
    )


def own_walk_fields(own: OwnWalk) -> dict[str, Any]:
    """The fields of the message."""
    return {
        "timestep_spacing": own.timestep_spacing,
        "solver_order": own.solver_order,
        "flow_shift": own.flow_shift,
        "sigmas": own.sigmas,
        "timesteps": own.timesteps,
    }
