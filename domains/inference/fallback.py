"""The ladder of degradation: what a generation gives up when its device is out of memory, one rung after the other.

The rungs of a stage stand in the order in which they are taken: first what leaves the pictures as they are and costs no
later job anything. A model that is offloaded stays so for later jobs; once it is on the device, that comes after what only
the present job pays for.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from domains.errors import ErrorReason
from domains.progress import STEPPING, Stage

OUT_OF_MEMORY = (ErrorReason.DEVICE_OUT_OF_MEMORY, ErrorReason.HOST_OUT_OF_MEMORY)
MOST_ATTEMPTS = 10


class Rung(StrEnum):
    """One reduction. The values are the kinds of `domains.progress.Degraded`."""

    EVICTION = "eviction"
    """Idle models leave the device."""
    SMALLER_BATCH = "smaller_batch"
    """The pictures of the job are denoised one after the other; then, of each, the rows of its guidance. Pictures that are
    decoded together are decoded one after the other."""
    VAE_TILING = "vae_tiling"
    """Pictures are decoded in tiles; each further time in smaller ones."""
    OFFLOAD = "offload"
    """More of the model waits in host memory: its components take turns on the device, then layers of them pass through
    it."""
    LOWER_PRECISION = "lower_precision"
    """The model is loaded in half the bytes."""
    OTHER_DEVICE = "other_device"
    """The job moves to another device that it may run on."""


LADDER: Mapping[Stage, tuple[Rung, ...]] = {
    Stage.QUEUED: (Rung.OTHER_DEVICE,),
    Stage.LOADING: (Rung.EVICTION, Rung.OFFLOAD, Rung.LOWER_PRECISION, Rung.OTHER_DEVICE),
    Stage.CONDITIONING: (Rung.EVICTION, Rung.OFFLOAD, Rung.OTHER_DEVICE),
    Stage.ENCODING_INPUT: (Rung.EVICTION, Rung.OFFLOAD, Rung.OTHER_DEVICE),
    **dict.fromkeys(STEPPING, (Rung.EVICTION, Rung.SMALLER_BATCH, Rung.OFFLOAD, Rung.OTHER_DEVICE)),
    Stage.ENLARGING: (Rung.EVICTION, Rung.VAE_TILING, Rung.OFFLOAD, Rung.OTHER_DEVICE),
    Stage.DETECTING: (Rung.EVICTION, Rung.OTHER_DEVICE),
    Stage.DECODING: (Rung.EVICTION, Rung.SMALLER_BATCH, Rung.VAE_TILING, Rung.OFFLOAD, Rung.OTHER_DEVICE),
}
"""By the stage that failed. Stages that are not named have no rungs."""

FIELD_OF: Mapping[Rung, str] = {
    Rung.EVICTION: "allow_eviction",
    Rung.SMALLER_BATCH: "allow_smaller_batch",
    Rung.VAE_TILING: "allow_tiling",
    Rung.OFFLOAD: "allow_offload",
    Rung.LOWER_PRECISION: "allow_lower_precision",
    Rung.OTHER_DEVICE: "allow_other_device",
}
"""The field of `FallbackPolicy` that permits the rung."""


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """What a request permits to be given up."""

    allow_other_device: bool = False
    allow_offload: bool = True
    allow_lower_precision: bool = False
    allow_smaller_batch: bool = True
    allow_tiling: bool = True
    allow_eviction: bool = True
    max_attempts: Annotated[int, msgspec.Meta(ge=0, le=MOST_ATTEMPTS)] = 3
    """Number of rungs that are taken at most."""

    def permits(self, rung: Rung) -> bool:
        """Whether the rung may be taken."""
        return getattr(self, FIELD_OF[rung])


NOTHING = Fallback(max_attempts=0)
"""The policy that permits no reduction."""


def next_rung(stage: Stage, fallback: Fallback, possible: Collection[Rung], taken: int) -> Rung | None:
    """The rung to take after a stage was out of memory. None: the work fails.

    `possible`: rungs that would still change something. `taken`: number of rungs that were taken before.
    """
    if taken >= fallback.max_attempts:
        return None
    return next((rung for rung in LADDER.get(stage, ()) if rung in possible and fallback.permits(rung)), None)


def would_help(stage: Stage, fallback: Fallback, possible: Collection[Rung]) -> tuple[str, ...]:
    """The fields of `FallbackPolicy` that kept the work from going on; `max_attempts` if only the number of rungs did."""
    useful = [rung for rung in LADDER.get(stage, ()) if rung in possible]
    forbidden = tuple(FIELD_OF[rung] for rung in useful if not fallback.permits(rung))
    return forbidden or (("max_attempts",) if useful else ())
