"""Computes a diffusers UNet with its modules and weights, in our order of operations.

It saves, compared with the module's own `forward`: text keys are computed once a job, time shifts in one product a
step, the first layers once for both rows of a guided picture, and no layout ever changes. Results differ by rounding only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.adapters import add_beside
from domains.inference.on_device.cross_reads import Beside, KeysValues
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.module_dtype import dtype_of
from domains.inference.on_device.networks.resnet import Resnet
from domains.inference.on_device.networks.slices import conv, downsampled, upsampled
from domains.inference.on_device.networks.transformer import Transformer, joined
from domains.inference.on_device.rows import in_rows
from domains.inference.on_device.to_device import to_device

TextKeys = Sequence[Sequence[KeysValues]]
"""For each transformer, in the order of the walk."""
_Reads = tuple[Sequence[KeysValues], Sequence[Sequence[Beside]]]
"""What the layers of a transformer read: the text, and what some rows read beside it."""

# Inputs that a UNet of another family has beside latents, time and text.
_OTHER_INPUTS = ("class_embed_type", "encoder_hid_dim", "time_cond_proj_dim", "num_class_embeds")


@dataclass(frozen=True, eq=False)
class _Level:
    """One resolution on the way down or up, or the middle."""

    resnets: Sequence[Resnet]
    transformers: Sequence[Transformer]
    """As many as resnets, one fewer in the middle, none where the level has no attention."""
    resize: Any
    """Diffusers' own down- or upsampler; None at the last level."""


