"""Makes the image prompts of one job before its first step: their networks come onto the device, their pictures are read."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import GivenImagePrompt
from domains.inference.image_prompts import LAYERS, ResolvedImagePrompt
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.areas import Area
from domains.inference.on_device.image_prompts.encoder import ImageEncoder
from domains.inference.on_device.image_prompts.job_prompts import NO_IMAGE_PROMPTS, ImagePrompts, JobImagePrompt
from domains.inference.on_device.image_prompts.kinds import AdapterKind, empty_adapter, kind_of, stays
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
        self.adapters = Borrowed(f"{job_id} pictures", pool)
        self.encoders = Borrowed(f"{job_id} seen", pool)

    @property
    def networks(self) -> Sequence[Borrowed]:
        """The adapters and the encoders."""
        return [self.adapters, self.encoders]

    def bring(self, base: OnDeviceModel, unet: UNet | None) -> bool:
        """Load a piece of the networks. Returns whether all are there. Raises MODEL_INCOMPATIBLE for one that does not fit
        the model or its encoder, and as loads of models. `unet`: the model's; None: it has none."""
        if not self._wanted:
            return True
        kind = kind_of(base, unet)

        def adapter(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
            return loading_network(
                model,
                base,
                lambda tensors: empty_adapter(kind, tensors, model.id),
                lambda net: kind.check_fits(net, model.id),
            )

        adapters = [(given.model, prompt.model_sha256, adapter) for prompt, given in self._wanted]
        encoders = [(given.encoder, prompt.encoder_sha256, loading_image_encoder) for prompt, given in self._wanted]
        return self.adapters.bring(adapters, base) and self.encoders.bring(encoders, base)

    def check(self, base: OnDeviceModel, unet: UNet | None) -> None:
        """Raise MODEL_INCOMPATIBLE for an adapter that was brought with another model and does not fit this one."""
        for load in self.adapters.loads:
            kind_of(base, unet).check_fits(load.module, load.model.id)

    def made(self, now: ResolvedGeneration, base: OnDeviceModel, unet: UNet | None) -> ImagePrompts:
        """The image prompts of a pass (`now`), with their pictures read. The networks that no step reads leave the device.
        Enqueues."""
        if not self._wanted:
            return NO_IMAGE_PROMPTS
        kind = kind_of(base, unet)
        loads = zip(self._wanted, self.adapters.loads, self.encoders.loads, strict=True)
        found = [self._made(one, adapter.module, encoder.module, now, base, kind) for one, adapter, encoder in loads]
        self.encoders.leave()
        if not stays(base):
            # All that later steps read are the keys and values.
            self.adapters.leave()
        return ImagePrompts(all=found)

    def leave(self) -> None:
        """Give all networks back."""
        for one in self.networks:
            one.leave()

    def _made(
        self, wanted: _Wanted, net: Any, encoder: Any, now: ResolvedGeneration, base: OnDeviceModel, kind: AdapterKind
    ) -> JobImagePrompt:
        prompt, given = wanted
        reader = ImageEncoder(encoder)
        kind.check_fits(net, prompt.model_id)
        reader.check_fits(net.projection, prompt.encoder_model_id, prompt.model_id)
        guided = FAMILIES[base.family].reads_negative(now.guidance_scale)
        seen = _seen(reader, wanted, kind, patches=net.projection.reads_patches, guided=guided, device=base.device)
        found = kind.read(net, seen)
        start = LAYERS.get(prompt.mode, "")
        size_px = self._resolved.width_px, self._resolved.height_px
        return JobImagePrompt(
            keys=found.keys,
            norms=found.norms,
            timed=found.timed,
            weights=[prompt.weight if name.startswith(start) else 0.0 for name in kind.names],
            steps=now.counted(prompt.steps_of),
            area=None if given.region is None else _area(given.region, size_px, kind, base.device),
        )


def _seen(
    reader: ImageEncoder, wanted: _Wanted, kind: AdapterKind, *, patches: bool, guided: bool, device: torch.device
) -> Tensor:
    """(1 or 2 rows, pictures, [patches,] width): without the prompt first, which sees the negative picture, or nothing."""
    prompt, given = wanted
    size_px = prompt.edge_px, prompt.edge_px
    seen = reader.seen([read_sized(one, size_px) for one in given.images], patches=patches, device=device)
    if not guided:
        return seen.unsqueeze(0)
    if given.negative_image is None:
        without = kind.nothing(reader, seen, prompt.edge_px, patches=patches)
    else:
        without = reader.seen([read_sized(given.negative_image, size_px)], patches=patches, device=device)
    return torch.stack([without.expand_as(seen), seen])


def _area(file: KeptFile, size_px: tuple[int, int], kind: AdapterKind, device: torch.device) -> Area:
    pixels = to_device(read_sized(file, size_px, (1,)), device)
    return Area(map=pixels.permute(2, 0, 1).unsqueeze(0).float().div(255), mode=kind.area_mode)
