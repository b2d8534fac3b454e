"""What tensors of published models prove, family by family: their headers were built from the published configs."""

import pytest

from domains.model.detect.evidence import Source
from domains.model.families import FAMILIES
from domains.model.families.proof import proofs
from domains.model.families.sign import Tensors, match
from domains.model.folder_evidence import evidence_of
from domains.model.folder_family import Folder, tell
from tests.domains.model import facts, published

_PREFIX = "model.diffusion_model."

RIGHT = {
    **{f"sd1_{what}": ("sd1", "") for what in ("unet", "single", "single_ema", "ldm_unet")},
    **{f"sd1_inpainting_{what}": ("sd1", "inpainting") for what in ("unet", "single")},
    **{f"sd1_pix2pix_{what}": ("sd1", "editing") for what in ("unet", "single")},
    **{f"sd2_{what}": ("sd2", "") for what in ("unet", "single")},
    **{f"sd2_depth_{what}": ("sd2", "depth") for what in ("unet", "single")},
    **{f"sdxl_{what}": ("sdxl", "") for what in ("unet", "single")},
    **{f"sdxl_inpainting_{what}": ("sdxl", "inpainting") for what in ("unet", "single")},
    **{f"sdxl_refiner_{what}": ("sdxl_refiner", "") for what in ("unet", "single")},
    "sd2_inpainting_unet": ("sd2", "inpainting"),
    "sdxl_pix2pix_unet": ("sdxl", "editing"),
    "kolors_unet": ("kolors", ""),
    **{f"sd3_{what}": ("sd3", "") for what in ("transformer", "single")},
    **{f"sd35_{size}_{what}": ("sd3", "") for size in ("large", "medium") for what in ("transformer", "original")},
    **{f"flux1_dev_{what}": ("flux1", "") for what in ("transformer", "original")},
    **{f"flux1_schnell_{what}": ("flux1", "schnell") for what in ("transformer", "original")},
    **{f"flux1_fill_{what}": ("flux1", "inpainting") for what in ("transformer", "original")},
    **{f"flux1_depth_{what}": ("flux1", "control") for what in ("transformer", "original")},
    "flux2_dev_transformer": ("flux2", ""),
    "flux2_klein_transformer": ("flux2", "klein"),
    **{f"z_image_{what}": ("z_image", "") for what in ("transformer", "original")},
    **{f"pixart_{what}_transformer": ("pixart", "") for what in ("alpha", "sigma")},
    **{
        f"{name}_transformer": (name, "")
        for name in ("chroma", "qwen_image", "lumina2", "sana", "auraflow", "cogview4")
    },
}
"""By header: family and variant. Every other header is no denoiser of a family."""


def _inner(header: str) -> Tensors:
    """The tensors of the denoiser, where a file has other components beside it."""
    tensors = published.header(header)
    return {key.removeprefix(_PREFIX): shape for key, shape in tensors.items() if key.startswith(_PREFIX)} or tensors


def told(header: str) -> list[tuple[str, str]]:
    return denoisers(_inner(header))


def denoisers(tensors: Tensors) -> list[tuple[str, str]]:
    """Family and variant of each proof."""
    return [(proof.family, proof.variant) for proof in proofs(tensors)]


@pytest.mark.parametrize("header", published.names())
def test_a_published_denoiser_is_of_its_own_family_and_of_no_other(header: str) -> None:
    assert told(header) == ([RIGHT[header]] if header in RIGHT else [])


def test_every_layout_of_every_family_and_variant_is_proven_by_a_published_header() -> None:
    shown = {(proof.family, proof.match.layout) for header in RIGHT for proof in proofs(_inner(header))}
    assert shown == {(family.id, layout.name) for family in FAMILIES.values() for layout in family.layouts}
    tellable = {
        (family.id, one.name) for family in FAMILIES.values() for one in family.variants if one.signs or one.absent
    }
    assert {right for right in RIGHT.values() if right[1]} == tellable


