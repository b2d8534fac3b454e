"""The cache keeps what was used last, and counts honestly."""

import torch

from domains.inference.on_device.families.family import EncodedPrompt
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.prompts import plain


def encoded() -> EncodedPrompt:
    return EncodedPrompt(states=torch.zeros(1), tokens=2, tokens_read=2)


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache(2)
    assert [cache.get(("m", "", plain(text)), encoded)[1] for text in ("a", "b", "a", "c", "a", "b")] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_a_prompt_is_not_taken_from_another_model() -> None:
    cache = PromptCache()
    first, _ = cache.get(("m", "", plain("owl")), encoded)
    other, hit = cache.get(("n", "", plain("owl")), encoded)
    assert not hit
    assert other is not first


def test_forgetting_a_model_keeps_the_others() -> None:
    cache = PromptCache()
    for model in ("m", "n"):
        cache.get((model, "", plain("owl")), encoded)
    cache.forget("m")
    assert [cache.get((model, "", plain("owl")), encoded)[1] for model in ("m", "n")] == [False, True]


def test_large_encodings_leave_no_room_for_old_ones() -> None:
    cache = PromptCache(most_bytes=10)
    assert [cache.get(("m", "", plain(text)), encoded)[1] for text in ("a", "b", "c", "a", "b")] == [False] * 5
    assert cache.held_bytes() == 8
    small = PromptCache(most_bytes=1)
    assert [small.get(("m", "", plain(text)), encoded)[1] for text in ("a", "a", "b")] == [False, True, False]
    assert small.held_bytes() == 4
