"""Converts variations of seeds to and from messages."""

from deviceops.inference.v1 import sampling_pb2
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
