"""LoRA in every key format and algorithm, textual inversion and IP-Adapters: kind, base and evidence."""

import pytest

from domains.errors import ErrorReason
from domains.model.detected_model import problem_of
from domains.model.kind import ModelKind
from domains.model.model import ModelLayout
from tests.domains.model.detect import adapters
from tests.domains.model.detect.adapters import Pair, adapter
from tests.domains.model.detect.test_networks import told

_UNETS = {
    "sd1_unet": ("sd1",),
    "sd2_unet": ("sd2",),
    "sdxl_unet": ("sdxl", "kolors"),
    "sdxl_refiner_unet": ("sdxl_refiner",),
}
_TRANSFORMERS = {
    "flux1_dev_transformer": ("flux1",),
    "chroma_transformer": ("flux1", "chroma"),
    "sd3_transformer": ("sd3",),
    "sd35_large_transformer": ("sd3",),
    "sd35_medium_transformer": ("sd3",),
    "qwen_image_transformer": ("qwen_image",),
    "pixart_sigma_transformer": ("pixart",),
    "sana_transformer": ("sana",),
    "z_image_transformer": ("z_image",),
    "lumina2_transformer": ("lumina2",),
    "flux2_dev_transformer": ("flux2",),
}
_ORIGINALS = {
    "sd1_ldm_unet": ("sd1",),
    "flux1_dev_original": ("flux1",),
    "sd35_large_original": ("sd3",),
    "z_image_original": ("z_image",),
}


@pytest.mark.parametrize(
    ("header", "families", "form"),
    [
        *(
            (header, families, form)
            for header, families in _UNETS.items()
            for form in (adapters.kohya, adapters.of_unet)
        ),
        *(
            (header, families, form)
            for header, families in _TRANSFORMERS.items()
            for form in (adapters.kohya, adapters.diffusers, adapters.comfyui)
        ),
        *(
            (header, families, form)
            for header, families in _ORIGINALS.items()
            for form in (adapters.kohya, adapters.comfyui)
        ),
    ],
)
def test_an_adapter_names_the_families_with_its_layers(header: str, families: tuple[str, ...], form: Pair) -> None:
    found = told(adapter(header, form))
    assert found.kind is ModelKind.LORA
    assert (found.family, found.compatible, found.warnings) == (families[0], families, ())
    assert found.confidence == 1.0
    assert [(one.family, one.decisive) for one in found.evidence] == [("", True), (families[0], True)]


@pytest.mark.parametrize("header", ["auraflow_transformer", "cogview4_transformer"])
def test_an_adapter_for_layers_that_are_not_known_names_no_family(header: str) -> None:
    found = told(adapter(header, adapters.diffusers))
    assert (found.kind, found.family, found.compatible) == (ModelKind.LORA, "", ())


@pytest.mark.parametrize(
    ("form", "algorithm", "format_"),
    [
        (adapters.kohya, "", "kohya"),
        (adapters.locon, "locon", "kohya"),
        (adapters.loha, "loha", "kohya"),
        (adapters.lokr, "lokr", "kohya"),
        (adapters.dora, "dora", "kohya"),
        (adapters.of_unet, "", "diffusers"),
        (adapters.old_diffusers, "", "diffusers"),
        (adapters.comfyui, "", "comfyui"),
    ],
)
def test_algorithm_and_format_are_told_and_the_base_is_the_same(form: Pair, algorithm: str, format_: str) -> None:
    found = told(adapter("sd1_unet", form, keep="attn2"))
    assert (found.kind, found.variant, found.family) == (ModelKind.LORA, algorithm, "sd1")
    assert found.notes[0].startswith(f"{algorithm or 'lora'} in the key format of {format_}")


def test_mixed_ranks_are_all_told() -> None:
    mixed = {
        **adapter("sd1_unet", adapters.kohya, keep=r"down_blocks.*attn2", rank=64),
        **adapter("sd1_unet", adapters.kohya, keep=r"up_blocks.*attn2", rank=16),
    }
    assert "rank 16, 64" in told(mixed).notes[0]


def test_an_adapter_without_cross_attention_names_no_family() -> None:
    found = told(adapter("sd1_unet", adapters.kohya, keep="ff.net"))
    assert (found.kind, found.family) == (ModelKind.LORA, "")
    assert told(adapter("sd1_unet", adapters.kohya, keep="ff.net"), {"ss_base_model_version": "sd_v1"}).family == "sd1"


def test_an_adapter_of_two_bases_names_none_and_warns() -> None:
    both = {
        **adapter("sd1_unet", adapters.kohya, keep="attn2"),
        **adapter("flux1_dev_original", adapters.kohya, keep="img_attn"),
    }
    found = told(both)
    assert (found.family, found.compatible) == ("", ())
    assert "flux1" in found.warnings[0]
    decisive = {one.family: one.decisive for one in found.evidence}
    assert decisive.pop("")
    assert len(decisive) == 2
    assert not any(decisive.values())


def test_text_encoders_of_sdxl_tell_it_from_kolors() -> None:
    texts = {
        f"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.{part}.weight": shape
        for part, shape in (("lora_down", (8, 1280)), ("lora_up", (1280, 8)))
    }
    assert told({**adapter("sdxl_unet", adapters.kohya), **texts}).compatible == ("sdxl",)


@pytest.mark.parametrize(
    ("last", "number", "family"),
    [
        ("single_blocks_37", 37, "flux1"),
        ("single_blocks_37", 38, ""),
        ("single_blocks_37", 39, ""),
        ("double_blocks_18", 18, "flux1"),
        ("double_blocks_18", 19, ""),
    ],
)
def test_blocks_that_flux_does_not_have_speak_against_it(last: str, number: int, family: str) -> None:
    video = {
        name.replace(f"{last}_", f"{last[:-2]}{number}_"): shape
        for name, shape in adapter("flux1_dev_original", adapters.kohya).items()
    }
    assert told(video).family == family


