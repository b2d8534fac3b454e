"""An IP-Adapter of FLUX.1 (XLabs 2024), which Chroma, made from FLUX.1, reads, too: makes tokens of pictures, and keys and
values of them for each double block.

The network has the names of the file that it is filled from: those of XLabs, or those that diffusers gives them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from domains.inference.on_device.cross_reads import KeysValues
from domains.inference.on_device.image_prompts.misfits import refuse_misfit
from domains.inference.on_device.image_prompts.projections import EmbeddingProjection, Projection
from domains.inference.on_device.networks.transformer import heads_of

_PROJECTIONS, _BLOCKS = ("ip_adapter_proj_model", "image_proj"), ("double_blocks", "ip_adapter")
"""Names of XLabs, and of diffusers."""


class FluxAdapterNet(nn.Module):
    """The network of a published file: `double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight` …, or
    `ip_adapter.0.to_k_ip.weight` …"""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        of_xlabs = any(name.startswith(f"{_BLOCKS[0]}.") for name in shapes)
        self._projection, self._blocks = _PROJECTIONS[not of_xlabs], _BLOCKS[not of_xlabs]
        own = f"{self._projection}."
        projection = EmbeddingProjection(
            {name.removeprefix(own): shape for name, shape in shapes.items() if name.startswith(own)}
        )
        numbers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith(f"{self._blocks}.")})
        made = _XlabsBlock if of_xlabs else _PlainBlock
        blocks = nn.ModuleDict({str(number): made(shapes, f"{self._blocks}.{number}.") for number in numbers})
        self.add_module(self._projection, projection)
        self.add_module(self._blocks, blocks)

    @property
    def projection(self) -> Projection:
        """See `AdapterNet`."""
        found: Any = getattr(self, self._projection)
        return found

    @property
    def layers(self) -> Sequence[tuple[nn.Linear, nn.Linear]]:
        """For each double block: what makes keys and what makes values."""
        blocks: Any = getattr(self, self._blocks)
        return [block.pair for block in blocks.values()]

    def keys(self, seen: Tensor, transformer: Any) -> Sequence[KeysValues]:
        """For each double block: keys and values of what the encoder saw (rows, pictures, width). The tokens of a row's
        pictures are joined."""
        tokens = self.projection(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]).flatten(1, 2)
        found: list[KeysValues] = []
        for block, (to_key, to_value) in zip(transformer.transformer_blocks, self.layers, strict=True):
            key, value = (heads_of(block.attn, one(tokens)).contiguous() for one in (to_key, to_value))
            found.append((key, value))
        return found


class _PlainBlock(nn.Module):
    """A block with the names of diffusers."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
        super().__init__()
        width, read = shapes[f"{place}to_k_ip.weight"]
        self.to_k_ip, self.to_v_ip = nn.Linear(read, width), nn.Linear(read, width)

    @property
    def pair(self) -> tuple[nn.Linear, nn.Linear]:
        return self.to_k_ip, self.to_v_ip


class _XlabsBlock(nn.Module):
    """A block with the names of XLabs."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
        super().__init__()
        width, read = shapes[f"{place}processor.ip_adapter_double_stream_k_proj.weight"]
        self.processor = nn.Module()
        self.processor.ip_adapter_double_stream_k_proj = nn.Linear(read, width)
        self.processor.ip_adapter_double_stream_v_proj = nn.Linear(read, width)

    @property
    def pair(self) -> tuple[nn.Linear, nn.Linear]:
        found: Any = self.processor
        return found.ip_adapter_double_stream_k_proj, found.ip_adapter_double_stream_v_proj


def check_fits(net: FluxAdapterNet, transformer: Any, adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless the adapter has a layer of the right width for each double block."""
    ours = [(transformer.inner_dim, transformer.config.joint_attention_dim)] * len(transformer.transformer_blocks)
    refuse_misfit(ours, [(one.out_features, one.in_features) for one, _ in net.layers], adapter_id, model_id)
