"""Edges that fit together: which families can make them, and with what they cannot be asked."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.generation import Generation
from domains.model.families import Family

SEAMLESS = ("seamless_x", "seamless_y")


def makes_seamless(family: Family) -> bool:
    """Whether edges can fit together: a U-Net knows the edges by its convolutions alone, a transformer by its positions."""
    return family.denoiser.id == "unet"


def seamless_violations(asked: Generation, family: Family) -> Iterator[Violation]:
    """Requests that the family, or another field, excludes."""
    for name in (name for name in SEAMLESS if getattr(asked, name)):
        if not makes_seamless(family):
            text = f"models of the family {family.id} place each part of the picture by its position; leave it out"
            yield Violation(field=f"generation.{name}", message=text)
        elif asked.mask is not None and asked.mask.zoom_to_mask:
            text = "a part that is put back has no edges that could fit together; leave it or zoom_to_mask out"
            yield Violation(field=f"generation.{name}", message=text)
