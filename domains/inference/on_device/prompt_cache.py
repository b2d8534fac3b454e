"""Keeps encoded prompts for later jobs with the same prompt."""

from collections import OrderedDict
from collections.abc import Callable

from domains.inference.on_device.family import EncodedPrompt

Key = tuple[str, str]
"""(model id, prompt)."""


class PromptCache:
    """The most recently used encodings. 64 of SD 1.x hold 15 MB in float32."""

    def __init__(self, capacity: int = 64) -> None:
        self._kept: OrderedDict[Key, EncodedPrompt] = OrderedDict()
        self._capacity = capacity

    def get(self, key: Key, encode: Callable[[], EncodedPrompt]) -> tuple[EncodedPrompt, bool]:
        """The encoding, and whether it was cached."""
        if hit := key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = encode()
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return self._kept[key], hit

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
