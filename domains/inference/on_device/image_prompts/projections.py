"""How IP-Adapters turn what an image encoder saw of a picture into tokens (Ye et al. 2023).

The modules have the names of the published files, so a file fills them as it is.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors of a file, by name without `image_proj.`."""

_HEAD_WIDTH = 64
"""Of the resampler's attention; the published ones have no other."""


class Projection(nn.Module):
    """Makes tokens of pictures."""

    reads_patches = True
    """Whether it reads the encoder's last but one layer, patch by patch; else the picture's embedding."""
    embedding_width: int
    """Width of what it reads."""

    @staticmethod
    def of(shapes: Shapes) -> "Projection":
        """The projection that such tensors are of."""
        if "latents" in shapes:
            return Resampler(shapes)
        return PatchProjection(shapes) if "proj.0.weight" in shapes else EmbeddingProjection(shapes)

    def forward(self, seen: Tensor) -> Tensor:
        """(pictures, [patches,] width) → (pictures, tokens, width of the text)."""
        raise NotImplementedError


class EmbeddingProjection(Projection):
    """The plain adapter: some tokens of the picture's embedding."""

    reads_patches = False

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, self.embedding_width = shapes["norm.weight"][0], shapes["proj.weight"][1]
        self.proj = nn.Linear(self.embedding_width, shapes["proj.weight"][0])
        self.norm = nn.LayerNorm(width)

    def forward(self, seen: Tensor) -> Tensor:
        """See `Projection`."""
        return self.norm(self.proj(seen).unflatten(-1, (-1, *self.norm.normalized_shape)))


class PatchProjection(Projection):
    """The full adapter: one token of each patch."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        inner, self.embedding_width = shapes["proj.0.weight"]
        width = shapes["proj.3.weight"][0]
        self.proj = nn.Sequential(
            nn.Linear(self.embedding_width, inner), nn.GELU(), nn.Linear(inner, width), nn.LayerNorm(width)
        )

    def forward(self, seen: Tensor) -> Tensor:
        """See `Projection`."""
        return self.proj(seen)


class _Queries(Projection):
    """Learned queries that read all patches in layers (Alayrac et al. 2022)."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        _, queries, inner = shapes["latents"]
        self.embedding_width, width = shapes["proj_in.weight"][1], shapes["proj_out.weight"][0]
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
        self.latents = nn.Parameter(torch.empty(1, queries, inner))
        self.proj_in = nn.Linear(self.embedding_width, inner)
        self.proj_out = nn.Linear(inner, width)
        self.norm_out = nn.LayerNorm(width)
        attended, hidden = shapes["layers.0.0.to_q.weight"][0], shapes["layers.0.1.1.weight"][0]
        self.layers = nn.ModuleList(
            nn.ModuleList([_Perceiver(inner, attended), _feed_forward(inner, hidden)]) for _ in range(depth)
        )


class Resampler(_Queries):
    """The plus adapter: learned queries that read all patches."""

    def forward(self, seen: Tensor) -> Tensor:
        """See `Projection`."""
        patches, found = self.proj_in(seen), self.latents.expand(len(seen), -1, -1)
        for layer in self.layers:
            attention, forward = cast(Any, layer)
            found = found + attention(patches, found)
            found = found + forward(found)
        return self.norm_out(self.proj_out(found))


class TimeResampler(_Queries):
    """The adapter of SD3: learned queries that read all patches, in each step otherwise."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        inner = self.latents.shape[-1]
        for layer in self.layers:
            cast(nn.ModuleList, layer).append(nn.Sequential(nn.SiLU(), nn.Linear(inner, 4 * inner)))
        frequencies = shapes["time_embedding.linear_1.weight"][1]
        self.time_proj = Timesteps(frequencies, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(frequencies, inner)

    def at(self, seen: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """(pictures, patches, width) at a timestep (1,) → (pictures, tokens, width of the model), and what stands for the
        time: (1, width)."""
        time: Tensor = self.time_embedding(self.time_proj(timestep).to(seen.dtype))
        patches, found = self.proj_in(seen) + time.unsqueeze(1), self.latents.expand(len(seen), -1, -1)
        for layer in self.layers:
            attention, forward, moves = cast(Any, layer)
            shift, scale, shift_after, scale_after = moves(time).unsqueeze(1).chunk(4, dim=-1)
            found = found + attention(patches, found, scale, shift)
            norm, *others = forward
            within = norm(found) * (1 + scale_after) + shift_after
            for one in others:
                within = one(within)
            found = found + within
        return self.norm_out(self.proj_out(found)), time


class _Perceiver(nn.Module):
    """Attention of the queries to the patches and to themselves."""

    def __init__(self, width: int, attended: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, attended, bias=False)
        self.to_kv = nn.Linear(width, 2 * attended, bias=False)
        self.to_out = nn.Linear(attended, width, bias=False)

    def forward(
        self, patches: Tensor, queries: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """`scale`, `shift`: of the queries, behind their norm. None: they stay as they are."""
        patches, queries = self.norm1(patches), self.norm2(queries)
        if scale is not None and shift is not None:
            queries = queries * (1 + scale) + shift
        states = [self.to_q(queries), *self.to_kv(torch.cat([patches, queries], dim=1)).chunk(2, dim=-1)]
        query, key, value = (one.unflatten(-1, (-1, _HEAD_WIDTH)).transpose(1, 2) for one in states)
        found = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(found.transpose(1, 2).flatten(2))


def _feed_forward(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
    )
