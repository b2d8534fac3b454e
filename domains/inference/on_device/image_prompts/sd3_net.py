"""An IP-Adapter of SD3 and SD3.5 (InstantX 2024): makes tokens of pictures anew in each step, and keys and values of them
for each layer of attention, which the tokens of the latents read together with their own.

The network has the names of the published files, so a file fills it as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn

from domains.inference.on_device.cross_reads import KeysValues, Norms
from domains.inference.on_device.image_prompts.misfits import refuse_misfit
from domains.inference.on_device.image_prompts.projections import Projection, TimeResampler
from domains.inference.on_device.networks.joint_reads import attentions_of
from domains.inference.on_device.networks.transformer import heads_of

_PROJECTION, _LAYERS = "image_proj.", "ip_adapter."
_EPSILON = 1e-6


class Sd3AdapterNet(nn.Module):
    """The network of a published file, with its names: `image_proj.*`, `ip_adapter.0.to_k_ip.weight` …"""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        own = {name.removeprefix(_PROJECTION): shape for name, shape in shapes.items() if name.startswith(_PROJECTION)}
        self.image_proj = TimeResampler(own)
        numbers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith(_LAYERS)})
        self.ip_adapter = nn.ModuleDict({str(number): _Layer(shapes, f"{_LAYERS}{number}.") for number in numbers})

    @property
    def projection(self) -> Projection:
        """See `AdapterNet`."""
        return self.image_proj

    @property
    def layers(self) -> "Sequence[_Layer]":
        """One for each layer of attention."""
        found: Any = self.ip_adapter.values()
        return [*found]

    @property
    def norms(self) -> Sequence[Norms]:
        """For each layer: how it brings the queries and keys of the latents to the scale of the pictures' ones."""
        return [Norms(one.norm_q, one.norm_k) for one in self.layers]


class _Layer(nn.Module):
    def __init__(self, shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
        super().__init__()
        width, read = shapes[f"{place}to_k_ip.weight"]
        self.norm_ip = _TimedNorm(shapes[f"{place}norm_ip.linear.weight"][1], read)
        self.to_k_ip, self.to_v_ip = (nn.Linear(read, width, bias=False) for _ in range(2))
        self.head_width = shapes[f"{place}norm_q.weight"][0]
        self.norm_q, self.norm_k, self.norm_ip_k = (RMSNorm(self.head_width, _EPSILON) for _ in range(3))

    def keys(self, tokens: Tensor, time: Tensor, attention: Any) -> KeysValues:
        """Keys and values (rows, heads, tokens, head width)."""
        tokens = self.norm_ip(tokens, time)
        return self.norm_ip_k(heads_of(attention, self.to_k_ip(tokens))), heads_of(attention, self.to_v_ip(tokens))


class _TimedNorm(nn.Module):
    """A norm whose shift and scale follow the time of a step."""

    def __init__(self, time_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, 2 * width)
        self.silu = nn.SiLU()
        self.norm = nn.LayerNorm(width, _EPSILON, elementwise_affine=False)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.linear(self.silu(time)).unsqueeze(1).chunk(2, dim=-1)
        return self.norm(tokens) * (1 + scale) + shift


class Sd3Pictures(NamedTuple):
    """See `TimedKeys`: the pictures of one job, and the adapter that they are read with."""

    net: Sd3AdapterNet
    seen: Tensor
    """(1 or 2 rows, pictures, patches, width)."""
    transformer: Any

    def at(self, timestep: Tensor) -> Sequence[KeysValues]:
        """See `TimedKeys`. The keys of a layer are computed when they are asked for, since all layers' take much memory."""
        tokens, time = self.net.image_proj.at(self.seen.flatten(0, 1), timestep.reshape(1))
        tokens = tokens.unflatten(0, self.seen.shape[:2]).flatten(1, 2)
        return _KeysOfStep(self.net.layers, attentions_of(self.transformer), tokens, time)

    def tensors(self) -> Sequence[Tensor]:
        """See `TimedKeys`."""
        return [self.seen]


class _KeysOfStep(Sequence[KeysValues]):
    def __init__(self, layers: Sequence[_Layer], attentions: Sequence[Any], tokens: Tensor, time: Tensor) -> None:
        self._pairs = [*zip(layers, attentions, strict=True)]
        self._tokens, self._time = tokens, time

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> KeysValues: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[KeysValues]: ...

    def __getitem__(self, index: int | slice) -> KeysValues | Sequence[KeysValues]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        layer, attention = self._pairs[index]
        return layer.keys(self._tokens, self._time, attention)


def check_fits(net: Sd3AdapterNet, transformer: Any, adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless the adapter has a layer of the right width for each layer of attention."""
    width, head = transformer.inner_dim, transformer.config.attention_head_dim
    ours = [(width, width, head)] * len(attentions_of(transformer))
    theirs = [(*one.to_k_ip.weight.shape, one.head_width) for one in net.layers]
    refuse_misfit(ours, theirs, adapter_id, model_id)
