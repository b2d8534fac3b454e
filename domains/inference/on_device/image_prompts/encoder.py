"""What an image encoder sees of pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.image_prompts.projections import Projection
from domains.inference.on_device.to_device import to_device

# Of CLIP's own training pictures (openai/CLIP, `_transform`).
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# SigLIP's (google/siglip-so400m-patch14-384, preprocessor_config.json): −1..1.
_SIGLIP = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class ImageEncoder:
    """The vision encoder of a CLIP or of a SigLIP on the device."""

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        self._dtype = next(module.parameters()).dtype
        self._scale = _SIGLIP if isinstance(module, SiglipVisionModel) else _CLIP

    def check_fits(self, read: Projection, encoder_id: str, adapter_id: str) -> None:
        """Raise MODEL_INCOMPATIBLE unless the adapter's projection (`read`) reads what this encoder makes."""
        config = self._module.config
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
        mean, deviation = (pixels.new_tensor(one).view(1, 3, 1, 1) for one in self._scale)
        return self._read((pixels - mean) / deviation, patches=patches)

    def of_zeros(self, edge_px: int, device: torch.device) -> Tensor:
        """(1, patches, width) of the mean colour."""
        return self._read(torch.zeros((1, 3, edge_px, edge_px), device=device), patches=True)

    def _read(self, pixels: Tensor, *, patches: bool) -> Tensor:
        found = self._module(pixel_values=pixels.to(self._dtype), output_hidden_states=patches)
        return found.hidden_states[-2] if patches else found.image_embeds
