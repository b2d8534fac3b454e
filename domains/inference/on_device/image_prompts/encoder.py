"""What an image encoder sees of pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.image_prompts.adapter_net import AdapterNet
from domains.inference.on_device.to_device import to_device

# Of CLIP's own training pictures (openai/CLIP, `_transform`).
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder:
    """A CLIP vision encoder on the device."""

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        self._dtype = next(module.parameters()).dtype

    def check_fits(self, net: AdapterNet, encoder_id: str, adapter_id: str) -> None:
        """Raise MODEL_INCOMPATIBLE unless the adapter reads what this encoder makes."""
        config, read = self._module.config, net.image_proj
        width = config.hidden_size if read.reads_patches else config.projection_dim
        if width == read.embedding_width:
            return
        message = (
            f"image encoder {encoder_id} makes vectors of {width} values, and IP-Adapter {adapter_id} reads "
            f"{read.embedding_width}; add the encoder that it was made with"
        )
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=encoder_id)

    def seen(self, pictures: Sequence[Tensor], *, patches: bool, device: torch.device) -> Tensor:
        """(pictures, [patches,] width) of pictures (edge, edge, 3) uint8."""
        pixels = to_device(torch.stack([*pictures]), device).permute(0, 3, 1, 2).float().div(255)
        mean, deviation = (pixels.new_tensor(one).view(1, 3, 1, 1) for one in (_MEAN, _DEVIATION))
        return self._read((pixels - mean) / deviation, patches=patches)

    def nothing(self, like: Tensor, *, patches: bool, edge_px: int) -> Tensor:
        """(1, [patches,] width): what stands for no picture, as diffusers has it. `like`: what was seen of pictures."""
        if not patches:
            return torch.zeros_like(like[:1])
        return self._read(like.new_zeros((1, 3, edge_px, edge_px)), patches=True)

    def _read(self, pixels: Tensor, *, patches: bool) -> Tensor:
        found = self._module(pixel_values=pixels.to(self._dtype), output_hidden_states=patches)
        return found.hidden_states[-2] if patches else found.image_embeds
