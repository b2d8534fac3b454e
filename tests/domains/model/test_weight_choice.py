"""Which of the weight files of a component are read."""

from collections.abc import Mapping
from typing import Any

import pytest

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.model.weight_choice import choose

UNET = "diffusion_pytorch_model"


def chosen(*names: str, index: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    return tuple(choose("unet", names, lambda name: index or {}))


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ((f"{UNET}.safetensors",), (f"{UNET}.safetensors",)),
        ((f"{UNET}.fp16.safetensors", f"{UNET}.safetensors"), (f"{UNET}.safetensors",)),
        (
            (f"{UNET}-00001-of-00002.safetensors", f"{UNET}-00002-of-00002.safetensors"),
            (f"{UNET}-00001-of-00002.safetensors", f"{UNET}-00002-of-00002.safetensors"),
        ),
        ((f"{UNET}-00001-of-00002.safetensors", f"{UNET}.safetensors"), (f"{UNET}.safetensors",)),
        ((f"{UNET}.fp16-00001-of-00001.safetensors",), (f"{UNET}.fp16-00001-of-00001.safetensors",)),
    ],
)
def test_one_set_of_files_counts(names: tuple[str, ...], files: tuple[str, ...]) -> None:
    assert chosen(*names) == files


def test_an_index_says_the_files_before_their_names_do() -> None:
    shards = ("a.safetensors", "b.safetensors")
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"}}
    name = f"{UNET}.safetensors.index.json"
    assert chosen(name, *shards, f"{UNET}-00001-of-00002.safetensors", index=index) == shards
    for broken in ({}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"x": 1}}):
        with pytest.raises(DataLoss, match="has no weight_map from tensors to files"):
            chosen(name, *shards, index=broken)
    for lost in ({"x": "c.safetensors"}, {"x": "a.bin"}):
        with pytest.raises(FailedPrecondition, match="lacks the shard") as refused:
            chosen(name, "a.bin", *shards, index={"weight_map": lost})
        assert refused.value.reason is ErrorReason.COMPONENT_MISSING


def test_the_first_shard_that_is_missing_is_named() -> None:
    there = [f"{UNET}-{number:05}-of-00004.safetensors" for number in (1, 3)]
    with pytest.raises(FailedPrecondition, match=rf"shard 00002 of 00004 \(beside {there[0]}\)"):
        chosen(*there)
