"""Makes the image prompts of one job before its first step: their networks come onto the device, their pictures are read."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenImagePrompt
from domains.inference.image_prompts import LAYERS, ResolvedImagePrompt
from domains.inference.on_device.areas import Area
from domains.inference.on_device.image_prompts.adapter_net import AdapterNet, check_fits, empty_adapter
from domains.inference.on_device.image_prompts.encoder import ImageEncoder
from domains.inference.on_device.image_prompts.job_prompts import NO_IMAGE_PROMPTS, ImagePrompts, JobImagePrompt
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.to_device import to_device
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, Ready, loading_image_encoder, loading_network


class _Wanted(NamedTuple):
    """An image prompt that has an effect."""

    prompt: ResolvedImagePrompt
    given: GivenImagePrompt


class ImagePromptsOfJob:
    """The image prompts of one job, on their way."""

    def __init__(
        self, job_id: str, resolved: ResolvedGeneration, given: Sequence[GivenImagePrompt], pool: NetworkPool
    ) -> None:
        self._resolved = resolved
        pairs = zip(resolved.image_prompts, given, strict=True)
        # One without weight, or without a step, has no effect.
        self._wanted = [_Wanted(*one) for one in pairs if one[0].weight and one[0].steps_of(resolved.computed_steps)]
        self.networks = Borrowed(f"{job_id} pictures", pool)
        """The adapter and the encoder of each."""

    def bring(self, base: OnDeviceModel, unet: UNet | None) -> bool:
        """Load a piece of the networks. Returns whether all are there. Raises MODEL_INCOMPATIBLE for one that does not fit
        the model or its encoder, and as loads of models. `unet`: the model's; None: it has none."""
        if not self._wanted:
            return True
        assert unet is not None, "the plan refuses image prompts for families without a U-Net"

        def adapter(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
            return loading_network(
                model,
                base,
                lambda tensors: empty_adapter(tensors, model.id),
                lambda net: check_fits(net, unet, model.id, base.model.id),
            )

        wanted = [
            one
            for prompt, given in self._wanted
            for one in (
                (given.model, prompt.model_sha256, adapter),
                (given.encoder, prompt.encoder_sha256, loading_image_encoder),
            )
        ]
        return self.networks.bring(wanted, base)

    def check(self, base: OnDeviceModel, unet: UNet | None) -> None:
        """Raise MODEL_INCOMPATIBLE for an adapter that was brought with another model and does not fit this one."""
        if unet is not None:
            for load in self.networks.loads[::2]:
                check_fits(cast(AdapterNet, load.module), unet, load.model.id, base.model.id)

    def made(self, now: ResolvedGeneration, base: OnDeviceModel, unet: UNet | None) -> ImagePrompts:
        """The image prompts of a pass (`now`), with their pictures read. All networks leave the device. Enqueues."""
        if not self._wanted or unet is None:
            return NO_IMAGE_PROMPTS
        loads = self.networks.loads
        found = [
            self._made(one, adapter.module, encoder.module, now, base, unet)
            for one, adapter, encoder in zip(self._wanted, loads[::2], loads[1::2], strict=True)
        ]
        # All that later steps read are the keys and values.
        self.networks.leave()
        return ImagePrompts(all=found)

    def _made(
        self, wanted: _Wanted, adapter: Any, encoder: Any, now: ResolvedGeneration, base: OnDeviceModel, unet: UNet
    ) -> JobImagePrompt:
        prompt, given = wanted
        net, reader = cast(AdapterNet, adapter), ImageEncoder(encoder)
        check_fits(net, unet, prompt.model_id, base.model.id)
        reader.check_fits(net, prompt.encoder_model_id, prompt.model_id)
        guided = FAMILIES[base.family].reads_negative(now.guidance_scale)
        keys = net.keys(_seen(reader, wanted, patches=net.image_proj.reads_patches, guided=guided, base=base), unet)
        start = LAYERS.get(prompt.mode, "")
        size_px = self._resolved.width_px, self._resolved.height_px
        return JobImagePrompt(
            keys=keys,
            weights=[prompt.weight if name.startswith(start) else 0.0 for name in unet.cross_names],
            steps=now.counted(prompt.steps_of),
            area=None if given.region is None else _area(read_sized(given.region, size_px, (1,)), base.device),
        )


def _seen(reader: ImageEncoder, wanted: _Wanted, *, patches: bool, guided: bool, base: OnDeviceModel) -> Tensor:
    """(1 or 2 rows, pictures, [patches,] width): without the prompt first, which sees the negative picture, or nothing."""
    prompt, given = wanted
    size_px = prompt.edge_px, prompt.edge_px
    seen: Any = reader.seen([read_sized(one, size_px) for one in given.images], patches=patches, device=base.device)
    if not guided:
        return seen.unsqueeze(0)
    if given.negative_image is None:
        without = reader.nothing(seen, patches=patches, edge_px=prompt.edge_px)
    else:
        without = reader.seen([read_sized(given.negative_image, size_px)], patches=patches, device=base.device)
    return torch.stack([without.expand_as(seen), seen])


def _area(pixels: Tensor, device: torch.device) -> Area:
    # Bicubic as diffusers brings such masks to the size of a layer.
    return Area(map=to_device(pixels, device).permute(2, 0, 1).unsqueeze(0).float().div(255), mode="bicubic")
