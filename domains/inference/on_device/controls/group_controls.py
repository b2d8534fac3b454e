"""The controls of a group of jobs in one forward: each network once, for the rows of all jobs that use it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domains.inference.controls import ControlBalance
from domains.inference.on_device.controls.control_net import stacked_hints
from domains.inference.on_device.controls.guiding_net import GuidingNet
from domains.inference.on_device.controls.job_controls import JobControl
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.group_reads import GroupReads, Reader
from domains.inference.on_device.rows import RowConditions, Rows, in_rows, stacked
from domains.inference.on_device.to_device import to_device


class Member(NamedTuple):
    """A job of the group."""

    pictures: slice
    """Its pictures among those of the group."""
    guided: bool
    controls: Sequence[JobControl]


class GroupControls:
    """The controls of one step. Steps with the same controls share it."""

    def __init__(self, members: Sequence[Member], layout: Rows) -> None:
        """`members`: guided ones first, as the rows stand."""
        self.of = [member.controls for member in members]
        """By job: what counts."""
        nets = dict.fromkeys(control.net for member in members for control in member.controls)
        self._nets = [_NetRows(net, members, layout) for net in nets]

    def of_these(self, controls: Sequence[Sequence[JobControl]]) -> bool:
        """Whether it was made for these controls."""
        return self.of == controls

    @property
    def held_bytes(self) -> int:
        """Bytes of what it keeps beside the jobs' own tensors."""
        return sum(net.held_bytes for net in self._nets)

    def residuals(self, latents: Tensor, times: Tensor, keep_on: KeepOn, base: Any = None) -> Sequence[Tensor | None]:
        """(rows, …) each: what is added at each place of the denoiser (`base`): to the skip connections and to the middle of
        a U-Net, behind each block of a transformer. None: nothing there. Empty: nothing is."""
        total: Sequence[Tensor | None] = ()
        for net in self._nets:
            found = net.residuals(latents, times, keep_on, base)
            total = _summed(total, found) if total else found
        return total


def _summed(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The sums, place by place. Places that share their tensors share the sum."""
    known: dict[tuple[int, int], Tensor] = {}
    found: list[Tensor | None] = []
    for one, other in zip(some, others, strict=True):
        if one is None or other is None:
            found.append(other if one is None else one)
            continue
        pair = id(one), id(other)
        if pair not in known:
            known[pair] = one + other
        found.append(known[pair])
    return found


class _Part(NamedTuple):
    """A control of a job, with its rows of the network's forward and of the whole."""

    control: JobControl
    pictures: slice
    guided: bool


def _with_rows(part: _Part) -> RowConditions:
    """What the control reads, with the rows that its job has in this step: without guidance, that of the prompt alone."""
    own, guided = part.control.conditions, part.guided and not part.control.net.reads_prompt_alone
    if own.guided == guided:
        return own
    inputs = [one[-1:] for one in own.inputs]
    return RowConditions(guidance=own.guidance, guided=False, inputs=inputs, regions=own.regions)


class _NetRows:
    """One network with the rows that read it."""

    def __init__(self, net: GuidingNet, members: Sequence[Member], layout: Rows) -> None:
        self._net = net
        self._parts = parts = [
            _Part(control, member.pictures, member.guided)
            for member in members
            for control in member.controls
            if control.net is net
        ]
        self._images = images = [part.pictures.stop - part.pictures.start for part in parts]
        conditions = [_with_rows(part) for part in parts]
        self._inputs = [stacked(conditions, images, place) for place in range(len(conditions[0].inputs))]
        self._hints = stacked_hints([part.control.hint for part in parts], images)
        self._rows = Rows(sum(n for n, part in zip(images, parts, strict=True) if part.guided), sum(images))
        self._layout = layout
        self._beside = self._read_beside(conditions)
        self._scales = to_device(self._scaled().to(net.dtype), self._hints.device)
        self._resized: dict[tuple[int, torch.Size], Tensor] = {}
        """Regions by part and size of the residual: the same in all steps."""
        own = [one for one, theirs in zip(self._inputs, conditions[0].inputs, strict=True) if one is not theirs]
        self._own_bytes = sum(tensor.nbytes for tensor in (*own, self._scales))
        # Every row in its order: the residuals need no place of their own.
        self._whole = [part.pictures for part in parts] == [member.pictures for member in members]

    @property
    def held_bytes(self) -> int:
        """Bytes of what it keeps beside the jobs' own tensors."""
        return self._own_bytes + sum(region.nbytes for region in self._resized.values())

    def residuals(self, latents: Tensor, times: Tensor, keep_on: KeepOn, base: Any) -> Sequence[Tensor | None]:
        if not self._whole:
            latents = torch.cat([latents[part.pictures] for part in self._parts])
            times = times if len(times) == 1 else torch.cat([times[part.pictures] for part in self._parts])
        size = latents.shape[2], latents.shape[3]
        found = self._net.residuals(latents, times, self._inputs, self._hints, keep_on, self._beside, base)
        placed = [self._placed(one, scale, size) for one, scale in zip(found, self._scales, strict=True)]
        return self._net.aligned(placed, base)

    def _read_beside(self, conditions: Sequence[RowConditions]) -> Sequence[Sequence[Beside]]:
        """What rows read of the prompts of regions. Empty: nothing."""
        if not any(one.regions for one in conditions):
            return ()
        ends = [*accumulate(self._images)]
        places = [slice(end - images, end) for end, images in zip(ends, self._images, strict=True)]
        readers = [
            Reader(place, part.guided, (), one.regions)
            for place, part, one in zip(places, self._parts, conditions, strict=True)
        ]
        return GroupReads(readers, self._rows).layers

    def _placed(self, residual: Tensor, scale: Tensor, size: tuple[int, int]) -> Tensor:
        """A residual, weighted, in the rows of the whole forward. `size`: (h, w) of the latents."""
        residual = in_rows(residual, self._rows.total) * scale.view(-1, *[1] * (residual.dim() - 1))
        if self._whole and all(part.control.region is None for part in self._parts):
            return residual
        placed = residual.new_zeros((self._layout.total, *residual.shape[1:]))
        begin = 0
        for number, (part, count) in enumerate(zip(self._parts, self._images, strict=True)):
            own, region = slice(begin, begin + count), self._region(number, residual, size)
            for source, target in zip(
                self._rows.of(own, guided=part.guided), self._layout.of(part.pictures, guided=part.guided), strict=True
            ):
                placed[target] += residual[source] if region is None else residual[source] * region
            begin += count
        return placed

    def _region(self, number: int, residual: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Where a part counts, in the size of a residual. None: everywhere."""
        region, key = self._parts[number].control.region, (number, residual.shape[1:])
        if region is not None and key not in self._resized:
            self._resized[key] = self._net.region_in(region, residual, size)
        return self._resized.get(key)

    def _scaled(self) -> Tensor:
        """(layers, rows of the network): the weights."""
        scales = torch.zeros(self._net.layers, self._rows.total)
        shares, begin = self._net.shares(), 0
        for part, count in zip(self._parts, self._images, strict=True):
            control = part.control
            layers = torch.ones_like(shares) if control.balance is ControlBalance.EVEN else shares
            *without, with_prompt = self._rows.of(slice(begin, begin + count), guided=part.guided)
            scales[:, with_prompt] = control.weight * layers[:, None]
            alone = control.balance is ControlBalance.CONTROL or self._net.of_whole_picture
            for rows in without:
                scales[:, rows] = 0.0 if alone else control.weight * layers[:, None]
            begin += count
        return scales
