"""Stable Diffusion XL (Podell et al. 2023): two CLIP text encoders, a UNet that also reads sizes and pooled text."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from domains.errors import DataLoss
from domains.inference.on_device.batches import Batch
from domains.inference.on_device.clip_text import ClipText, encoded
from domains.inference.on_device.editing import beside_latents
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows, regardless
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.networks.unet import UNet, flat
from domains.inference.on_device.regions import unconditional
from domains.inference.on_device.rows import RowConditions, pooled_of
from domains.inference.prompts import Prompt
from domains.inference.size_conditioning import AS_MADE, SizeConditioning
from domains.model.families.unet import EDITING
from domains.model.json_file import read_json
from domains.model.on_device import OnDeviceModel


class Sdxl(LatentCodec):
    """See `Family`."""

    texts: ClassVar[Sequence[str]] = ("text_encoder", "text_encoder_2")
    """Its text encoders, side by side; the last one's pooled text is read, too."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._unet = UNet(cast(UNet2DConditionModel, loaded.modules["unet"]), pooled_and_sizes=True)
        self._edits = loaded.model.variant == EDITING
        self._scales_references = self._edits and is_cosxl(Path(loaded.model.folder))
        self._texts = [
            ClipText(loaded.modules[name], loaded.tokenizers[name], loaded.device, layers_left=1) for name in self.texts
        ]

    @property
    def unet(self) -> UNet:
        """The denoiser."""
        return self._unet

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Both encoders read the whole prompt, in as many windows as the one that needs more."""
        laid = [text.windows(prompt, place) for place, text in enumerate(self._texts)]
        most = max(len(one.windows) for one in laid)
        found = [
            text.states(prompt, [*one.windows, *[()] * (most - len(one.windows))])
            for text, one in zip(self._texts, laid, strict=True)
        ]
        states = torch.cat([one.states for one in found], dim=-1)
        return encoded(prompt, max(laid, key=lambda one: one.count - one.read), states, found[-1].pooled)

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        told: SizeConditioning = AS_MADE,
    ) -> Conditions:
        """`told`: the sizes that the denoiser is told."""
        return self.conditions_for(self._unet, positive, negative, guidance, size_px, told)

    def conditions_for(
        self,
        unet: UNet,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        told: SizeConditioning = AS_MADE,
    ) -> RowConditions:
        """What a network that reads prompts as this family's U-Net does reads in all steps."""
        halves = [positive] if negative is None else [unconditional(negative), positive]
        pooled = torch.cat([pooled_of(half) for half in halves])
        keys = unet.text_keys(torch.cat([half.states for half in halves]))
        return RowConditions(
            guidance=guidance,
            guided=negative is not None,
            inputs=[unet.added(pooled, told.numbers(size_px)), *flat(keys)],
        )

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`. InstructPix2Pix was trained with unscaled latents here, CosXL Edit with scaled ones."""
        scaled = super().encode_reference(pixels, keep_on, hidden)
        return scaled if self._scales_references else self._unscaled(scaled)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            pictures, inputs = beside_latents(batch) if self._edits else (batch.pictures, batch.inputs)
            added, *keys = inputs
            latents = pictures.to(self._unet.dtype, memory_format=self._layout)
            residuals = batch.residuals(latents, keep_on)
            return self._unet(
                latents,
                batch.picture_times,
                self._unet.text_keys_of(keys),
                keep_on,
                added=added,
                residuals=residuals,
                beside=batch.beside,
                features=batch.features,
            )

        return self._batches(group, forward)


def is_cosxl(folder: Path) -> bool:
    """Whether a model is of CosXL Edit, which model_index.json alone says."""
    try:
        # A download cache has links. What they lead to must be a file, and no large one.
        return bool(read_json(Path(os.path.realpath(folder / "model_index.json"))).get("is_cosxl_edit"))
    except DataLoss:
        return False
