"""Computes diffusers' ZImageControlNetModel (Alibaba 2025, VideoX-Fun): blocks of Z-Image that also see a control map.

The network has no embedder of latents or prompts: it computes with those of the model, and with the model's refiners. What
it finds counts behind some of the model's layers, for the tokens of the prompt, too. One with 33 channels also sees a
picture without its masked part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor, nn

from domains.inference.on_device.controls.guiding_net import SeePicture, TypedMap, growing_shares
from domains.inference.on_device.controls.misfit import Misfits, refuse_hidden
from domains.inference.on_device.controls.token_regions import EDGE, in_tokens
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.families.packing import padded
from domains.inference.on_device.networks.module_dtype import dtype_of
from domains.inference.on_device.rows import RowConditions, in_rows
from domains.model.on_device import OnDeviceModel

_TRAIN_STEPS = 1000
_PATCH = f"{EDGE}-1"
"""The embedder of squares of 2×2 latent pixels, one frame each."""
_BY_LAYERS = "control_layers"
"""Value of `add_control_noise_refiner`: the network's layers also guide its copy of what the model's refiner computes."""


class ZImageControlNet:
    """See `GuidingNet`."""

    types = 0
    of_whole_picture = False
    reads_prompt_alone = False
    weighs_maps = False

    def __init__(self, module: nn.Module, base: OnDeviceModel, control_id: str) -> None:
        self._net: Any = module
        self._id = control_id
        self.dtype = dtype_of(module)

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`: none is told a type."""
        return conditions

    def typed_together(self, conditions: RowConditions, numbers: Sequence[int]) -> RowConditions:
        """See `JoiningNet`."""
        return conditions

    def weighed(self, conditions: RowConditions, weight: float) -> RowConditions:
        """See `GuidingNet`: what it adds to its copy of the model's refiner is weighed, too."""
        if not self._refining():
            return conditions
        device = conditions.inputs[0].device
        weights = torch.full((conditions.rows, 1), weight, dtype=self.dtype, device=device)
        return replace(conditions, inputs=[*conditions.inputs, weights])

    @property
    def layers(self) -> int:
        """See `GuidingNet`."""
        return len(self._net.control_layers)

    def hint(self, control_map: Tensor, hidden: Tensor | None, see: SeePicture) -> Tensor:
        """(1, channels, h/8, w/8): the map's latents, and zeros where the network sees more. For a picture with missing
        pixels: zeros, 1 for each latent pixel that is there, and the latents with grey in place of the missing pixels.
        Raises UNSUPPORTED_COMBINATION for a map that marks missing pixels where the network does not read that."""
        channels: int = self._net.config.control_in_dim
        if hidden is None:
            latents = see(control_map)
            return F.pad(latents, (0, 0, 0, 0, 0, channels - latents.shape[1])).to(self.dtype)
        missing = (hidden > 0).float()
        latents = see(control_map, hidden=missing)
        if channels == latents.shape[1]:
            refuse_hidden(hidden, self._id)
        there = 1 - F.interpolate(missing, latents.shape[2:])
        return torch.cat([torch.zeros_like(latents), there, latents], dim=1).to(self.dtype)

    def joined(self, maps: Sequence[TypedMap]) -> Tensor:
        """See `JoiningNet`: a map and a picture with missing pixels, which have different channels."""
        return torch.stack([one.hint for one in maps]).sum(0)

    def residuals(
        self,
        latents: Tensor,
        timestep: Tensor,
        inputs: Sequence[Tensor],
        hints: Tensor,
        keep_on: KeepOn,
        beside: Sequence[Sequence[Beside]] = (),
        base: Any = None,
    ) -> list[Tensor]:
        """See `GuidingNet`: (rows, tokens, width) behind each block. The tokens of the picture are first, then those of the
        longest prompt that the model can read."""
        states, lengths, *weights = inputs
        rows, net = len(states), self._net
        texts = [row[:length] for row, length in zip(states, cast(list[int], lengths.tolist()), strict=True)]
        pictures = list(in_rows(latents.to(self.dtype), rows).unsqueeze(2).unbind())
        times = 1 - (timestep.expand(rows) if len(timestep) == 1 else in_rows(timestep, rows)) / _TRAIN_STEPS
        there = _Present.of(base, pictures, texts, times)
        seen = self._embedded(in_rows(hints, rows), there, base)
        picture = there.picture
        if refining := self._refining():
            # The model computes its refiner without what the network adds to its own copy.
            seen, added = _through(refining, seen, picture, there.of_picture, keep_on)
            picture = self._refined(picture, [one * weights[0][..., None] for one in added], there, base, keep_on)
        else:
            picture = self._refined(picture, (), there, base, keep_on)
            for block in net.control_noise_refiner:
                keep_on()
                seen = block(seen, *there.of_picture)
        text, of_text = there.text, there.of_text
        for block in base.context_refiner:
            keep_on()
            text = block(text, *of_text)
        whole, sees, of_whole = there.unified(base, picture, seen, text)
        _, found = _through(net.control_layers, sees, whole, of_whole, keep_on)
        tokens = picture.shape[1] + padded(states.shape[1])
        # Each is freed when its copy is there.
        return [F.pad(one, (0, 0, 0, tokens - one.shape[1])) for one in _emptied(found)]

    def _embedded(self, hints: Tensor, there: "_Present", base: Any) -> Tensor:
        """(rows, tokens, width): the squares of the map."""
        squares = F.pixel_unshuffle(hints, EDGE).unflatten(1, (hints.shape[1], EDGE * EDGE)).transpose(1, 2)
        tokens = squares.flatten(1, 2).flatten(2).transpose(1, 2)
        embedded = self._net.control_all_x_embedder[_PATCH](tokens)
        padding = there.picture.shape[1] - tokens.shape[1]
        pad = base.x_pad_token.to(embedded).expand(len(hints), padding, -1)
        return torch.cat([embedded, pad], dim=1) if padding else embedded

    def _refining(self) -> Sequence[Any]:
        """The blocks of the network that guide the model's refiner. Empty: none do."""
        kind = self._net.config.add_control_noise_refiner
        if not kind:
            return ()
        return self._net.control_layers if kind == _BY_LAYERS else self._net.control_noise_refiner

    def _refined(
        self, picture: Tensor, added: Sequence[Tensor], there: "_Present", base: Any, keep_on: KeepOn
    ) -> Tensor:
        """The picture's tokens behind the model's refiner. `added`: what counts behind its blocks."""
        counted: Sequence[int] = self._net.config.control_refiner_layers_places or ()
        places = dict(zip(counted, added, strict=False))
        for place, block in enumerate(base.noise_refiner):
            keep_on()
            picture = block(picture, *there.of_picture)
            if place in places:
                picture = picture + places[place]
        return picture

    def shares(self) -> Tensor:
        """See `GuidingNet`."""
        return growing_shares(self.layers)

    def region_in(self, region: Tensor, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """See `GuidingNet`. Tokens of the prompt, which the whole picture reads, count by the region's share of it."""
        tokens = in_tokens(region, residual, size)
        rest = residual.shape[1] - tokens.shape[1]
        return torch.cat([tokens, tokens.mean(1, keepdim=True).expand(-1, rest, -1)], dim=1)

    def aligned(self, residuals: Sequence[Tensor], base: Any) -> Sequence[Tensor | None]:
        """One for each layer of the model."""
        of = dict(zip(self._net.config.control_layers_places, residuals, strict=True))
        return [of.get(place) for place in range(len(base.layers))]


_Reads = tuple[Any, ...]
"""What a block reads beside tokens: which of them count, their positions, and the time, if the block reads that."""


class _Present(NamedTuple):
    """The tokens that the model makes of rows, before its first blocks."""

    picture: Tensor
    of_picture: _Reads
    text: Tensor
    of_text: _Reads
    picture_tokens: Sequence[int]
    text_tokens: Sequence[int]

    @staticmethod
    def of(base: Any, pictures: Sequence[Tensor], texts: Sequence[Tensor], times: Tensor) -> "_Present":
        """`pictures`: (channels, 1, h/8, w/8) each. `texts`: (tokens, width) each. `times`: (rows,), 0 at the start."""
        device = times.device
        time = base.t_embedder(times * base.t_scale).type_as(pictures[0])
        squares, words, _, places, orders, blank, empty = base.patchify_and_embed(pictures, texts, EDGE, 1)
        sizes = [len(one) for one in squares]
        embedded = base.all_x_embedder[_PATCH](torch.cat(squares)).split(sizes)
        picture, positions, counts, _, _ = base._prepare_sequence(
            list(embedded), places, blank, base.x_pad_token, None, device
        )
        lengths = [len(one) for one in words]
        read = base.cap_embedder(torch.cat(words)).split(lengths)
        text, turns, present, _, _ = base._prepare_sequence(list(read), orders, empty, base.cap_pad_token, None, device)
        return _Present(picture, (counts, positions, time), text, (present, turns), sizes, lengths)

    def unified(self, base: Any, picture: Tensor, seen: Tensor, text: Tensor) -> tuple[Tensor, Tensor, _Reads]:
        """The tokens of picture and prompt in one row each, the same of the map and the prompt, and what blocks read
        beside them."""
        (_, positions, time), (_, turns) = self.of_picture, self.of_text

        def joined(first: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            tokens, places, counts, _ = base._build_unified_sequence(
                *(first, positions, self.picture_tokens, None),
                *(text, turns, self.text_tokens, None),
                *(None, None, None, None),
                False,
                first.device,
            )
            return tokens, places, counts

        whole, places, counts = joined(picture)
        return whole, joined(seen)[0], (counts, places, time)


def _through(
    blocks: Sequence[Any], seen: Tensor, tokens: Tensor, reads: _Reads, keep_on: KeepOn
) -> tuple[Tensor, list[Tensor]]:
    """What blocks of the network make of a map beside the model's tokens, and what each adds to the model."""
    added = list[Tensor]()
    for block in blocks:
        keep_on()
        # Each block but the first one takes a stack, puts what it adds before the stack's last entry, and returns it. One
        # that has this entry alone is not copied from block to block.
        given = seen if block.block_id == 0 else seen[None]
        one, seen = block(given, tokens, *reads).unbind()
        added.append(one)
    return seen, added


def _emptied(tensors: list[Tensor]) -> Iterator[Tensor]:
    """Takes one after the other out of a list."""
    while tensors:
        yield tensors.pop(0)


def check_fits(net: Any, base: OnDeviceModel, control_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless a ControlNet's blocks and inputs are those of the model's transformer."""
    ours: Any = base.modules["transformer"]
    config, channels = net.config, ours.in_channels
    places, refined = [*config.control_layers_places], [*(config.control_refiner_layers_places or ())]
    layers, refiner = range(len(ours.layers)), range(len(ours.noise_refiner))
    misfits = Misfits(control_id, base.model.id)
    for name in ("dim", "n_heads"):
        misfits.compare(name, config[name], ours.config[name])
    misfits.allow("control_in_dim", config.control_in_dim, (channels, 2 * channels + 1))
    misfits.compare("embedders", sorted(net.control_all_x_embedder), [_PATCH])
    misfits.compare("first of control_layers_places", places[0], 0)
    misfits.compare("control_layers_places", places, [place for place in layers if place in places])
    if config.add_control_noise_refiner:
        misfits.compare("control_refiner_layers_places", refined, [place for place in refiner if place in refined])
        own = net.control_layers if config.add_control_noise_refiner == _BY_LAYERS else net.control_noise_refiner
        misfits.allow("refiner places", len(refined), range(1, len(own) + 1))
    misfits.refuse()
