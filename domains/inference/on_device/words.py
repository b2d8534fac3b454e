"""A prompt as the token ids of one text encoder."""

from typing import Any

from torch import Tensor

from domains.inference.on_device.family import EncodedPrompt


class Words:
    """A tokenizer that pads and cuts to a fixed number of tokens."""

    def __init__(self, tokenizer: Any, room: int | None = None) -> None:
        """`tokenizer`: of transformers. `room` None: its own limit; else that or its own, whichever is less."""
        self.tokenizer = tokenizer
        self.room: int = tokenizer.model_max_length if room is None else min(room, tokenizer.model_max_length)

    def ids(self, prompt: str) -> Tensor:
        """(1, room), on the host."""
        return self.padded(prompt)[0]

    def padded(self, prompt: str) -> tuple[Tensor, Tensor]:
        """The ids, and 1 for each token that is no padding; both (1, room), on the host."""
        found = self.tokenizer(prompt, padding="max_length", max_length=self.room, truncation=True, return_tensors="pt")
        return found.input_ids, found.attention_mask

    def count(self, prompt: str) -> int:
        """Tokens of the whole text, start and end included."""
        return len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids)

    def encoded(
        self, prompt: str, states: Tensor, pooled: Tensor | None = None, mask: Tensor | None = None
    ) -> EncodedPrompt:
        """What an encoder made of the ids."""
        whole = self.count(prompt)
        return EncodedPrompt(
            states=states, pooled=pooled, mask=mask, blank=not prompt, tokens=whole, tokens_read=min(whole, self.room)
        )
