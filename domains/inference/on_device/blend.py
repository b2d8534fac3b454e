"""Brings encoded prompts to one length, and blends them."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from domains.inference.on_device.families.family import EncodedPrompt

Shares = Sequence[tuple[EncodedPrompt, float]]
"""Prompts with their shares, whose sum is not 0."""


def of_one_length(prompts: Sequence[EncodedPrompt], empty: Callable[[], EncodedPrompt]) -> list[EncodedPrompt]:
    """The prompts with as many tokens as the longest has.

    Windows that are repeated as a whole change nothing in a cross attention: each key is there equally often. A length that
    does not divide the longest is filled up with windows of the empty prompt, which changes little.
    """
    most = max(prompt.states.shape[1] for prompt in prompts)
    return [_lengthened(prompt, most, empty) for prompt in prompts]


def _lengthened(prompt: EncodedPrompt, tokens: int, empty: Callable[[], EncodedPrompt]) -> EncodedPrompt:
    own = prompt.states.shape[1]
    if own == tokens:
        return prompt
    if tokens % own == 0:
        return dataclasses.replace(prompt, states=prompt.states.repeat(1, tokens // own, 1))
    filling = empty().states
    windows = (tokens - own) // filling.shape[1]
    return dataclasses.replace(prompt, states=torch.cat([prompt.states, *[filling] * windows], dim=1))


def blended(shares: Shares) -> EncodedPrompt:
    """The prompts' mean by their shares. All have one length."""
    first = shares[0][0]
    if len(shares) == 1:
        return first
    whole = sum(share for _, share in shares)
    return dataclasses.replace(
        first,
        states=_mean([(one.states, share / whole) for one, share in shares]),
        pooled=None
        if first.pooled is None
        else _mean([(one.pooled, share / whole) for one, share in shares if one.pooled is not None]),
        blank=all(one.blank for one, _ in shares),
    )


def _mean(shares: Sequence[tuple[Tensor, float]]) -> Tensor:
    found = shares[0][0] * shares[0][1]
    for tensor, share in shares[1:]:
        found = found + tensor * share
    return found
