"""Makes the controls of one job before its first step: their networks come onto the device, their maps are read."""

from collections.abc import Generator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.control_types import CONTROL_MODES, forwards_of
from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenControl
from domains.inference.on_device.controls.guiding_net import GuidingNet, JoiningNet, SeePicture, TypedMap
from domains.inference.on_device.controls.job_controls import (
    NO_CONTROLS,
    ControlInSteps,
    Controls,
    JobControl,
    ReadLater,
)
from domains.inference.on_device.controls.kinds import kind_of
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.network_load import NetworkLoad
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.rows import RowConditions
from domains.inference.on_device.to_device import to_device
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, Ready, loading_controlnet


class Reading(Protocol):
    """Makes what a network reads of the job's prompts."""

    @property
    def changes(self) -> bool:
        """Whether the prompts of some step are others."""
        ...

    def variant(self, step: int) -> int:
        """Which of the prompts count in a step, from 0."""
        ...

    def read_by(self, net: GuidingNet, step: int) -> Sequence[RowConditions]:
        """The conditions of a step, of each of the prompts that guide together."""
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

    def check(self, base: OnDeviceModel) -> None:
        """Raise MODEL_INCOMPATIBLE for a network that was brought with another model and does not fit this one."""
        for load in self.networks.loads:
            kind_of(base).check(load.module, base, load.model.id)

    def made(self, reading: Reading, base: OnDeviceModel, see: SeePicture) -> Controls:
        """The controls, with their maps read. Raises MODEL_INCOMPATIBLE for one that another model brought and that does
        not fit this one, UNSUPPORTED_COMBINATION for a map that a network does not read. Enqueues."""
        if not self._wanted:
            return NO_CONTROLS
        forwards = forwards_of([control for control, _ in self._wanted], base.family)
        return Controls(
            all=[
                self._made([self._wanted[place] for place in some], self.networks.loads[some[0]], reading, base, see)
                for some in forwards
            ]
        )

    def _made(
        self,
        together: Sequence[tuple[ResolvedControl, GivenControl]],
        load: NetworkLoad,
        reading: Reading,
        base: OnDeviceModel,
        see: SeePicture,
    ) -> ControlInSteps:
        """`together`: the controls of one forward, with their files."""
        kind = kind_of(base)
        kind.check(load.module, base, load.model.id)
        net = load.view(lambda module: kind.view(module, base, load.model.id))
        device = base.device
        control, given = together[0]
        steps = self._resolved.counted(control.steps_of)
        # A type that the network does not know is refused here, before any step.
        numbers = [_number(one, net, base.family) for one, _ in together]

        def read(step: int) -> Sequence[RowConditions]:
            return [net.weighed(_typed(one, numbers, net), control.weight) for one in reading.read_by(net, step)]

        first = read(steps.start)
        hints = [self._hint(files, net, device, see) for _, files in together]
        one = JobControl(
            net=net,
            conditions=first[0],
            hint=_joined([one for one, _ in together], hints, numbers, net),
            weight=1.0 if len(together) > 1 and cast(JoiningNet, net).weighs_maps else control.weight,
            balance=control.balance,
            region=None if given.region is None else _region(read_sized(given.region, self._size_px, (1,)), device),
        )
        # The encoded prompts are held only if they will be read again.
        later = ReadLater(reading.variant, read) if reading.changes else None
        return ControlInSteps(steps, one.reading(first), later)

    def _hint(self, given: GivenControl, net: GuidingNet, device: torch.device, see: SeePicture) -> Tensor:
        hidden = None if given.hidden is None else _region(read_sized(given.hidden, self._size_px, (1,)), device)
        return net.hint(to_device(read_sized(given.map, self._size_px), device), hidden, see)


def _begin(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    return loading_controlnet(model, base, lambda module: kind_of(base).check(module, base, model.id))


def _typed(conditions: RowConditions, numbers: Sequence[int | None], net: GuidingNet) -> RowConditions:
    """What a network reads, with the types of its maps, if it knows several."""
    known = [number for number in numbers if number is not None]
    if len(known) > 1:
        return cast(JoiningNet, net).typed_together(conditions, known)
    return net.typed(conditions, known[0]) if known else conditions


def _joined(
    controls: Sequence[ResolvedControl], hints: Sequence[Tensor], numbers: Sequence[int | None], net: GuidingNet
) -> Tensor:
    """What a network reads of the maps of one forward."""
    if len(hints) == 1:
        return hints[0]
    return cast(JoiningNet, net).joined(
        [TypedMap(hint, number, one.weight) for one, hint, number in zip(controls, hints, numbers, strict=True)]
    )


def _number(control: ResolvedControl, net: GuidingNet, family: str) -> int | None:
    """The type of a map. None: the network knows one. Raises MODEL_INCOMPATIBLE for a type that it does not know."""
    if not control.control_type:
        return None
    number = CONTROL_MODES[family][control.control_type]
    if number < net.types:
        return number
    message = (
        f"ControlNet {control.model_id} knows {net.types} types of maps, and {control.control_type} is number {number}"
    )
    facts = {"control_model_id": control.model_id, "control_type": control.control_type}
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)


def _region(pixels: Tensor, device: torch.device) -> Tensor:
    """(1, 1, h, w), 0..1."""
    return to_device(pixels, device).permute(2, 0, 1).unsqueeze(0).float().div(255)
