"""Converts a request's own noise levels, solver settings and range of steps to and from the fields of Sampling."""

from typing import Any

from deviceops.inference.v1 import sampling_pb2
from domains.inference.own_walk import OwnWalk
from domains.inference.step_range import StepRange


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


def from_step_range(message: sampling_pb2.Sampling) -> StepRange:
    """Which steps a message asks for."""
    return StepRange(
        first_step=message.first_step if message.HasField("first_step") else None,
        last_step=message.last_step if message.HasField("last_step") else None,
        add_noise=message.add_noise if message.HasField("add_noise") else None,
    )


def step_range_fields(part: StepRange) -> dict[str, Any]:
    """The fields of the message."""
    return {"first_step": part.first_step, "last_step": part.last_step, "add_noise": part.add_noise}
