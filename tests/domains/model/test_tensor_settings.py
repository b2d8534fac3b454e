"""Settings that differ within a family are read from the tensors of a single file."""

import pytest

from domains.model.families.sign import Tensors
from domains.model.shipped_files import SHIPPED, is_shipped, shipped_files
from domains.model.tensor_settings import settings_of
from tests.domains.model import published


@pytest.mark.parametrize(
    ("header", "family", "component", "settings"),
    [
        ("sd1_single", "sd1", "unet", {"in_channels": 4}),
        ("sd1_inpainting_single", "sd1", "unet", {"in_channels": 9}),
        ("sd1_unet", "sd1", "unet", {"in_channels": 4}),
        ("sd2_depth_single", "sd2", "unet", {"in_channels": 5}),
        ("sdxl_inpainting_single", "sdxl", "unet", {"in_channels": 9}),
        (
            "sd35_medium_original",
            "sd3",
            "transformer",
            {
                "num_layers": 24,
                "caption_projection_dim": 1536,
                "num_attention_heads": 24,
                "pos_embed_max_size": 384,
                "qk_norm": "rms_norm",
                "dual_attention_layers": list(range(13)),
            },
        ),
        (
            "sd35_large_original",
            "sd3",
            "transformer",
            {
                "num_layers": 38,
                "caption_projection_dim": 2432,
                "num_attention_heads": 38,
                "pos_embed_max_size": 192,
                "qk_norm": "rms_norm",
                "dual_attention_layers": [],
            },
        ),
        ("sd35_medium_transformer", "sd3", "transformer", {}),
        (
            "flux1_dev_original",
            "flux1",
            "transformer",
            {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": True, "in_channels": 64, "out_channels": 64},
        ),
        (
            "flux1_schnell_original",
            "flux1",
            "transformer",
            {
                "num_layers": 19,
                "num_single_layers": 38,
                "guidance_embeds": False,
                "in_channels": 64,
                "out_channels": 64,
            },
        ),
        (
            "flux1_fill_original",
            "flux1",
            "transformer",
            {
                "num_layers": 19,
                "num_single_layers": 38,
                "guidance_embeds": True,
                "in_channels": 384,
                "out_channels": 64,
            },
        ),
        ("flux1_dev_transformer", "flux1", "transformer", {}),
        ("sd1_single", "sd1", "vae", {}),
        ("sd1_single", "none", "unet", {}),
    ],
)
def test_the_tensors_of_published_files_say_their_configs(
    header: str, family: str, component: str, settings: dict[str, object]
) -> None:
    assert settings_of(family, component, published.header(header)) == settings


def test_stable_diffusion_3_has_no_norms_of_queries() -> None:
    tensors = published.header("sd3_single")
    found = settings_of("sd3", "transformer", tensors)
    assert (found["num_layers"], found["qk_norm"], found["dual_attention_layers"]) == (24, None, [])


def test_a_network_without_blocks_has_none() -> None:
    tensors: Tensors = {"img_in.weight": (8, 4), "final_layer.linear.weight": (4, 8)}
    found = settings_of("flux1", "transformer", tensors)
    assert (found["num_layers"], found["num_single_layers"]) == (0, 0)
    assert settings_of("sd1", "unet", {"other": (1,)}) == {}


def test_a_tokenizer_of_clip_brings_clips_words() -> None:
    found = shipped_files("sd1", "", "tokenizer")
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= found.keys()
    assert all(path.is_file() for path in found.values())
    assert is_shipped(found["vocab.json"])
    assert not is_shipped(SHIPPED.parent / "model.py")
    assert "vocab.json" not in shipped_files("sd1", "", "scheduler")
    assert shipped_files("sd1", "", "wings") == shipped_files("none", "", "tokenizer") == {}
