"""How pictures are brought to a size."""

from enum import StrEnum


class ImageFit(StrEnum):
    """How a picture of another size is brought to a size."""

    STRETCH = "stretch"
    """Out of shape if need be."""
    COVER = "cover"
    """As small as covers the size, cut at the middle."""
    CONTAIN = "contain"
    """As large as fits inside. Not for input pictures."""
    PAD = "pad"
    """As large as fits inside, the rest filled with the colours of the edge."""
