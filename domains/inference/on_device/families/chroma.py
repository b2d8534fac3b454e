"""Chroma (Lodestone Rock 2025): FLUX.1 schnell with real guidance, T5 alone, and a mask over the prompt's padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.families.packing import packed, positions, unpacked
from domains.inference.on_device.networks.joint_reads import reading_behind_blocks
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import mask_of, states_of, steered
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.words import Words
from domains.inference.prompts import Prompt
from domains.model.on_device import OnDeviceModel


class Chroma(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._dtype = loaded.dtype
        self._transformer = WatchedModule(loaded.modules["transformer"])
        self._t5: Any = loaded.modules["text_encoder"]
        self._words = Words(loaded.tokenizers["text_encoder"])

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The denoiser sees the prompt's tokens and one more, as in its training."""
        ids, there = self._words.padded(prompt.text)
        states = self._t5(to_device(ids, self._device), attention_mask=to_device(there, self._device)).last_hidden_state
        mask = torch.arange(there.shape[1])[None] <= there.sum()
        return self._words.encoded(
            prompt.text, states.to(self._dtype), mask=to_device(mask.to(self._dtype), self._device)
        )

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        return steered(guidance, positive, negative, states_of, mask_of)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            states, mask = batch.inputs
            height, width = batch.latents.shape[-2:]
            tokens = packed(batch.latents).to(self._dtype)
            with reading_behind_blocks(self._transformer.module, batch.beside, (height, width), keep_on):
                output = self._transformer(
                    keep_on,
                    hidden_states=tokens,
                    timestep=batch.times,
                    encoder_hidden_states=states,
                    txt_ids=torch.zeros(states.shape[1], 3, device=self._device),
                    img_ids=positions(height, width, self._device),
                    attention_mask=torch.cat([mask, mask.new_ones(tokens.shape[:2])], dim=1),
                    return_dict=False,
                )[0]
            return unpacked(output, height, width)

        return self._batches(group, forward)
