"""Converts how a model computes beside its precisions, its quantization and its offloading."""

from collections.abc import Collection
from typing import Any

from deviceops.common.v1 import field_capability_pb2
from deviceops.model.v1 import execution_pb2
from domains.errors import Violation, excerpt
from domains.model.device_fit import NO_COMPILER
from domains.model.ways import ATTENTION_KERNELS, TILE_MULTIPLE_PX, TILE_PX, Ways

SERVED_WAYS = ("attention_kernel", "attention_slicing", "vae_slicing", "vae_tiling", "vae_tile_px", "compile")
"""Fields of ExecutionOptions."""


def from_ways(asked: execution_pb2.ExecutionOptions) -> Ways:
    """The ways that a request asks for."""
    return Ways(
        attention_kernel=asked.attention_kernel,
        attention_slicing=asked.attention_slicing if asked.HasField("attention_slicing") else None,
        vae_slicing=asked.vae_slicing if asked.HasField("vae_slicing") else None,
        vae_tiling=asked.vae_tiling if asked.HasField("vae_tiling") else None,
        vae_tile_px=asked.vae_tile_px,
        compile=asked.compile if asked.HasField("compile") else None,
    )


def way_fields(ways: Ways) -> dict[str, Any]:
    """The fields of ExecutionOptions that tell ways."""
    return {name: getattr(ways, name) for name in SERVED_WAYS}


def way_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    """The violations of ways that are wrong, or do not go together."""
    wrong: list[Violation] = []
    if asked.attention_kernel and asked.attention_kernel not in ATTENTION_KERNELS:
        text = f"{excerpt(asked.attention_kernel)!r} is no attention kernel"
        wrong.append(Violation(field=f"{path}.attention_kernel", message=text, allowed=", ".join(ATTENTION_KERNELS)))
    if asked.compile and asked.attention_slicing:
        text = "compiled code computes attention as a whole; leave attention_slicing out, or compile"
        wrong.append(Violation(field=f"{path}.compile", message=text, allowed="false with attention_slicing"))
    return [*wrong, *_tile_violations(asked, path)]


def to_compile(*, available: bool) -> field_capability_pb2.OptionCapability:
    """Whether denoisers can be compiled."""
    return field_capability_pb2.OptionCapability(
        id="compile",
        display_name="compile",
        available=available,
        unavailable_message="" if available else NO_COMPILER,
    )


def to_kernels(kernels: Collection[str]) -> list[field_capability_pb2.OptionCapability]:
    """The attention kernels. `kernels`: those that the devices have."""
    lacks = "trying it has not worked on these devices; choose math, or leave it empty"
    return [
        field_capability_pb2.OptionCapability(
            id=name,
            display_name=name.replace("_", " "),
            available=name in kernels,
            unavailable_message="" if name in kernels else lacks,
        )
        for name in ATTENTION_KERNELS
    ]


def _tile_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    (least, most), edge = TILE_PX, asked.vae_tile_px
    if not edge:
        return []
    wrong: list[Violation] = []
    if not least <= edge <= most or edge % TILE_MULTIPLE_PX:
        allowed = f"0, or a multiple of {TILE_MULTIPLE_PX}, {least}..{most}"
        wrong.append(Violation(field=f"{path}.vae_tile_px", message=f"{edge} is not allowed", allowed=allowed))
    if not asked.vae_tiling:
        text = "only tiles have an edge; set vae_tiling to true"
        wrong.append(Violation(field=f"{path}.vae_tile_px", message=text, allowed="0 without vae_tiling"))
    return wrong
