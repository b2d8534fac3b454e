"""A prompt as a CLIP text encoder reads it: window by window, with weights, from the layer that is asked for."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.on_device.adapters import words_of
from domains.inference.on_device.families.family import EncodedPrompt
from domains.inference.on_device.to_device import to_device
from domains.inference.prompts import Prompt, Syntax, Token, Windows, laid_out

MARKS = 2
"""Each window has a start and an end."""


class ClipStates(NamedTuple):
    """What one encoder makes of a prompt."""

    states: Tensor
    """(1, windows · tokens, width)."""
    pooled: Tensor | None
    """(1, width), of the first window; None: the encoder has no projection."""


class ClipText:
    """One encoder with its tokenizer."""

    def __init__(self, text: Any, tokenizer: Any, device: torch.device, *, layers_left: int = 0) -> None:
        """`layers_left`: how many last layers the family leaves out by itself; the last one's states are normed."""
        self._text, self._tokenizer, self._device = text, tokenizer, device
        self._left = layers_left
        self._tokens: int = tokenizer.model_max_length
        self._comma = only(self._ids(","))

    def windows(self, prompt: Prompt, encoder: int = 0) -> Windows:
        """The prompt's tokens. `encoder`: its place among the family's. Raises INVALID_FIELD for too many windows."""
        return windows_of(prompt, encoder, self._tokens, self._ids, self._comma)

    def states(self, prompt: Prompt, windows: Sequence[Sequence[Token]]) -> ClipStates:
        """Run the encoder on windows, all at once. Raises UNSUPPORTED_COMBINATION if it has too few layers."""
        weighted = any(token.weight != 1.0 for token in chain.from_iterable(windows))
        plain = weighted and prompt.syntax is Syntax.COMFYUI
        rows = [*windows, *([()] if plain else [])]
        found = self._text(self._ids_of(rows), output_hidden_states=True)
        states = self._layer(found, prompt.clip_skip)
        if weighted:
            weights = to_device(
                torch.tensor([self._weights(row) for row in windows], dtype=states.dtype), states.device
            )
            states = _toward(states, weights) if plain else _scaled(states, weights)
        pooled = getattr(found, "text_embeds", None)
        return ClipStates(states.flatten(0, 1).unsqueeze(0), None if pooled is None else pooled[:1])

    def _ids_of(self, rows: Sequence[Sequence[Token]]) -> Tensor:
        return to_device(torch.tensor([self._row(row) for row in rows]), self._device)

    def _layer(self, found: Any, skipped: int) -> Tensor:
        out = self._left + skipped
        if out >= len(found.hidden_states) - 1:
            most = len(found.hidden_states) - 2 - self._left
            message = f"{skipped} is more layers than the text encoder has to spare; at most {most}"
            violation = Violation(field="generation.clip_skip", message=message, allowed=f"0..{most}")
            raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
        if out == 0:
            return found.last_hidden_state
        states = found.hidden_states[-1 - out]
        if self._left:
            return states
        # transformers 5 builds CLIPTextModel without the outer level that 4 has.
        return getattr(self._text, "text_model", self._text).final_layer_norm(states)

    def _ids(self, text: str) -> list[int]:
        """The ids of a text without start and end; learned words have negative ones."""
        learned = words_of(self._text.get_input_embeddings())
        pieces = [text] if learned is None else learned.pieces(text)
        return [one for piece in pieces for one in (self._plain(piece) if isinstance(piece, str) else piece)]

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids

    def _row(self, window: Sequence[Token]) -> list[int]:
        """The ids of a window, filled up."""
        tokenizer = self._tokenizer
        ids = [tokenizer.bos_token_id, *(token.id for token in window), tokenizer.eos_token_id]
        return ids + [tokenizer.pad_token_id] * (self._tokens - len(ids))

    def _weights(self, window: Sequence[Token]) -> list[float]:
        weights = [1.0, *(token.weight for token in window)]
        return weights + [1.0] * (self._tokens - len(weights))


def windows_of(
    prompt: Prompt, encoder: int, tokens: int, tokenize: Callable[[str], Sequence[int]], comma: int | None
) -> Windows:
    """The prompt's tokens by window. `tokens`: of a window, its marks included. `comma`: see `laid_out`. Raises
    INVALID_FIELD for too many windows."""
    found = laid_out(prompt.reading(encoder), prompt.long, tokens - MARKS, tokenize, comma)
    if len(found.windows) > limits.PROMPT_WINDOWS:
        message = f"a prompt has {len(found.windows)} windows of tokens; at most {limits.PROMPT_WINDOWS} are read"
        raise InvalidRequest([Violation(field="generation.prompt", message=f"{message}: shorten it")])
    return found


def encoded(prompt: Prompt, windows: Windows, states: Tensor, pooled: Tensor | None = None) -> EncodedPrompt:
    """The prompt as the denoiser reads it."""
    return EncodedPrompt(
        states=states,
        pooled=pooled,
        blank=prompt.blank,
        tokens=windows.count + MARKS,
        tokens_read=windows.read + MARKS,
    )


def _scaled(states: Tensor, weights: Tensor) -> Tensor:
    """A1111: each token's states times its weight; each window keeps its mean."""
    weighted = states * weights[..., None]
    return weighted * (states.mean((1, 2), keepdim=True) / weighted.mean((1, 2), keepdim=True))


def _toward(states: Tensor, weights: Tensor) -> Tensor:
    """ComfyUI: from the empty prompt's states, which are the last row, through the token's own by its weight."""
    states, empty = states[:-1], states[-1:]
    return torch.lerp(empty.expand_as(states), states, weights[..., None])


def only(ids: Sequence[int]) -> int | None:
    """The id, if there is one alone."""
    return ids[0] if len(ids) == 1 else None
