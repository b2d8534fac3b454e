"""The order of the elements of pictures and of convolutions' weights that a device computes fastest."""

import torch


def picture_layout(place: torch.device) -> torch.memory_format:
    """The memory format for the weights of convolutions and for their inputs.

    GPUs: channels last. On a CPU oneDNN reorders the weights in each call, and starts fastest from the order that files
    have; the weights are then the very bytes of the file. On 2 cores a step of a UNet of half of SD 1.5's width took 0.95 s
    channels last and 0.79 s contiguous.
    """
    return torch.contiguous_format if place.type == "cpu" else torch.channels_last
