"""A preview of a prompt reads what the text encoder then reads, from the tokenizer's files alone."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.on_device import PromptReader
from domains.inference.on_device.families.table import family_of
from domains.inference.prompts import FieldPrompt, LongPrompt, Prompt, PromptReading, Syntax
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.on_device import load
from tests.domains.inference.on_device.lora_files import lora_model
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.inference.on_device.tiny_families import write_tiny_family

LONG = ", ".join(["an (owl:1.2) that sits on the branch"] * 12)
A1111 = Syntax.A1111


def readings(model: Model, *texts: str, learned: Any = (), **how: Any) -> tuple[PromptReading, ...]:
    prompt = FieldPrompt(fields=("prompt", "second_prompt", "third_prompt"), prompt=Prompt(texts=texts, **how))
    return PromptReader().read(model, [prompt], learned)


@pytest.mark.parametrize("long", [LongPrompt.TRUNCATE, LongPrompt.CHUNK])
def test_the_preview_has_the_windows_that_the_encoder_reads(long: LongPrompt) -> None:
    loaded = load(embedded_model(), "cpu")
    text: Any = family_of(loaded)._text  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    prompt = Prompt(texts=(LONG,), syntax=A1111, long=long)
    windows = text.windows(prompt)
    (shown,) = readings(embedded_model(), LONG, syntax=A1111, long=long)
    assert (shown.token_count, shown.truncated_token_count) == (windows.count, windows.count - windows.read)
    tokenizer: Any = loaded.tokenizers["text_encoder"]
    read = [one for one in shown.segments if not one.truncated]
    assert [
        [(token, one.weight) for one in some for token in one.tokens]
        for _, some in groupby(read, lambda one: one.window)
    ] == [[(tokenizer.convert_ids_to_tokens(one.id), one.weight) for one in window] for window in windows.windows]
    assert "".join("".join(one.text.split()) for one in shown.segments) == "".join(
        "".join(segment.text.split()) for segment in prompt.reading().parts[0]
    )


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux1", "auraflow", "z_image"])
def test_each_encoder_of_a_family_reads_as_much_as_the_engine_says(name: str, tmp_path: Path) -> None:
    model = write_tiny_family(name, tmp_path / name)
    text = "owl " * 700
    shown = readings(model, text)
    assert [one.encoder for one in shown] == [f"text_encoder{end}" for end in ("", "_2", "_3")[: len(shown)]]
    assert [one.field for one in shown] == ["prompt", "second_prompt", "third_prompt"][: len(shown)]
    assert len(shown) == FAMILIES[name].text_encoders
    family = family_of(load(model, "cpu"))
    cut = family.encode(Prompt(texts=(text,)))
    assert cut.tokens - cut.tokens_read in {one.truncated_token_count for one in shown}
    assert all(one.token_count - one.truncated_token_count <= one.window_tokens for one in shown)


def test_a_learned_word_is_told_by_its_name(tmp_path: Path) -> None:
    import torch

    width: int = load(embedded_model(), "cpu").modules["text_encoder"].config.hidden_size  # pyright: ignore
    entry = lora_model(tmp_path / "word.safetensors", {"emb_params": torch.zeros(2, width)})
    word = ResolvedTextualInversion(model_id=entry.id, model_sha256=entry.files[0].sha256, token="my-owl", weight=1.0)
    (shown,) = readings(embedded_model(), "a (My-Owl:1.5) sits", syntax=A1111, learned=[(word, entry)])
    assert [one.tokens for one in shown.segments][1] == ("my-owl[0]", "my-owl[1]")
    assert [one.text for one in shown.segments] == ["a ", "My-Owl", " sits"]
    taken = ResolvedTextualInversion(model_id=entry.id, model_sha256=entry.files[0].sha256, token="an", weight=1.0)
    with pytest.raises(InvalidRequest) as refused:
        readings(embedded_model(), "an owl", learned=[(taken, entry)])
    assert refused.value.reason is ErrorReason.INVALID_FIELD
    assert [one.field for one in refused.value.violations] == ["generation.textual_inversions[0].token"]
