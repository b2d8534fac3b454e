"""AuraFlow (Fal 2024): UMT5; a transformer of joint and single blocks with learned positions."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.families.longest_edge import refuse_longer
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import states_of, steered
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.words import Words
from domains.inference.prompts import Prompt
from domains.model.on_device import OnDeviceModel


class AuraFlow(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._dtype = loaded.dtype
        self._transformer = WatchedModule(loaded.modules["transformer"])
        self._config: Any = loaded.modules["transformer"].config
        self._t5: Any = loaded.modules["text_encoder"]
        self._words = Words(loaded.tokenizers["text_encoder"])

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Zeros stand for the padding."""
        ids, there = (to_device(tensor, self._device) for tensor in self._words.padded(prompt.text))
        states = self._t5(ids, attention_mask=there).last_hidden_state * there[..., None]
        return self._words.encoded(prompt.text, states.to(self._dtype))

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        refuse_longer(size_px, isqrt(self._config.pos_embed_max_size) * self._config.patch_size * self.scale_px)
        return steered(guidance, positive, negative, states_of)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            return self._transformer(
                keep_on,
                batch.latents.to(self._dtype),
                encoder_hidden_states=batch.inputs[0],
                timestep=batch.times,
                return_dict=False,
            )[0]

        return self._batches(group, forward)
