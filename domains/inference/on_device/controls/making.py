"""Makes the controls of one job before its first step: their networks come onto the device, their maps are read."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from domains.errors import FailedPrecondition
from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenControl
from domains.inference.on_device.controls.control_net import ControlNet
from domains.inference.on_device.controls.control_pool import ControlLoad, ControlPool
from domains.inference.on_device.controls.job_controls import NO_CONTROLS, Controls, JobControl
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.rows import RowConditions
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel


class Reading(Protocol):
    """Makes what a network reads of the job's prompts."""

    def __call__(self, net: ControlNet) -> RowConditions:
        """The conditions for all steps."""
        ...


class ControlsOfJob:
    """The controls of one job, on their way."""

    def __init__(
        self, job_id: str, resolved: ResolvedGeneration, given: Sequence[GivenControl], pool: ControlPool
    ) -> None:
        self._job_id = job_id
        self._resolved = resolved
        self._size_px = resolved.width_px, resolved.height_px
        pairs = [
            one for one in zip(resolved.controls, given, strict=True) if one[1].model.kind is not ModelKind.T2I_ADAPTER
        ]
        # One without weight, or without a step, has no effect.
        self._wanted = [one for one in pairs if one[0].weight and one[0].steps_of(resolved.computed_steps)]
        self._pool = pool
        self._loads: list[ControlLoad] = []
        self._there = not self._wanted

    @property
    def ready(self) -> bool:
        """Whether `bring` has something to do."""
        return all(load.ready for load in self._on_their_way)

    def wait(self) -> bool:
        """Wait until a network can be loaded further, or at least for a while; False if none is on its way."""
        for load in self._on_their_way:
            load.wait()
            return True
        return False

    @property
    def _on_their_way(self) -> Sequence[ControlLoad]:
        return [load for load in self._loads if load.net is None][:1]

    def bring(self, base: OnDeviceModel) -> bool:
        """Load a piece of the networks. Returns whether all are there. Raises MODEL_INCOMPATIBLE for one that does not fit
        the model, and as loads of models."""
        if self._there:
            return True
        if not self._loads:
            self._loads = [
                self._pool.bring(self._job_id, _unchanged(control, given.model), control.model_sha256, base)
                for control, given in self._wanted
            ]
        for load in self._loads:
            if load.net is not None:
                continue
            try:
                if not load.advance():
                    return False
                self._pool.account(load)
            except Exception:
                self._pool.drop(load)
                raise
        self._there = True
        return True

    def made(self, reading: Reading, device: torch.device) -> Controls:
        """The controls, with their maps read. Enqueues."""
        if not self._wanted:
            return NO_CONTROLS
        return Controls(
            all=[
                self._made(control, given, load, reading, device)
                for (control, given), load in zip(self._wanted, self._loads, strict=True)
            ]
        )

    def _made(
        self, control: ResolvedControl, given: GivenControl, load: ControlLoad, reading: Reading, device: torch.device
    ) -> JobControl:
        net = load.net
        assert net is not None, "`bring` has loaded it"
        hidden = None if given.hidden is None else _region(read_sized(given.hidden, self._size_px, (1,)), device)
        return JobControl(
            net=net,
            conditions=reading(net),
            hint=net.hint(read_sized(given.map, self._size_px).to(device), hidden),
            weight=control.weight,
            balance=control.balance,
            steps=control.steps_of(self._resolved.computed_steps),
            region=None if given.region is None else _region(read_sized(given.region, self._size_px, (1,)), device),
        )

    def leave(self) -> None:
        """Give the networks back."""
        self._loads = []
        self._pool.leave(self._job_id)


def _region(pixels: Tensor, device: torch.device) -> Tensor:
    """(1, 1, h, w), 0..1."""
    return pixels.permute(2, 0, 1).unsqueeze(0).to(device).float().div(255)


def _unchanged(control: ResolvedControl, model: Model) -> Model:
    """The entry. Raises ILLEGAL_STATE if its files are other ones than those of the request."""
    if control.model_sha256 == model.sha256:
        return model
    message = f"the files of {model.id} have changed since the request came; send the request again"
    raise FailedPrecondition(message, model_id=model.id)
