"""Prompts with weights, windows and layers left out, against the arithmetic that the other tools publish."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest
from domains.inference import limits
from domains.inference.generation import WeightedPrompt
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.family import EncodedPrompt, Family
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.rows import RowConditions
from domains.inference.prompts import LongPrompt, Prompt, Syntax, plain
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_families import their_pipeline, write_tiny_family
from tests.domains.inference.on_device.tiny_model import write_tiny_model

EXACT: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
ALONE: dict[str, Any] = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
WORDS = "an owl on a branch"
LONG = ", ".join(["an owl that sits on the branch of a tree"] * 7)
"""More than one window of 75 tokens, and fewer than three."""


class Tiny:
    """A tiny model in our engine and in diffusers' pipeline."""

    def __init__(self, folder: Path, name: str) -> None:
        model = write_tiny_model(folder / name) if name == "sd1" else write_tiny_family(name, folder / name)
        self.loaded: OnDeviceModel = load(model, "cpu")
        self.family: Family = family_of(self.loaded)
        self.theirs: Any = reference_pipeline(model) if name == "sd1" else their_pipeline(folder / name)

    def encode(self, text: str, *others: str, **how: Any) -> EncodedPrompt:
        with torch.inference_mode():
            return self.family.encode(Prompt(texts=(text, *others), **how))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("prompts"), "sd1")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("prompts"), "sdxl")


@torch.inference_mode()
def windows_of(tiny: Tiny, windows: Sequence[Sequence[int]]) -> Tensor:
    """Their text encoder's states of windows given by the ids of their words; (windows, tokens, width)."""
    words, encoder = tiny.theirs.tokenizer, tiny.theirs.text_encoder
    rows = [[words.bos_token_id, *ids, words.eos_token_id] for ids in windows]
    room = words.model_max_length
    filled = [row + [words.pad_token_id] * (room - len(row)) for row in rows]
    return encoder(torch.tensor(filled)).last_hidden_state


def ids_of(tiny: Tiny, text: str) -> list[int]:
    return tiny.theirs.tokenizer(text, add_special_tokens=False, truncation=False).input_ids


def test_a1111_scales_states_and_keeps_their_mean(sd1: Tiny) -> None:
    ids = [ids_of(sd1, "an"), ids_of(sd1, "owl"), ids_of(sd1, "on a branch")]
    states = windows_of(sd1, [[*ids[0], *ids[1], *ids[2]]])
    weights = torch.ones(states.shape[1])
    weights[1 + len(ids[0]) : 1 + len(ids[0]) + len(ids[1])] = 1.5
    weighted = states * weights[None, :, None]
    wanted = weighted * (states.mean() / weighted.mean())
    torch.testing.assert_close(sd1.encode("an (owl:1.5) on a branch", syntax=Syntax.A1111).states, wanted, **EXACT)


def test_comfyui_moves_away_from_the_empty_prompt(sd1: Tiny) -> None:
    ids = [ids_of(sd1, "an"), ids_of(sd1, "owl"), ids_of(sd1, "on a branch")]
    states, empty = windows_of(sd1, [[*ids[0], *ids[1], *ids[2]]]), windows_of(sd1, [[]])
    wanted = states.clone()
    for at in range(1 + len(ids[0]), 1 + len(ids[0]) + len(ids[1])):
        wanted[0, at] = (states[0, at] - empty[0, at]) * 0.4 + empty[0, at]
    torch.testing.assert_close(sd1.encode("an (owl:0.4) on a branch", syntax=Syntax.COMFYUI).states, wanted, **EXACT)


@pytest.mark.parametrize("syntax", Syntax)
def test_weights_of_one_change_nothing(sd1: Tiny, syntax: Syntax) -> None:
    said = WORDS if syntax is Syntax.PLAIN else f"({WORDS}:1)"
    assert torch.equal(sd1.encode(said, syntax=syntax).states, sd1.encode(WORDS).states)


def test_a_long_prompt_is_its_windows_side_by_side(sd1: Tiny) -> None:
    ids = ids_of(sd1, LONG)
    comma = ids_of(sd1, ",")[0]
    room = sd1.theirs.tokenizer.model_max_length - 2
    end = max(at for at in range(room) if ids[at] == comma) + 1
    assert room < len(ids) <= end + room
    found = sd1.encode(LONG, long=LongPrompt.CHUNK)
    torch.testing.assert_close(found.states, windows_of(sd1, [ids[:end], ids[end:]]).flatten(0, 1)[None], **EXACT)
    assert found.tokens == found.tokens_read
    cut = sd1.encode(LONG)
    assert (cut.tokens, cut.tokens_read) == (len(ids) + 2, room + 2)
    torch.testing.assert_close(cut.states, windows_of(sd1, [ids[:room]]), **EXACT)