class UNet:
    """Computes what `unet(latents, timestep, text)` computes."""

    def __init__(self, unet: UNet2DConditionModel, *, pooled_and_sizes: bool = False) -> None:
        """`pooled_and_sizes`: whether it also reads what `added` makes of these.

        Raises MODEL_INCOMPATIBLE for a UNet with parts that this walk does not visit.
        """
        _refuse_others(unet, "text_time" if pooled_and_sizes else None)
        self.reads_sizes = pooled_and_sizes
        self._unet: Any = unet  # diffusers types its parts as possibly absent
        self.dtype = dtype_of(unet)
        """Precision of the computation."""
        self._down = [_level(block, "downsamplers") for block in self._unet.down_blocks]
        self._middle = _level(self._unet.mid_block, "")
        self._up = [_level(block, "upsamplers") for block in getattr(self._unet, "up_blocks", ())]
        levels = [*self._down, self._middle, *self._up]
        self._transformers = [transformer for level in levels for transformer in level.transformers]
        self._projections = projections = [resnet.time_projection for level in levels for resnet in level.resnets]
        self._time_weight = joined([projection.weight for projection in projections])
        self._time_bias = joined([projection.bias for projection in projections])
        self._time_widths = [projection.weight.shape[0] for projection in projections]

    def text_keys(self, states: Tensor) -> TextKeys:
        """Keys and values for text states (rows, tokens, width); valid for any number of steps.

        The states may have another precision than the UNet.
        """
        states = states.to(self.dtype)
        return [transformer.text_keys(states) for transformer in self._transformers]

    def text_keys_of(self, tensors: Sequence[Tensor]) -> TextKeys:
        """The keys whose tensors are given one behind the other."""
        flat = iter(tensors)
        return [[(next(flat), next(flat)) for _ in range(one.blocks)] for one in self._transformers]

    @property
    def cross_layers(self) -> Sequence[Any]:
        """The attention layers that read the text, in the order of the walk."""
        return [layer for transformer in self._transformers for layer in transformer.cross_layers]

    def feature_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(channels, h, w) of the features that are added at each level for latents of this size, then to the middle."""
        found: list[tuple[int, int, int]] = []
        for level, channels in zip(self._down, self._unet.config.block_out_channels, strict=True):
            before = channels, height, width
            if level.resize is not None:
                # An odd size is rounded up.
                height, width = (height + 1) // 2, (width + 1) // 2
            found.append(before if level.transformers else (channels, height, width))
        return [*found, (found[-1][0], height, width)]

    @property
    def cross_names(self) -> Sequence[str]:
        """The names of these layers: `up_blocks.0.attentions.1.transformer_blocks.0.attn2` …"""
        names = {module: name for name, module in self._unet.named_modules()}
        return [names[layer] for layer in self.cross_layers]

    @property
    def stored_order(self) -> Sequence[Any]:
        """The same in the order in which diffusers lists them, which files of adapters follow: the middle is last."""
        own = set(self.cross_layers)
        return [module for module in self._unet.modules() if module in own]

    def _reads(self, text: TextKeys, beside: Sequence[Sequence[Beside]] = ()) -> Iterator[_Reads]:
        flat = iter(beside)
        return ((keys, [next(flat) for _ in keys] if beside else ()) for keys in text)

    def added(self, pooled: Tensor, sizes: Sequence[float]) -> Tensor:
        """(rows, width): what pooled text (rows, width) and sizes add to the time's embedding in every step."""
        numbers = self._unet.add_time_proj(to_device(torch.tensor(sizes, dtype=torch.float32), pooled.device))
        numbers = numbers.flatten().to(pooled.dtype).expand(pooled.shape[0], -1)
        return self._unet.add_embedding(torch.cat([pooled, numbers], dim=-1).to(self.dtype))

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: TextKeys,
        keep_on: KeepOn = regardless,
        *,
        added: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
        beside: Sequence[Sequence[Beside]] = (),
        features: Sequence[Tensor] = (),
    ) -> Tensor:
        """latents: (pictures, channels, h, w), channels last; timestep: 0-dim, (1,) or (pictures,); added: (rows, width), as
        `added` makes it; residuals: each (rows, …), what to add to the skip connections and, last, to the middle; beside:
        for each layer of `cross_layers`, what some rows read beside the text; features: each (rows, …), what to add at the
        end of each level on the way down and, if there is one more, to the middle.

        Returns (rows of the text, channels, h, w), in the order of `rows`.
        """
        rows = next((len(pair[0]) for layer in text for pair in layer), len(latents))
        shifts, reads = iter(self._shifts(timestep, added, rows)), self._reads(text, beside)
        hidden = conv(self._unet.conv_in, latents, keep_on)
        skips = [hidden]
        for level, feature in zip(self._down, _padded(features, len(self._down)), strict=True):
            hidden = self._descend(level, hidden, skips, shifts, reads, keep_on, feature)
        hidden = self._cross(hidden, shifts, reads, keep_on)
        for feature in features[len(self._down) :]:
            hidden = in_rows(hidden, rows) + feature
        if residuals:
            *skips, hidden = [in_rows(one, rows) + more for one, more in zip([*skips, hidden], residuals, strict=True)]
        for level in self._up:
            hidden = self._ascend(level, hidden, skips, shifts, reads, keep_on)
        return conv(self._unet.conv_out, F.silu(self._unet.conv_norm_out(hidden), inplace=True), keep_on)

    def _descend(
        self,
        level: _Level,
        hidden: Tensor,
        skips: list[Tensor],
        shifts: Iterator[Tensor],
        reads: Iterator[_Reads],
        keep_on: KeepOn,
        feature: Tensor | None = None,
    ) -> Tensor:
        for index, resnet in enumerate(level.resnets):
            hidden = resnet(hidden, self._fitting(next(shifts), hidden), keep_on)
            if level.transformers:
                hidden = level.transformers[index](hidden, *next(reads), keep_on)
            skips.append(hidden)
        if feature is not None and level.transformers:
            hidden = skips[-1] = in_rows(hidden, len(feature)) + feature
        if level.resize is not None:
            hidden = downsampled(level.resize, hidden, keep_on)
            skips.append(hidden)
        if feature is not None and not level.transformers:
            # Diffusers adds it to a level without attention when that is halved.
            hidden = skips[-1] = in_rows(hidden, len(feature)) + feature
        return hidden

    def _cross(self, hidden: Tensor, shifts: Iterator[Tensor], reads: Iterator[_Reads], keep_on: KeepOn) -> Tensor:
        first, *others = self._middle.resnets
        hidden = first(hidden, self._fitting(next(shifts), hidden), keep_on)
        for transformer, resnet in zip(self._middle.transformers, others, strict=True):
            hidden = resnet(transformer(hidden, *next(reads), keep_on), next(shifts), keep_on)
        return hidden

    def _ascend(
        self,
        level: _Level,
        hidden: Tensor,
        skips: list[Tensor],
        shifts: Iterator[Tensor],
        reads: Iterator[_Reads],
        keep_on: KeepOn,
    ) -> Tensor:
        for index, resnet in enumerate(level.resnets):
            skip = in_rows(skips.pop(), hidden.shape[0])
            hidden = resnet(torch.cat([hidden, skip], dim=1), next(shifts), keep_on)
            if level.transformers:
                hidden = level.transformers[index](hidden, *next(reads), keep_on)
        if level.resize is None:
            return hidden
        # An odd size was rounded up on the way down: the skip has the exact size.
        height, width = skips[-1].shape[-2:]
        return upsampled(level.resize, hidden, keep_on, (height, width))

    def _shifts(self, timestep: Tensor, added: Tensor | None, rows: int) -> Sequence[Tensor]:
        """Each resnet's (1 or rows, channels, 1, 1) shift."""
        embedding = self._unet.time_embedding(self._unet.time_proj(timestep.reshape(-1)).to(self.dtype))
        if added is not None:
            embedding = _in_rows_unless_one(embedding, rows) + added
        embedding = F.silu(embedding)
        projected = F.linear(embedding, self._time_weight, self._time_bias)
        for projection, part in zip(self._projections, projected.split(self._time_widths, dim=1), strict=True):
            add_beside(projection, embedding, part)
        shifts = _in_rows_unless_one(projected, rows).split(self._time_widths, dim=1)
        return [shift[:, :, None, None] for shift in shifts]

    def _fitting(self, shift: Tensor, hidden: Tensor) -> Tensor:
        """The shifts of the rows that `hidden` has. Where nothing but the time shifts, a picture's rows have the same."""
        return shift if self.reads_sizes or shift.shape[0] == 1 else shift[-hidden.shape[0] :]


def flat(keys: TextKeys) -> list[Tensor]:
    """The tensors of text keys, one behind the other."""
    return [one for layer in keys for pair in layer for one in pair]


def _padded(features: Sequence[Tensor], levels: int) -> Sequence[Tensor | None]:
    """One for each level."""
    return [*features[:levels], *[None] * (levels - len(features))]


def _in_rows_unless_one(x: Tensor, rows: int) -> Tensor:
    """One row is broadcast."""
    return x if x.shape[0] == 1 else in_rows(x, rows)


def _level(block: Any, resize: str) -> _Level:
    samplers = getattr(block, resize, None) if resize else None
    return _Level(
        resnets=[Resnet(module) for module in block.resnets],
        transformers=[Transformer(module) for module in getattr(block, "attentions", None) or ()],
        resize=samplers[0] if samplers else None,
    )


def _refuse_others(unet: Any, addition: str | None) -> None:
    found = [name for name in _OTHER_INPUTS if getattr(unet.config, name, None) is not None]
    if unet.config.addition_embed_type != addition:
        found.append(f"addition_embed_type={unet.config.addition_embed_type}")
    if found or unet.mid_block is None or getattr(unet.config, "center_input_sample", False):
        message = f"the model's UNet asks for more than latents, time and text: {', '.join(found) or 'other blocks'}"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="unet", inputs=", ".join(found))