@pytest.mark.parametrize(
    ("more", "families"), [((), ("flux1", "chroma")), (("joint_transformer_blocks_0_attn_to_q",), ())]
)
def test_layers_that_flux_does_not_have_speak_against_it(more: tuple[str, ...], families: tuple[str, ...]) -> None:
    layers = ("single_transformer_blocks_0_proj_mlp", *more)
    pairs = {
        f"lora_unet_{name}.{part}.weight": shape
        for name in layers
        for part, shape in (("lora_down", (8, 3072)), ("lora_up", (3072, 8)))
    }
    assert told(pairs).compatible == families


@pytest.mark.parametrize(
    ("tensors", "families", "token"),
    [
        ({"emb_params": (8, 768)}, ("sd1",), ""),
        ({"emb_params": (1, 1024)}, ("sd2",), ""),
        ({"<cat-toy>": (768,)}, ("sd1",), "<cat-toy>"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, ("sdxl", "sd3"), ""),
        ({"clip_l": (4, 768)}, ("sd1", "flux1"), ""),
        ({"clip_l": (4, 768), "t5": (4, 4096)}, ("flux1",), ""),
    ],
)
def test_learned_words_are_told_with_their_base(
    tensors: dict[str, tuple[int, ...]], families: tuple[str, ...], token: str
) -> None:
    found = told(tensors)
    assert (found.kind, found.family, found.compatible) == (ModelKind.TEXTUAL_INVERSION, families[0], families)
    count = max(shape[0] if len(shape) == 2 else 1 for shape in tensors.values())
    assert (found.notes[0], found.token) == (f"{count} vectors a text encoder", token)


@pytest.mark.parametrize("name", ["t5", "t5xxl"])
def test_words_for_t5_are_refused_by_name(name: str) -> None:
    clips = {"clip_l": (1, 768), **({"clip_g": (1, 1280)} if name == "t5xxl" else {})}
    reason, problem = problem_of(told({**clips, name: (1, 4096)}), ModelLayout.FILE)
    assert reason is ErrorReason.MODEL_INCOMPATIBLE
    assert f"vectors for T5 ({name} " in problem
    assert problem_of(told(clips), ModelLayout.FILE) == (None, "")


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": (8, 500)},
        {"clip_l": (4, 1280), "clip_g": (4, 1280)},
        {"weight": (1000, 768)},
        {"emb_params": (0, 768)},
        {"emb_params": ()},
    ],
)
def test_what_no_encoder_reads_is_no_learned_word(tensors: dict[str, tuple[int, ...]]) -> None:
    assert told(tensors).kind is ModelKind.UNKNOWN


_PICTURES = {
    "": {"image_proj.proj.weight": (3072, 1024), "image_proj.norm.weight": (768,)},
    "plus": {"image_proj.latents": (1, 16, 768), "image_proj.proj_in.weight": (768, 1280)},
}


@pytest.mark.parametrize("variant", _PICTURES)
@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (2048, "sdxl")])
def test_an_ip_adapter_is_told_with_its_base(variant: str, width: int, family: str) -> None:
    found = told({**_PICTURES[variant], "ip_adapter.1.to_k_ip.weight": (320, width)})
    assert (found.kind, found.variant, found.family) == (ModelKind.IMAGE_PROMPT_ADAPTER, variant, family)


_XLABS = "double_blocks.{}.processor.ip_adapter_double_stream_{}_proj.{}"
_OF_TRANSFORMERS: dict[str, tuple[tuple[str, ...], dict[str, tuple[int, ...]]]] = {
    "XLabs-AI/flux-ip-adapter": (
        ("flux1", "chroma"),
        {
            "ip_adapter_proj_model.proj.weight": (16384, 768),
            "ip_adapter_proj_model.proj.bias": (16384,),
            "ip_adapter_proj_model.norm.weight": (4096,),
            **{_XLABS.format(block, name, "weight"): (3072, 4096) for block in range(19) for name in "kv"},
            **{_XLABS.format(block, name, "bias"): (3072,) for block in range(19) for name in "kv"},
        },
    ),
    "the same with the names of diffusers": (
        ("flux1", "chroma"),
        {
            "image_proj.proj.weight": (16384, 768),
            "image_proj.norm.weight": (4096,),
            **{f"ip_adapter.{block}.to_k_ip.weight": (3072, 4096) for block in range(19)},
            **{f"ip_adapter.{block}.to_k_ip.bias": (3072,) for block in range(19)},
        },
    ),
    "InstantX/SD3.5-Large-IP-Adapter": (
        ("sd3",),
        {
            "image_proj.latents": (1, 64, 1280),
            "image_proj.proj_in.weight": (1280, 1152),
            "image_proj.time_embedding.linear_1.weight": (1280, 320),
            **{f"ip_adapter.{block}.to_k_ip.weight": (2432, 2432) for block in range(38)},
            "ip_adapter.0.norm_ip.linear.weight": (4864, 1280),
            "ip_adapter.0.norm_ip_k.weight": (64,),
        },
    ),
}


@pytest.mark.parametrize("published", _OF_TRANSFORMERS)
def test_an_ip_adapter_of_a_transformer_is_told_with_its_base_and_evidence(published: str) -> None:
    families, tensors = _OF_TRANSFORMERS[published]
    found = told(tensors)
    assert (found.kind, found.compatible) == (ModelKind.IMAGE_PROMPT_ADAPTER, families)
    assert (found.confidence, problem_of(found, ModelLayout.FILE)) == (1.0, (None, ""))
