"""Makes the controls of one job before its first step: their networks come onto the device, their maps are read."""

from collections.abc import Generator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenControl
from domains.inference.on_device.controls.control_net import ControlNet, check_fits
from domains.inference.on_device.controls.job_controls import NO_CONTROLS, Controls, JobControl
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.network_load import NetworkLoad
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.rows import RowConditions
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, Ready, loading_controlnet


class Reading(Protocol):
    """Makes what a network reads of the job's prompts."""

    def __call__(self, net: ControlNet) -> RowConditions:
        """The conditions for all steps."""
        ...


class ControlsOfJob:
    """The controls of one job, on their way."""

    def __init__(
        self, job_id: str, resolved: ResolvedGeneration, given: Sequence[GivenControl], pool: NetworkPool
    ) -> None:
        self._resolved = resolved
        self._size_px = resolved.width_px, resolved.height_px
        pairs = [
            one for one in zip(resolved.controls, given, strict=True) if one[1].model.kind is not ModelKind.T2I_ADAPTER
        ]
        # One without weight, or without a step, has no effect.
        self._wanted = [one for one in pairs if one[0].weight and resolved.counted(one[0].steps_of)]
        self.networks = Borrowed(f"{job_id} controls", pool)

    def bring(self, base: OnDeviceModel) -> bool:
        """Load a piece of the networks. Returns whether all are there. Raises MODEL_INCOMPATIBLE for one that does not fit
        the model, and as loads of models."""
        return self.networks.bring([(one.model, control.model_sha256, _begin) for control, one in self._wanted], base)

    def made(self, reading: Reading, base: OnDeviceModel) -> Controls:
        """The controls, with their maps read. Raises MODEL_INCOMPATIBLE for one that another model brought and that does
        not fit this one. Enqueues."""
        if not self._wanted:
            return NO_CONTROLS
        return Controls(
            all=[
                self._made(control, given, load, reading, base)
                for (control, given), load in zip(self._wanted, self.networks.loads, strict=True)
            ]
        )

    def _made(
        self, control: ResolvedControl, given: GivenControl, load: NetworkLoad, reading: Reading, base: OnDeviceModel
    ) -> JobControl:
        unet = base.modules["unet"]
        check_fits(load.module, unet, base.model.id, load.model.id)
        reads_sizes = getattr(unet.config, "addition_embed_type", None) == "text_time"
        net = load.view(lambda module: ControlNet(module, pooled_and_sizes=reads_sizes))
        device = base.device
        hidden = None if given.hidden is None else _region(read_sized(given.hidden, self._size_px, (1,)), device)
        return JobControl(
            net=net,
            conditions=reading(net),
            hint=net.hint(read_sized(given.map, self._size_px).to(device), hidden),
            weight=control.weight,
            balance=control.balance,
            steps=self._resolved.counted(control.steps_of),
            region=None if given.region is None else _region(read_sized(given.region, self._size_px, (1,)), device),
        )


def _begin(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    unet = base.modules["unet"]
    return loading_controlnet(model, base, lambda module: check_fits(module, unet, base.model.id, model.id))


def _region(pixels: Tensor, device: torch.device) -> Tensor:
    """(1, 1, h, w), 0..1."""
    return pixels.permute(2, 0, 1).unsqueeze(0).to(device).float().div(255)
