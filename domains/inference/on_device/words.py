"""A prompt as the token ids of one text encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from domains.inference.on_device.adapters import words_of
from domains.inference.on_device.families.family import EncodedPrompt


class Words:
    """A tokenizer that pads and cuts to a fixed number of tokens."""

    def __init__(self, tokenizer: Any, room: int | None = None, embedding: nn.Module | None = None) -> None:
        """`tokenizer`: of transformers. `room` None: its own limit; else that or its own, whichever is less. `embedding`: of
        tokens, which may read learned words; None: it reads none."""
        self.tokenizer = tokenizer
        self._embedding = embedding
        self.room: int = tokenizer.model_max_length if room is None else min(room, tokenizer.model_max_length)

    def ids(self, prompt: str) -> Tensor:
        """(1, room), on the host."""
        return self.padded(prompt)[0]

    def padded(self, prompt: str) -> tuple[Tensor, Tensor]:
        """The ids, and 1 for each token that is no padding; both (1, room), on the host. Learned words have negative ids."""
        if (learned := self._learned(prompt)) is not None:
            return self._filled(learned)
        found = self.tokenizer(prompt, padding="max_length", max_length=self.room, truncation=True, return_tensors="pt")
        return found.input_ids, found.attention_mask

    def count(self, prompt: str) -> int:
        """Tokens of the whole text, start and end included."""
        if (learned := self._learned(prompt)) is not None:
            return len(learned) + 2
        return len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids)

    def _learned(self, prompt: str) -> list[int] | None:
        """The ids between start and end of a text that may have learned words. None: the encoder reads none now."""
        words = None if self._embedding is None else words_of(self._embedding)
        if words is None:
            return None
        return [
            one for piece in words.pieces(prompt) for one in (self._plain(piece) if isinstance(piece, str) else piece)
        ]

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids

    def _filled(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        tokenizer = self.tokenizer
        whole = [tokenizer.bos_token_id, *ids[: self.room - 2], tokenizer.eos_token_id]
        padding = self.room - len(whole)
        mask = [1] * len(whole) + [0] * padding
        return torch.tensor([whole + [tokenizer.pad_token_id] * padding]), torch.tensor([mask])

    def encoded(
        self, prompt: str, states: Tensor, pooled: Tensor | None = None, mask: Tensor | None = None
    ) -> EncodedPrompt:
        """What an encoder made of the ids."""
        whole = self.count(prompt)
        return EncodedPrompt(
            states=states, pooled=pooled, mask=mask, blank=not prompt, tokens=whole, tokens_read=min(whole, self.room)
        )
