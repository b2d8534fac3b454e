"""Reads from the headers of a network's files how much a denoiser or a ControlNet keeps of a prompt for all its steps."""

from collections.abc import Iterable

import msgspec

from domains.model.safetensors_header import TensorEntry

_KEYS = (".attn2.to_k.weight", ".attn2.to_v.weight")
"""Layers of a U-Net, (width, width of the text): keys and values of each token are kept."""
_ADDED = ("add_embedding.linear_2.weight", "label_emb.0.2.weight")
"""The same, (width, …): what SDXL's U-Net makes of pooled text and sizes."""
_STATES = ("context_embedder.weight", "txt_in.weight", "cap_embedder.1.weight")
"""Layers of a transformer, (…, width of the text): the states themselves are kept."""
_POOLED = ("text_embedder.linear_1.weight", "y_embedder.mlp.0.weight", "vector_in.in_layer.weight")
"""The same for pooled text."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that a network keeps of a prompt."""

    of_token: int = 0
    """Of each token."""
    of_prompt: int = 0
    """Of the prompt as a whole."""


def reading_of(tensors: Iterable[TensorEntry]) -> Reading:
    """What a network with these tensors keeps."""
    found = [one for one in tensors if len(one.shape) == 2]
    return Reading(
        of_token=sum(one.shape[0] for one in found if one.name.endswith(_KEYS))
        or next((one.shape[1] for one in found if one.name.endswith(_STATES)), 0),
        of_prompt=next((one.shape[0] for one in found if one.name.endswith(_ADDED)), 0)
        or next((one.shape[1] for one in found if one.name.endswith(_POOLED)), 0),
    )
