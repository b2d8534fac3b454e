"""Reads and writes files of latents."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from domains.errors import DataLoss, ErrorReason
from domains.inference.kept_file import KeptFile
from domains.inference.latents import TENSOR
from domains.inference.on_device.kept_bytes import kept_bytes
from domains.inference.on_device.to_device import to_device


def read_latents(file: KeptFile, shape: tuple[int, int, int], pictures: int, device: torch.device) -> Tensor:
    """(pictures, *shape), float32, on the device; one picture's latents are those of all.

    Raises as `kept_bytes` (BLOB_CORRUPT), also for a file of another shape.
    """
    data = kept_bytes(file, _corrupt)
    try:
        found = load(data)[TENSOR].float()
    except (SafetensorError, KeyError, ValueError) as error:
        raise _corrupt(f"cannot be read: {error}") from None
    if found.shape[1:] != shape or found.shape[0] not in (1, pictures):
        raise _corrupt(f"are {tuple(found.shape)}, not {(pictures, *shape)}")
    return to_device(found.expand(pictures, *shape).contiguous(), device)


def latents_file(latents: Tensor) -> bytes:
    """The file of one picture's latents, (1, channels, height, width) on the CPU."""
    return save({TENSOR: latents.contiguous()})


def _corrupt(problem: str) -> DataLoss:
    return DataLoss(f"the latents to start from {problem}; send the job again", ErrorReason.BLOB_CORRUPT)
