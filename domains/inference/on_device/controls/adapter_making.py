"""Makes the T2I adapters of one job before its first step: each comes onto the device, reads its map once, and leaves."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenControl
from domains.inference.on_device.controls.features import NO_FEATURES, Features, JobFeatures
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.to_device import to_device
from domains.model.kind import ModelKind
from domains.model.on_device import OnDeviceModel, loading_t2i_adapter, picture_layout

Shape = tuple[int, ...]
"""(channels, h, w)."""
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow makes grey of colours."""


class FeaturesOfJob:
    """The T2I adapters of one job, on their way."""

    def __init__(
        self,
        job_id: str,
        resolved: ResolvedGeneration,
        given: Sequence[GivenControl],
        pool: NetworkPool,
        sized_by: str = "generation",
    ) -> None:
        """`resolved`: what a pass makes. `sized_by`: the field with its size."""
        self._resolved, self._sized_by = resolved, sized_by
        pairs = zip(resolved.controls, given, strict=True)
        # One without weight, or without a step, has no effect.
        self._wanted = [
            (control, one)
            for control, one in pairs
            if one.model.kind is ModelKind.T2I_ADAPTER and control.weight and resolved.counted(control.steps_of)
        ]
        self.networks = Borrowed(f"{job_id} maps", pool)

    def bring(self, base: OnDeviceModel) -> bool:
        """Load a piece of the adapters. Returns whether all are there. Raises as loads of models."""
        wanted = [(one.model, control.model_sha256, loading_t2i_adapter) for control, one in self._wanted]
        return self.networks.bring(wanted, base)

    def made(self, base: OnDeviceModel, unet: UNet | None, latent_size: tuple[int, int]) -> Features:
        """The features of all maps. The adapters leave the device. Raises MODEL_INCOMPATIBLE for an adapter that does not
        fit the model, UNSUPPORTED_COMBINATION for a size that it cannot read. `latent_size`: (h, w). Enqueues."""
        if not self._wanted or unet is None:
            return NO_FEATURES
        shapes = unet.feature_shapes(*latent_size)
        found = [
            self._made(control, given, load.module, base, shapes)
            for (control, given), load in zip(self._wanted, self.networks.loads, strict=True)
        ]
        # All that later steps read are the features.
        self.networks.leave()
        return Features(all=found)

    def _made(
        self, control: ResolvedControl, given: GivenControl, module: Any, base: OnDeviceModel, shapes: Sequence[Shape]
    ) -> JobFeatures:
        size_px = self._resolved.width_px, self._resolved.height_px
        self._check_size(size_px, module, control)
        picture = _read(to_device(read_sized(given.map, size_px), base.device), module)
        levels = [
            one.contiguous(memory_format=picture_layout(picture.device)) for one in module(picture.to(base.dtype))
        ]
        _check_fits(levels, shapes, control.model_id, base.model.id)
        region = None if given.region is None else to_device(read_sized(given.region, size_px, (1,)), base.device)
        return JobFeatures(
            levels=levels,
            weight=control.weight,
            balance=control.balance,
            steps=self._resolved.counted(control.steps_of),
            region=None if region is None else region.permute(2, 0, 1).unsqueeze(0).float().div(255),
        )

    def _check_size(self, size_px: tuple[int, int], module: Any, control: ResolvedControl) -> None:
        multiple = module.downscale_factor
        names = ("width_px", "height_px")
        wrong = [
            Violation(
                field=f"{self._sized_by}.{name}",
                message=f"{edge} is no multiple of {multiple}, which T2I adapter {control.model_id} needs",
                allowed=f"a multiple of {multiple}",
            )
            for name, edge in zip(names, size_px, strict=True)
            if edge % multiple
        ]
        if wrong:
            raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION, model_id=control.model_id)


def _read(pixels: Tensor, module: Any) -> Tensor:
    """(1, 3 or 1, h, w), 0..1, of a map (h, w, 3) uint8."""
    picture = pixels.permute(2, 0, 1).unsqueeze(0).float().div(255)
    if module.config.in_channels == 1:
        return (picture * picture.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return picture


def _check_fits(levels: Sequence[Tensor], ours: Sequence[Shape], adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless each feature has the shape of its level; the middle may have none."""
    theirs = [tuple(one.shape[1:]) for one in levels]
    if len(theirs) in (len(ours) - 1, len(ours)) and theirs == [*ours[: len(theirs)]]:
        return
    message = (
        f"T2I adapter {adapter_id} does not fit model {model_id}: its features have the shapes {theirs} where the model has "
        f"{[*ours[:-1]]}; name one for its family"
    )
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, control_model_id=adapter_id, model_id=model_id)
