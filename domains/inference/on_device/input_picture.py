"""Reads the pixels of a picture that a generation starts from."""

import math

import torch
from torch import Tensor

from domains.errors import DataLoss, ErrorReason
from domains.inference.generation import ResolvedGeneration
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.kept_bytes import kept_bytes


def read_pixels(file: KeptFile, resolved: ResolvedGeneration, channels: tuple[int, ...] = (3,)) -> Tensor:
    """(height, width, 3), uint8, on the CPU, in the size before growing; without `channels` (height, width). Raises as
    `read_sized`."""
    return read_sized(file, resolved.input_px, channels)


def read_sized(file: KeptFile, size_px: tuple[int, int], channels: tuple[int, ...] = (3,)) -> Tensor:
    """(height, width, channels), uint8, on the CPU. Raises as `kept_bytes` (BLOB_CORRUPT), also for a file of another
    size."""
    data = kept_bytes(file, _corrupt)
    shape = (*reversed(size_px), *channels)
    if len(data) != math.prod(shape):
        raise _corrupt(f"are {len(data)} bytes, which is not {shape[1]}×{shape[0]} of {math.prod(channels)}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape)


def _corrupt(problem: str) -> DataLoss:
    return DataLoss(f"the pixels of the picture to start from {problem}; send the job again", ErrorReason.BLOB_CORRUPT)
