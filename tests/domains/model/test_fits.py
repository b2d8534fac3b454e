"""Widths that two configs must agree on, family by family: the published ones fit, and one more or less does not."""

from types import SimpleNamespace
from typing import Any

import pytest

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.part_fit import check_fit

PUBLISHED: dict[str, dict[str, dict[str, int]]] = {
    "sd1": {
        "text_encoder": {"hidden_size": 768},
        "unet": {"cross_attention_dim": 768, "in_channels": 4, "out_channels": 4},
        "vae": {"latent_channels": 4},
    },
    "sd2": {
        "text_encoder": {"hidden_size": 1024},
        "unet": {"cross_attention_dim": 1024, "in_channels": 4, "out_channels": 4},
        "vae": {"latent_channels": 4},
    },
    "sdxl": {
        "text_encoder": {"hidden_size": 768},
        "text_encoder_2": {"hidden_size": 1280, "projection_dim": 1280},
        "unet": {
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
            "addition_time_embed_dim": 256,
            "in_channels": 4,
            "out_channels": 4,
        },
        "vae": {"latent_channels": 4},
    },
    "sdxl_refiner": {
        "text_encoder_2": {"hidden_size": 1280, "projection_dim": 1280},
        "unet": {
            "cross_attention_dim": 1280,
            "projection_class_embeddings_input_dim": 2560,
            "addition_time_embed_dim": 256,
            "in_channels": 4,
            "out_channels": 4,
        },
        "vae": {"latent_channels": 4},
    },
    "sd3": {
        "text_encoder": {"projection_dim": 768},
        "text_encoder_2": {"projection_dim": 1280},
        "text_encoder_3": {"d_model": 4096},
        "transformer": {
            "pooled_projection_dim": 2048,
            "joint_attention_dim": 4096,
            "in_channels": 16,
            "out_channels": 16,
        },
        "vae": {"latent_channels": 16},
    },
    "flux1": {
        "text_encoder": {"hidden_size": 768},
        "text_encoder_2": {"d_model": 4096},
        "transformer": {"pooled_projection_dim": 768, "joint_attention_dim": 4096, "in_channels": 64},
        "vae": {"latent_channels": 16},
    },
    "chroma": {
        "text_encoder": {"d_model": 4096},
        "transformer": {"joint_attention_dim": 4096, "in_channels": 64},
        "vae": {"latent_channels": 16},
    },
    "auraflow": {
        "text_encoder": {"d_model": 2048},
        "transformer": {"joint_attention_dim": 2048, "in_channels": 4, "out_channels": 4},
        "vae": {"latent_channels": 4},
    },
    "z_image": {
        "text_encoder": {"hidden_size": 2560},
        "transformer": {"cap_feat_dim": 2560, "in_channels": 16},
        "vae": {"latent_channels": 16},
    },
}
"""By family, the widths of the published configs."""
DECIDES_NOTHING = ("out_channels",)
WIDTHS = [
    (family, part, field)
    for family, parts in PUBLISHED.items()
    for part, widths in parts.items()
    for field in widths
    if field not in DECIDES_NOTHING
]


def said(family: str, **changes: dict[str, Any]) -> dict[str, Any]:
    parts = PUBLISHED[family]
    return {part: SimpleNamespace(**widths, **changes.get(part, {})) for part, widths in parts.items()}


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_published_widths_fit(family: str) -> None:
    check_fit(family, said(family))


@pytest.mark.parametrize(("family", "part", "field"), WIDTHS)
def test_a_width_that_is_missing_says_nothing_and_another_one_is_refused(family: str, part: str, field: str) -> None:
    parts = said(family)
    published = getattr(parts[part], field)
    # One channel more than what it makes is a picture of depth.
    more = 2 if field == "in_channels" else 1
    for other in (published - 1, published + more):
        setattr(parts[part], field, other)
        with pytest.raises(FailedPrecondition, match=r"/config\.json has \w+=\d+, and \w+/config\.json") as refused:
            check_fit(family, parts)
        assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    delattr(parts[part], field)
    check_fit(family, parts)
    del parts[part]
    check_fit(family, parts)


@pytest.mark.parametrize(
    ("family", "channels", "fits"),
    [
        *(("sd1", channels, channels in (4, 5, 8, 9, 264)) for channels in (3, 4, 5, 6, 7, 8, 9, 10, 263, 264, 265)),
        *(
            ("flux1", channels, channels in (64, 128, 129, 384))
            for channels in (63, 64, 127, 128, 129, 130, 383, 384, 385)
        ),
    ],
)
def test_a_model_for_inpainting_or_editing_reads_more_channels_than_it_makes(
    family: str, channels: int, fits: bool
) -> None:
    denoiser = "unet" if family == "sd1" else "transformer"
    parts = said(family)
    parts[denoiser].in_channels = channels
    parts[denoiser].out_channels = 4 if family == "sd1" else 64
    if fits:
        check_fit(family, parts)
    else:
        with pytest.raises(FailedPrecondition, match="they do not fit"):
            check_fit(family, parts)
