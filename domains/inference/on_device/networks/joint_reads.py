"""Pictures that the layers of joint attention of diffusers' transformers read, in forwards that the transformers compute.

Hooks stand on the modules of the layers for one forward: they take the queries that a layer makes of the latents, and add
what these find in the pictures. FLUX.1 adds it behind each double block, SD3 before the output layer of each attention.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from domains.inference.on_device.cross_reads import Beside, read_beside
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.networks.slices import attention
from domains.inference.on_device.networks.transformer import heads_of

Read = Sequence[Sequence[Beside]]
"""For each layer, what some rows read. Empty: nothing."""
_EDGE = 2
"""Latent pixels of a token's edge."""


@contextmanager
def reading_behind_blocks(transformer: Any, read: Read, latents: tuple[int, int], keep_on: KeepOn) -> Generator[None]:
    """Have a transformer of FLUX.1 or Chroma read pictures in its double blocks. `latents`: their (h, w)."""
    with ExitStack() as hooks:
        for block, parts in zip(transformer.transformer_blocks, read, strict=True) if read else ():
            if parts:
                layer = _BehindBlock(parts, _grid(latents), keep_on)
                _while(hooks, block.attn.norm_q.register_forward_hook(layer.take))
                _while(hooks, block.register_forward_hook(layer.add))
        yield


@contextmanager
def reading_in_attention(transformer: Any, read: Read, latents: tuple[int, int], keep_on: KeepOn) -> Generator[None]:
    """Have a transformer of SD3 read pictures in its layers of attention. `latents`: their (h, w)."""
    with ExitStack() as hooks:
        for place, one in enumerate(attentions_of(transformer)) if read else ():
            layer = _InAttention(one, lambda place=place: read[place], _grid(latents), keep_on)
            for made in (one.to_q, one.to_k, one.to_v):
                _while(hooks, made.register_forward_hook(layer.take))
            _while(hooks, one.to_out[0].register_forward_pre_hook(layer.add))
        yield


def attentions_of(transformer: Any) -> Sequence[Any]:
    """The layers of attention of SD3's transformer, in the order of the layers of its IP-Adapters."""
    both = [(block.attn, block.attn2) for block in transformer.transformer_blocks]
    return [one for pair in both for one in pair if one is not None]


def _grid(latents: tuple[int, int]) -> tuple[int, int]:
    return latents[0] // _EDGE, latents[1] // _EDGE


def _while(hooks: ExitStack, handle: Any) -> None:
    hooks.callback(handle.remove)


class _BehindBlock:
    """What a double block of FLUX.1 adds to the tokens of the latents."""

    def __init__(self, parts: Sequence[Beside], size: tuple[int, int], keep_on: KeepOn) -> None:
        self._parts, self._size, self._keep_on = parts, size, keep_on
        self._query: Tensor | None = None

    def take(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        """A forward hook of torch's, on the norm of the queries (rows, tokens, heads, head width)."""
        self._query = output.transpose(1, 2)

    def add(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        """A forward hook of torch's, on the block."""
        text, hidden = output
        query, self._query = self._query, None
        assert query is not None, "the block has made its queries"
        found = torch.zeros_like(query)
        for one in self._parts:
            # Tokens of reference pictures stand behind those of the latents, and lie in no region.
            own = slice(None) if one.area is None else slice(self._size[0] * self._size[1])
            read_beside(found[:, :, own], query[:, :, own], [one], self._size, self._keep_on)
        return text, hidden + found.transpose(1, 2).flatten(2)


class _InAttention:
    """What a layer of attention of SD3 adds to what the tokens of the latents have found."""

    def __init__(
        self, layer: Any, parts: Callable[[], Sequence[Beside]], size: tuple[int, int], keep_on: KeepOn
    ) -> None:
        self._layer, self._parts, self._size, self._keep_on = layer, parts, size, keep_on
        self._own: list[Tensor] = []

    def take(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        """A forward hook of torch's, on what makes queries, keys and values of the latents, in this order."""
        self._own.append(output)

    def add(self, module: nn.Module, arguments: Any) -> Any:
        """A forward hook of torch's, before the output layer (rows, tokens, width)."""
        query, key, value = (heads_of(self._layer, one) for one in self._own)
        self._own = []
        found = arguments[0].clone()
        for one in self._parts():
            assert one.norms is not None, "adapters of SD3 have norms"
            keys = torch.cat([one.norms.key(key[one.rows]), one.keys], dim=2)
            values = torch.cat([value[one.rows], one.values], dim=2)
            more = attention(one.norms.query(query[one.rows]), keys, values, self._keep_on)
            if one.area is not None:
                more = more * one.area.at(self._size, more.dtype)
            found[one.rows].add_(more.transpose(1, 2).flatten(2), alpha=one.weight)
        return (found, *arguments[1:])
