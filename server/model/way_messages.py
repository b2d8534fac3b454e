"""Converts how a model computes beside its precisions, its quantization and its offloading."""

from typing import Any

from deviceops.model.v1 import execution_pb2
from domains.errors import Violation
from domains.model.ways import TILE_MULTIPLE_PX, TILE_PX, Ways

SERVED_WAYS = ("vae_slicing", "vae_tiling", "vae_tile_px")
"""Fields of ExecutionOptions."""


def from_ways(asked: execution_pb2.ExecutionOptions) -> Ways:
    """The ways that a request asks for."""
    return Ways(
        vae_slicing=asked.vae_slicing if asked.HasField("vae_slicing") else None,
        vae_tiling=asked.vae_tiling if asked.HasField("vae_tiling") else None,
        vae_tile_px=asked.vae_tile_px,
    )


def way_fields(ways: Ways) -> dict[str, Any]:
    """The fields of ExecutionOptions that tell ways."""
    return {name: getattr(ways, name) for name in SERVED_WAYS}


def way_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    """The violations of ways that are wrong."""
    least, most = TILE_PX
    edge = asked.vae_tile_px
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