@pytest.mark.parametrize("header", sorted(RIGHT))
def test_a_denoiser_without_a_decisive_tensor_is_of_no_family(header: str) -> None:
    inner = _inner(header)
    family = FAMILIES[RIGHT[header][0]]
    variant = family.variant(RIGHT[header][1])
    for layout in family.layouts:
        also = variant.signs.get(layout.name, ()) if variant else ()
        if match(layout, inner, also).proven:
            for sign in (*layout.signs, *also):
                less = {key: shape for key, shape in inner.items() if key != sign.key}
                assert bool(denoisers(less)) is not sign.decisive, sign.key


def a_folder(family_id: str, pipeline: str, *lacks: str) -> Folder:
    """A folder of a family as its facts have it, without some components."""
    family = FAMILIES[family_id]
    config = {key: value[0] if isinstance(value, tuple) else value for key, value in family.config.items()}
    return Folder(
        components=set(family.needs) - set(lacks),
        pipeline=pipeline,
        configs={family.denoiser.id: config},
        tensors={family.denoiser.id: dict.fromkeys(family.config_keys, (1,))},
    )


@pytest.mark.parametrize(
    ("family", "pipeline", "variant"),
    [
        ("flux1", "FluxPipeline", "schnell"),  # whose config is one without guidance
        ("flux1", "FluxKontextPipeline", "editing"),
        ("flux1", "FluxKontextInpaintPipeline", "editing"),
        ("flux1", "", "schnell"),
        ("qwen_image", "QwenImagePipeline", ""),
        ("qwen_image", "QwenImageEditPipeline", "editing"),
    ],
)
def test_a_variant_without_a_config_of_its_own_is_told_by_the_class_of_its_folder(
    family: str, pipeline: str, variant: str
) -> None:
    found = tell(a_folder(family, pipeline))
    assert (found.family, found.variant) == (family, variant)


def test_a_folders_evidence_names_the_components_that_are_there_and_those_that_are_not() -> None:
    whole, less = (a_folder("sd1", "StableDiffusionPipeline", *lacks) for lacks in ((), ("vae",)))
    told = [
        next(one for one in evidence_of(folder, tell(folder).weighed) if one.source is Source.MODEL_INDEX)
        for folder in (whole, less)
    ]
    needs = FAMILIES["sd1"].needs
    assert [(one.family, one.expected, one.decisive) for one in told] == [
        ("sd1", len(needs), True),
        ("sd1", len(needs), False),
    ]
    assert [(one.matched, one.missing) for one in told] == [
        (needs, ()),
        (tuple(part for part in needs if part != "vae"), ("vae",)),
    ]


def test_a_family_names_parts_that_a_model_can_have() -> None:
    for family in FAMILIES.values():
        assert len({part.id for part in family.parts}) == len(family.parts)
        assert {"vae", "scheduler", family.denoiser.id} <= set(family.needs)
        assert family.native_px % family.alignment_px == 0
        assert family.base in {"", *FAMILIES}


@pytest.mark.parametrize("header", [name for name in sorted(RIGHT) if name.endswith("_single")])
def test_a_single_file_has_its_components_under_the_prefixes_of_its_family(header: str) -> None:
    family = FAMILIES[RIGHT[header][0]]
    found = {
        part.id for part in family.parts for key in published.header(header) if key.startswith(part.prefixes or "?")
    }
    assert found == {part.id for part in family.parts if part.has_weights and not part.optional}


@pytest.mark.parametrize(
    ("family", "guidance", "reads"),
    [("sd1", 1.0, False), ("sd1", 1.5, True), ("z_image", 0.5, True), ("flux1", 1.0, False)],
)
def test_a_negative_prompt_is_read_where_guidance_is_on_and_is_not_an_input(
    family: str, guidance: float, reads: bool
) -> None:
    assert FAMILIES[family].reads_negative(guidance) is reads


def test_the_facts_are_those_that_were_reviewed() -> None:
    """No other test knows what was published: a wrong size or prefix would only spoil pictures."""
    assert facts.facts() == facts.FILE.read_text("utf-8"), "meant? then run python -m tests.domains.model.facts"
