"""Keeps encoded prompts for later jobs with the same prompt."""

from collections import OrderedDict
from collections.abc import Callable

from domains.inference.on_device.families.family import EncodedPrompt
from domains.inference.prompts import Prompt

Key = tuple[str, str, Prompt]
"""(model id, what changes its text encoders, prompt)."""


_MOST_BYTES = 64 * 1024 * 1024
"""64 encodings of SD 1.x hold 15 MB in float32; one of FLUX.1 holds 4 MB in bfloat16."""


class PromptCache:
    """The most recently used encodings."""

    def __init__(self, capacity: int = 64, most_bytes: int = _MOST_BYTES) -> None:
        """Drops the oldest encodings beyond either limit, but never the last one that was asked for."""
        self._kept: OrderedDict[Key, EncodedPrompt] = OrderedDict()
        self._capacity = capacity
        self._most_bytes = most_bytes

    def get(self, key: Key, encode: Callable[[], EncodedPrompt]) -> tuple[EncodedPrompt, bool]:
        """The encoding, and whether it was cached."""
        if hit := key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = encode()
            while self._too_much():
                self._kept.popitem(last=False)
        return self._kept[key], hit

    def _too_much(self) -> bool:
        return len(self._kept) > 1 and (len(self._kept) > self._capacity or self.held_bytes() > self._most_bytes)

    def held_bytes(self) -> int:
        """Bytes of all encodings."""
        return sum(encoded.held_bytes for encoded in self._kept.values())

    def clear(self) -> None:
        """Drop all encodings."""
        self._kept.clear()

    def forget(self, model_id: str) -> None:
        """Drop all encodings of a model."""
        for key in [key for key in self._kept if key[0] == model_id]:
            del self._kept[key]