def test_a_last_layer_is_left_out_before_the_norm(sd1: Tiny) -> None:
    """As diffusers does with transformers 4; with 5, it does not find the norm."""
    with torch.inference_mode():
        found = sd1.loaded.modules["text_encoder"](torch.tensor([row_of(sd1, WORDS)]), output_hidden_states=True)
        norm: Any = sd1.loaded.modules["text_encoder"].final_layer_norm
        wanted = norm(found.hidden_states[-2])
    torch.testing.assert_close(sd1.encode(WORDS, clip_skip=1).states, wanted, **EXACT)
    assert not torch.equal(sd1.encode(WORDS).states, wanted)


def row_of(tiny: Tiny, text: str) -> list[int]:
    return tiny.theirs.tokenizer(text, padding="max_length").input_ids


def test_no_layer_is_left_out_as_in_diffusers(sdxl: Tiny) -> None:
    with torch.inference_mode():
        theirs = sdxl.theirs.encode_prompt(WORDS, **ALONE, clip_skip=0)[0]
    torch.testing.assert_close(sdxl.encode(WORDS).states, theirs, **EXACT)


def test_more_layers_than_there_are_is_refused_by_name(sdxl: Tiny) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sdxl.encode(WORDS, clip_skip=11)
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in refused.value.violations] == ["generation.clip_skip"]


def test_the_second_encoder_reads_its_own_text(sdxl: Tiny) -> None:
    with torch.inference_mode():
        theirs = sdxl.theirs.encode_prompt(WORDS, prompt_2="fog", **ALONE)
    ours = sdxl.encode(WORDS, "fog")
    torch.testing.assert_close(ours.states, theirs[0], **EXACT)
    torch.testing.assert_close(ours.pooled, theirs[2], **EXACT)
    alone = sdxl.encode(WORDS, LONG, long=LongPrompt.CHUNK)
    assert alone.states.shape[1] == 2 * ours.states.shape[1]


def test_windows_that_are_repeated_change_nothing(sd1: Tiny) -> None:
    """So a prompt of two windows beside a negative prompt of one costs no difference."""
    short = request(sd1.loaded.model, None, prompt=WORDS, negative_prompt="fog", steps=2, guidance_scale=5.0)
    one = final_latents(sd1.loaded, short)
    changes: dict[str, Any] = {"prompt": f"{WORDS} BREAK {WORDS}", "prompt_syntax": Syntax.A1111}
    two = final_latents(sd1.loaded, request(sd1.loaded.model, short, **changes))
    torch.testing.assert_close(one, two, atol=1e-5 * float(one.abs().max()), rtol=0)


def conditions_of(tiny: Tiny, **changes: Any) -> RowConditions:
    asked = request(tiny.loaded.model, None, **({"prompt": WORDS, "guidance_scale": 0.0} | changes))
    with torch.inference_mode():
        found = condition(tiny.loaded, tiny.family, asked, PromptCache()).conditions
    assert isinstance(found, RowConditions)
    return found


def test_prompts_blend_by_their_shares(sdxl: Tiny) -> None:
    blends = (WeightedPrompt(prompt="fog", weight=2.0), WeightedPrompt(prompt=LONG, weight=-0.5))
    found = conditions_of(sdxl, blended_prompts=blends, long_prompt=LongPrompt.CHUNK)
    parts = [sdxl.encode(one, long=LongPrompt.CHUNK) for one in (WORDS, "fog", LONG)]
    states = [part.states.repeat(1, parts[-1].states.shape[1] // part.states.shape[1], 1) for part in parts]
    shares = [1 / 2.5, 2 / 2.5, -0.5 / 2.5]
    wanted = sum(share * one for share, one in zip(shares, states, strict=True))
    unet: Any = sdxl.loaded.modules["unet"]
    first = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2 if len(unet.down_blocks) > 1 else None
    assert first is not None
    keys = first.to_k(wanted).detach()
    heads = keys.unflatten(-1, (first.heads, -1)).transpose(1, 2)
    assert any(one.shape == heads.shape and torch.allclose(one, heads, atol=1e-5) for one in found.inputs)


def test_a_prompt_that_is_too_long_is_refused_where_that_was_asked(sd1: Tiny) -> None:
    with pytest.raises(InvalidRequest) as refused:
        conditions_of(sd1, prompt=LONG, long_prompt=LongPrompt.REFUSE)
    assert [one.field for one in refused.value.violations] == ["generation.prompt"]
    conditions_of(sd1, long_prompt=LongPrompt.REFUSE)


def test_more_windows_than_are_read_are_refused(sd1: Tiny) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sd1.encode("BREAK " * limits.PROMPT_WINDOWS, syntax=Syntax.A1111)
    assert [one.field for one in refused.value.violations] == ["generation.prompt"]


def test_the_same_words_read_otherwise_are_another_encoding(sd1: Tiny) -> None:
    cache = PromptCache()
    for how in (plain(WORDS), Prompt(texts=(WORDS,), clip_skip=1), Prompt(texts=(WORDS,), long=LongPrompt.CHUNK)):
        _, hit = cache.get((sd1.loaded.model.id, "", how), lambda how=how: sd1.family.encode(how))
        assert not hit
