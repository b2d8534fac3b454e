"""Z-Image (Alibaba 2025): Qwen3 reads the prompt as a chat; one transformer over picture and text of any length."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.families.packing import padded
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import RowConditions
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.words import Words
from domains.inference.prompts import Prompt
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel


class ZImage(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._dtype = loaded.dtype
        self._transformer = WatchedModule(loaded.modules["transformer"])
        self._text: Any = loaded.modules["text_encoder"]
        self._words = Words(loaded.tokenizers["text_encoder"], FAMILIES["z_image"].prompt_tokens)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The states before the last layer, of the chat's own tokens alone."""
        chat = chat_of(self._words.tokenizer, prompt.text)
        ids, there = self._words.padded(chat)
        found = self._text(
            input_ids=to_device(ids, self._device),
            attention_mask=to_device(there, self._device),
            output_hidden_states=True,
        )
        # Chosen by places found on the host: a mask on the device would have to be waited for.
        states = found.hidden_states[-2].index_select(1, to_device(there[0].nonzero().flatten(), self._device))
        return self._words.encoded(chat, states)

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        return self.conditions_for(None, positive, negative, guidance, size_px)

    def conditions_for(
        self,
        network: object,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
    ) -> RowConditions:
        """What a network that reads prompts as this family's transformer does reads in all steps. Guidance counts from 0
        here: text + guidance · (text − negative), where other families count from 1."""
        halves = [positive] if negative is None else [negative, positive]
        lengths = [half.states.shape[1] for half in halves]
        states = [F.pad(half.states, (0, 0, 0, self._words.room - half.states.shape[1])) for half in halves]
        return RowConditions(
            guidance=guidance + 1,
            guided=negative is not None,
            # The lengths stay on the host: the forward cuts by them without a wait for the device.
            inputs=[torch.cat(states), torch.tensor(lengths)],
        )

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            states, lengths = batch.inputs
            # (channels, frames, h, w) each
            pictures = list(batch.latents.to(self._dtype).unsqueeze(2).unbind())
            texts = [row[:length] for row, length in zip(states, cast(list[int], lengths.tolist()), strict=True)]
            times = 1 - batch.times
            transformer: Any = self._transformer.module
            residuals = batch.residuals(batch.pictures, keep_on, transformer)
            # ControlNets leave room for the longest prompt that can be read.
            room = padded(states.shape[1]) - padded(max(map(len, texts)))
            added = {place: one[:, : one.shape[1] - room] for place, one in enumerate(residuals) if one is not None}
            found = self._transformer(
                keep_on, pictures, times, texts, controlnet_block_samples=added or None, return_dict=False
            )[0]
            return -torch.stack(found).squeeze(2)

        return self._batches(group, forward)


def chat_of(tokenizer: Any, text: str) -> str:
    """The prompt as a question to a chat model, which is what the encoder reads."""
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
