"""Blocks of components are those of the original networks, in their order."""

from typing import Any

import pytest

from domains.inference.lora_blocks import block_of, blocks_of

SD1: dict[str, Any] = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
SDXL: dict[str, Any] = {"block_out_channels": [320, 640, 1280], "layers_per_block": 2}


@pytest.mark.parametrize(
    ("config", "path", "place"),
    [
        (SD1, "conv_in", 0),
        (SD1, "down_blocks.0.attentions.1.proj_in", 2),
        (SD1, "down_blocks.0.downsamplers.0.conv", 3),
        (SD1, "down_blocks.1.resnets.0.conv1", 4),
        (SD1, "down_blocks.3.resnets.1.time_emb_proj", 11),
        (SD1, "mid_block.attentions.0.proj_out", 12),
        (SD1, "up_blocks.0.upsamplers.0.conv", 12 + 1 + 2),
        (SD1, "up_blocks.1.attentions.0.proj_in", 12 + 1 + 3),
        (SD1, "up_blocks.3.attentions.2.proj_in", 12 + 1 + 11),
        (SD1, "conv_out", None),
        (SD1, "time_embedding.linear_1", None),
        (SDXL, "down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q", 7),
        (SDXL, "mid_block.resnets.0.conv1", 9),
        (SDXL, "up_blocks.0.attentions.0.proj_in", 9 + 1 + 0),
        (SDXL, "up_blocks.1.attentions.2.proj_in", 9 + 1 + 5),
    ],
)
def test_a_unets_blocks_have_the_numbers_of_the_original_network(
    config: dict[str, Any], path: str, place: int | None
) -> None:
    assert block_of(path, blocks_of("sd1", "unet", config)) == place


CLIP: dict[str, Any] = {"model_type": "clip_text_model", "num_hidden_layers": 12}
T5: dict[str, Any] = {"model_type": "t5", "num_layers": 24, "num_hidden_layers": 24}
QWEN: dict[str, Any] = {"model_type": "qwen3", "num_hidden_layers": 36}


@pytest.mark.parametrize(
    ("config", "path", "place"),
    [
        (CLIP, "encoder.layers.11.mlp.fc1", 11),
        (CLIP, "text_model.encoder.layers.1.mlp.fc1", 1),
        (CLIP, "text_model.final_layer_norm", None),
        (T5, "encoder.block.23.layer.0.SelfAttention.q", 23),
        (T5, "encoder.final_layer_norm", None),
        (QWEN, "layers.35.mlp.up_proj", 35),
        (QWEN, "layers.36.mlp.up_proj", None),
    ],
)
def test_a_text_encoders_blocks_are_its_layers(config: dict[str, Any], path: str, place: int | None) -> None:
    assert block_of(path, blocks_of("sd1", "text_encoder", config)) == place


@pytest.mark.parametrize(
    ("family", "component", "config", "count"),
    [
        ("sd1", "unet", SD1, 25),
        ("sdxl", "unet", SDXL, 19),
        ("sd1", "text_encoder", {"model_type": "clip_text_model", "num_hidden_layers": 12}, 12),
        ("flux1", "text_encoder_2", {"model_type": "t5", "num_layers": 24, "num_hidden_layers": 24}, 24),
        ("flux1", "transformer", {"num_layers": 19, "num_single_layers": 38}, 57),
        ("sd3", "transformer", {"num_layers": 24}, 24),
        ("z_image", "transformer", {"n_layers": 30, "n_refiner_layers": 2}, 34),
        ("sd1", "vae", {"block_out_channels": [128, 256]}, 0),
    ],
)
def test_a_component_has_as_many_blocks_as_its_config_says(
    family: str, component: str, config: dict[str, Any], count: int
) -> None:
    assert len(blocks_of(family, component, config)) == count


@pytest.mark.parametrize(
    ("component", "config"),
    [
        ("text_encoder", {"model_type": "t5", "num_layers": 10**12}),
        ("transformer", {"num_layers": 10**12, "num_single_layers": 10**12}),
        ("unet", {"block_out_channels": [1, 2], "layers_per_block": 10**12}),
        ("unet", {"block_out_channels": [1] * 1000, "layers_per_block": 1}),
        ("unet", {"block_out_channels": [1, 2], "layers_per_block": [10**12, 1]}),
        ("unet", {"block_out_channels": 4}),
        ("unet", {}),
        ("text_encoder", {"num_hidden_layers": "12"}),
        ("transformer", {"num_layers": None, "num_single_layers": [1]}),
    ],
)
def test_a_config_of_no_network_costs_neither_time_nor_memory(component: str, config: dict[str, Any]) -> None:
    assert not blocks_of("flux1", component, config)
