"""Learned words in our engine against diffusers' `load_textual_inversion` with the same file, on random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.adapters import AdapterPool, Adapters, Asked
from domains.inference.on_device.conditioning import Conditioned, condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import walk_together
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.families import FAMILIES
from domains.model.model import Model
from tests.domains.inference.on_device.lora_files import lora_model
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.tiny_families import write_tiny_family

Tensors = dict[str, Tensor]
NAMES = {"sd1": ("",), "sd2": ("",), "sdxl": ("clip_l", "clip_g"), "sd3": ("clip_l", "clip_g"), "flux1": ("clip_l",)}
"""Tensors of an A1111 file by model; an empty name is `emb_params`."""


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    if name == "sd1":
        return Loaded(embedded_model(), pipeline=reference_pipeline)
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(write_tiny_family("sd2", tmp_path_factory.mktemp("families") / "sd2"))


def vectors(family: Loaded, count: int, seed: int = 1) -> Tensors:
    """Random vectors for each text encoder, in A1111's format."""
    torch.manual_seed(seed)
    encoders = [name for name in family.ours.modules if name.startswith("text_encoder")]
    texts: list[Any] = [family.ours.modules[name] for name in encoders]
    widths: list[int] = [text.config.hidden_size for text in texts]
    names = NAMES[family.model.family]
    # The last encoder of SD3 and FLUX.1 is T5, which learns no words.
    return {name or "emb_params": torch.randn(count, width) * 0.1 for name, width in zip(names, widths, strict=False)}


def resolved(model: Model, token: str, weight: float = 1.0) -> ResolvedTextualInversion:
    return ResolvedTextualInversion(model_id=model.id, model_sha256=model.files[0].sha256, token=token, weight=weight)


def ours(family: Loaded, *words: tuple[Model, ResolvedTextualInversion], pool: AdapterPool | None = None) -> Adapters:
    return (pool or AdapterPool()).adapters(Asked(words=[(word, entry) for entry, word in words]), family.ours)


def theirs(family: Loaded, wanted: ResolvedGeneration, *words: tuple[Tensors, str]) -> Tensor:
    """The latents of diffusers' pipeline that has learned these words."""
    pipe: Any = family.fresh()
    if not isinstance(pipe, TextualInversionLoaderMixin):
        # SD3's pipeline has no way to learn words of its own.
        pipe.__class__ = type("Learning", (type(pipe), TextualInversionLoaderMixin), {})
    for tensors, token in words:
        for number, tensor in enumerate(tensors.values(), start=1):
            end = "" if number == 1 else f"_{number}"
            to = {
                "tokenizer": getattr(pipe, f"tokenizer{end}"),
                "text_encoder": getattr(pipe, f"text_encoder{end}"),
            }
            cast(Any, pipe).load_textual_inversion(tensor, token=token, **to)
    return their_latents(family, wanted, pipe)


PROMPTS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "one_vector": (1, {"prompt": "a photo of <owl> at night"}),
    "three_vectors_twice": (3, {"prompt": "<owl>, a house, <owl>"}),
    "in_the_negative_prompt": (2, {"negative_prompt": "<owl>, fog"}),
    "beside_other_letters": (2, {"prompt": "(<owl>:1.2)and a car"}),
    "in_capitals": (1, {"prompt": "A Photo Of <OWL>"}),
    "cut_within_the_vectors": (6, {"prompt": "<owl> " * 20}),
}


