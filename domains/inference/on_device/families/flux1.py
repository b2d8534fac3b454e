"""FLUX.1 dev and schnell (Black Forest Labs 2024): CLIP (pooled) and T5; a transformer that reads guidance as a number."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.editing import behind_latents
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.families.packing import unpacked
from domains.inference.on_device.networks.joint_reads import reading_behind_blocks
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import RowConditions, pooled_of, states_of, steered
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.words import Words
from domains.inference.prompts import Prompt
from domains.model.families.flux1 import CONTROL
from domains.model.on_device import OnDeviceModel


class Flux1(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._dtype = loaded.dtype
        self._transformer = WatchedModule(loaded.modules["transformer"])
        config: Any = loaded.modules["transformer"].config
        self._reads_guidance: bool = config.guidance_embeds
        self._reads_map = loaded.model.variant == CONTROL
        self._clip: Any = loaded.modules["text_encoder"]
        self._t5: Any = loaded.modules["text_encoder_2"]
        self._clip_words = Words(loaded.tokenizers["text_encoder"], embedding=self._clip.get_input_embeddings())
        self._t5_words = Words(loaded.tokenizers["text_encoder_2"])

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        pooled = self._clip(to_device(self._clip_words.ids(prompt.text), self._device)).pooler_output
        states = self._t5(to_device(self._t5_words.ids(prompt.text_of(1)), self._device)).last_hidden_state
        return self._t5_words.encoded(prompt.text_of(1), states.to(self._dtype), pooled)

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        distilled: float = 0.0,
    ) -> Conditions:
        """`distilled`: the embedded guidance. Schnell reads none."""
        return self.conditions_for(None, positive, negative, guidance, size_px, distilled)

    def conditions_for(
        self,
        network: object,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        distilled: float = 0.0,
    ) -> RowConditions:
        """What a network that reads prompts as this family's transformer does reads in all steps."""
        told = torch.full((1,), distilled, dtype=torch.float32, device=self._device)
        return steered(guidance, positive, negative, states_of, pooled_of, lambda _: told)

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """The picture, then each pixel of the mask in a channel of its own."""
        edge = hidden.shape[2] // cells.shape[2]
        mask = F.pixel_unshuffle(hidden, edge)  # (1, edge², h/8, w/8)
        return torch.cat([seen, mask.to(seen).expand(len(seen), -1, -1, -1)], dim=1)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            states, pooled, guidance, *pictures = batch.inputs
            height, width = batch.latents.shape[-2:]
            latents = batch.latents
            if self._reads_map:
                latents, pictures = torch.cat([latents, *(one.to(latents) for one in pictures)], dim=1), []
            tokens, places = behind_latents(latents, pictures)
            transformer: Any = self._transformer.module
            residuals = batch.residuals(batch.pictures, keep_on, transformer)
            blocks = len(transformer.transformer_blocks)
            with reading_behind_blocks(transformer, batch.beside, (height, width), keep_on):
                output = self._transformer(
                    keep_on,
                    hidden_states=tokens.to(self._dtype),
                    timestep=batch.times,
                    guidance=guidance if self._reads_guidance else None,
                    encoder_hidden_states=states,
                    pooled_projections=pooled,
                    txt_ids=torch.zeros(states.shape[1], 3, device=self._device),
                    img_ids=places,
                    controlnet_block_samples=_given(residuals[:blocks]),
                    controlnet_single_block_samples=_given(residuals[blocks:]),
                    return_dict=False,
                )[0]
            return unpacked(output[:, : height * width // 4], height, width)

        return self._batches(group, forward)


def _given(residuals: Sequence[Any]) -> Sequence[Any] | None:
    """Residuals as the transformer takes them: a ControlNet adds to each of a kind's blocks, or to none."""
    return residuals if any(one is not None for one in residuals) else None
