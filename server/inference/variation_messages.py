"""Converts variations of seeds and ranges of guidance to and from messages."""

from deviceops.inference.v1 import sampling_pb2
from domains.inference.generation import ResolvedGeneration
from domains.inference.seed_variation import ResolvedSeedVariation, SeedVariation


def from_variation(message: sampling_pb2.SeedVariation) -> SeedVariation:
    """The variation of a request."""
    return SeedVariation(
        seed=message.seed if message.HasField("seed") else None,
        strength=message.strength if message.HasField("strength") else None,
    )


def to_variation(told: SeedVariation | ResolvedSeedVariation | None) -> sampling_pb2.SeedVariation | None:
    """The message of a variation, as the caller asked for it or with every choice made."""
    if told is None:
        return None
    seed = told.seeds[0] if isinstance(told, ResolvedSeedVariation) else told.seed
    return sampling_pb2.SeedVariation(seed=seed, strength=told.strength)


def to_guidance_range(resolved: ResolvedGeneration) -> dict[str, float]:
    """The steps in which guidance counts, where those are not all."""
    told = {"guidance_start_ratio": resolved.guidance_start_ratio, "guidance_end_ratio": resolved.guidance_end_ratio}
    return {} if tuple(told.values()) == (0.0, 1.0) else told
