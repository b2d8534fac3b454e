"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): two CLIPs and T5, which may be missing; a transformer of joint blocks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.families.longest_edge import refuse_longer
from domains.inference.on_device.networks.joint_reads import reading_in_attention
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import RowConditions, pooled_of, states_of, steered
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.words import Words
from domains.inference.prompts import Prompt
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel

_CLIPS, _T5 = ("text_encoder", "text_encoder_2"), "text_encoder_3"


class Sd3(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._dtype = loaded.dtype
        self._transformer = WatchedModule(loaded.modules["transformer"])
        self._config: Any = loaded.modules["transformer"].config
        self._clips: list[Any] = [loaded.modules[name] for name in _CLIPS]
        self._t5: Any = loaded.modules.get(_T5)
        self._words = [
            Words(loaded.tokenizers[name], embedding=text.get_input_embeddings())
            for name, text in zip(_CLIPS, self._clips, strict=True)
        ]
        self._t5_words = Words(loaded.tokenizers[_T5]) if _T5 in loaded.tokenizers else None

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Tokens of both CLIPs side by side, then those of T5; zeros stand for a T5 that is missing."""
        found = [
            text(to_device(words.ids(prompt.text_of(place)), self._device), output_hidden_states=True)
            for place, (text, words) in enumerate(zip(self._clips, self._words, strict=True))
        ]
        clips = torch.cat([one.hidden_states[-2] for one in found], dim=-1)
        pooled = torch.cat([one.text_embeds for one in found], dim=-1)
        clips = F.pad(clips, (0, self._config.joint_attention_dim - clips.shape[-1]))
        states = torch.cat([clips, self._read_by_t5(prompt.text_of(2)).to(clips.dtype)], dim=-2)
        words, place = (self._t5_words, 2) if self._t5_words else (self._words[0], 0)
        return words.encoded(prompt.text_of(place), states, pooled)

    def _read_by_t5(self, prompt: str) -> Tensor:
        if self._t5 is None or self._t5_words is None:
            part = FAMILIES["sd3"].part(_T5)
            tokens = part.tokens if part else 0
            return torch.zeros(1, tokens, self._config.joint_attention_dim, dtype=self._dtype, device=self._device)
        return self._t5(to_device(self._t5_words.ids(prompt), self._device)).last_hidden_state

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        refuse_longer(size_px, self._config.pos_embed_max_size * self._config.patch_size * self.scale_px)
        return self.conditions_for(None, positive, negative, guidance, size_px)

    def conditions_for(
        self,
        network: object,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
    ) -> RowConditions:
        """What a network that reads prompts as this family's transformer does reads in all steps."""
        return steered(guidance, positive, negative, states_of, pooled_of)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            states, pooled = batch.inputs
            transformer: Any = self._transformer.module
            residuals = batch.residuals(batch.pictures, keep_on, transformer)
            height, width = batch.pictures.shape[-2:]
            with reading_in_attention(transformer, batch.beside, (height, width), keep_on):
                return self._transformer(
                    keep_on,
                    hidden_states=batch.latents.to(self._dtype),
                    timestep=batch.timesteps,
                    encoder_hidden_states=states,
                    pooled_projections=pooled,
                    block_controlnet_hidden_states=residuals or None,
                    return_dict=False,
                )[0]

        return self._batches(group, forward)