@pytest.fixture(scope="module", params=["sd3", "flux1"])
def with_t5(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.mark.parametrize("case", list(PROMPTS))
def test_the_clips_of_sd3_and_flux1_read_words_and_t5_reads_the_text(
    with_t5: Loaded, case: str, tmp_path: Path
) -> None:
    count, changes = PROMPTS[case]
    # SD3's pipeline does not write a word with several vectors as several words.
    count = 1 if with_t5.model.family == "sd3" else count
    tensors, wanted = vectors(with_t5, count), asked(with_t5, steps=1, **{"negative_prompt": "", **changes})
    word = lora_model(tmp_path / "it.safetensors", tensors)
    found = final_latents(with_t5.ours, wanted, ours(with_t5, (word, resolved(word, "<owl>"))))
    assert gap(found, theirs(with_t5, wanted, (tensors, "<owl>"))) < TOLERANCE
    if FAMILIES[wanted.family].reads_negative(wanted.guidance_scale) or case != "in_the_negative_prompt":
        assert gap(found, final_latents(with_t5.ours, wanted)) > 10 * TOLERANCE


@pytest.mark.parametrize("case", list(PROMPTS))
def test_the_latents_are_those_of_diffusers_with_the_same_vectors(family: Loaded, case: str, tmp_path: Path) -> None:
    count, changes = PROMPTS[case]
    tensors, wanted = vectors(family, count), asked(family, steps=1, **changes)
    word = lora_model(tmp_path / "it.safetensors", tensors)
    plain = final_latents(family.ours, wanted)
    found = final_latents(family.ours, wanted, ours(family, (word, resolved(word, "<owl>"))))
    assert gap(found, theirs(family, wanted, (tensors, "<owl>"))) < TOLERANCE
    assert gap(found, plain) > 10 * TOLERANCE
    assert torch.equal(final_latents(family.ours, wanted), plain)


def test_a_file_of_diffusers_counts_as_one_of_a1111(sd2: Loaded, tmp_path: Path) -> None:
    (tensor,) = vectors(sd2, 1).values()
    files = {"a1111": {"emb_params": tensor}, "diffusers": {"<owl>": tensor[0]}}
    words = [lora_model(tmp_path / f"{name}.safetensors", tensors) for name, tensors in files.items()]
    wanted = asked(sd2, prompt="an <owl> in fog")
    assert torch.equal(*(final_latents(sd2.ours, wanted, ours(sd2, (one, resolved(one, "<owl>")))) for one in words))


def test_the_weight_multiplies_the_vectors_and_words_do_not_disturb_each_other(sd2: Loaded, tmp_path: Path) -> None:
    first, second = vectors(sd2, 2), vectors(sd2, 3, seed=2)
    words = [lora_model(tmp_path / f"{name}.safetensors", one) for name, one in {"a": first, "b": second}.items()]
    wanted = asked(sd2, prompt="an owl-2 beside an owl-two by the sea")
    adapters = ours(sd2, (words[0], resolved(words[0], "owl-2", 0.4)), (words[1], resolved(words[1], "owl-two")))
    weak = {name: one * 0.4 for name, one in first.items()}
    found = final_latents(sd2.ours, wanted, adapters)
    assert gap(found, theirs(sd2, wanted, (weak, "owl-2"), (second, "owl-two"))) < TOLERANCE


def test_letters_within_a_longer_word_are_not_the_learned_word(sd2: Loaded, tmp_path: Path) -> None:
    word = lora_model(tmp_path / "it.safetensors", vectors(sd2, 2))
    wanted = asked(sd2, prompt="two owlets, a barnowl and qowlq")
    found = final_latents(sd2.ours, wanted, ours(sd2, (word, resolved(word, "qowl"))))
    assert torch.equal(found, final_latents(sd2.ours, wanted))


def test_encoder_and_tokenizer_are_as_before(sd2: Loaded, tmp_path: Path) -> None:
    encoder, tokenizer = sd2.ours.modules["text_encoder"], sd2.ours.tokenizers["text_encoder"]
    before = {name: one.clone() for name, one in encoder.state_dict().items()}
    ids, size = tokenizer("an <owl>").input_ids, len(tokenizer)
    word = lora_model(tmp_path / "it.safetensors", vectors(sd2, 2))
    final_latents(sd2.ours, asked(sd2, prompt="an <owl>"), ours(sd2, (word, resolved(word, "<owl>"))))
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert (tokenizer("an <owl>").input_ids, len(tokenizer)) == (ids, size)


def test_a_prompt_is_encoded_again_for_another_word(sd2: Loaded, tmp_path: Path) -> None:
    word = lora_model(tmp_path / "it.safetensors", vectors(sd2, 30))
    prompts, view = PromptCache(), family_of(sd2.ours)

    def conditioned(*words: ResolvedTextualInversion) -> Conditioned:
        with torch.inference_mode():
            adapters = ours(sd2, *((word, one) for one in words))
            return condition(sd2.ours, view, asked(sd2, prompt="<owl>" * 3), prompts, adapters)

    assert conditioned().cache_hits == 0
    read = conditioned(resolved(word, "<owl>"))
    assert read.cache_hits == 0
    (cut,) = read.degradations
    assert "has 92 tokens; the model reads 77" in cut.detail
    assert conditioned(resolved(word, "<owl>", 0.5)).cache_hits == 0
    assert conditioned(resolved(word, "<fox>")).cache_hits == 0
    assert conditioned(resolved(word, "<owl>")).cache_hits == 2


def test_jobs_with_and_without_words_share_forwards(sd2: Loaded, tmp_path: Path) -> None:
    word, wanted = lora_model(tmp_path / "it.safetensors", vectors(sd2, 2)), asked(sd2, prompt="an <owl> by the sea")
    mixed = [ours(sd2, (word, resolved(word, "<owl>"))), ours(sd2)]
    alone = [final_latents(sd2.ours, wanted, adapters) for adapters in mixed]
    with torch.inference_mode():
        group = [begun(sd2, wanted, adapters) for adapters in mixed]
        assert group[0].alike == group[1].alike
        while not group[0].done:
            walk_together(group)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


MISFITS: Mapping[str, tuple[Tensors, tuple[str, ...]]] = {
    "other_width": ({"emb_params": torch.ones(2, 768)}, ("text_encoder", "768", "32")),
    "two_encoders": ({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 32)}, ("clip_g, clip_l",)),
}


@pytest.mark.parametrize("misfit", list(MISFITS))
def test_what_does_not_fit_is_refused_by_name(sd2: Loaded, misfit: str, tmp_path: Path) -> None:
    tensors, names = MISFITS[misfit]
    word = lora_model(tmp_path / "misfit.safetensors", tensors)
    with pytest.raises(FailedPrecondition) as refused:
        ours(sd2, (word, resolved(word, "<owl>")))
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert all(name in refused.value.message for name in (word.id, sd2.model.id, *names))


@pytest.mark.parametrize("token", ["style", "STYLE", "a", "<|endoftext|>"])
def test_a_word_of_the_vocabulary_cannot_be_another_one(sd2: Loaded, token: str, tmp_path: Path) -> None:
    word = lora_model(tmp_path / "it.safetensors", vectors(sd2, 1))
    with pytest.raises(InvalidRequest) as refused:
        ours(sd2, (word, resolved(word, "<owl>")), (word, resolved(word, token)))
    (violation,) = refused.value.violations
    assert violation.field == "generation.textual_inversions[1].token"
    assert token in violation.message
