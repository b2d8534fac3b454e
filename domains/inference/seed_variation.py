"""A second seed that varies the first: as requested, and with every choice made."""

import secrets

import msgspec

from domains.inference import limits


class SeedVariation(msgspec.Struct, frozen=True, kw_only=True):
    """The other seed and how far the noise is moved to it, as requested."""

    seed: int | None = None
    """Picture i uses this seed + i. Absent: drawn by the server."""
    strength: float | None = None
    """0..1; must be set."""


class ResolvedSeedVariation(msgspec.Struct, frozen=True, kw_only=True):
    """The same with every choice made."""

    seeds: tuple[int, ...]
    """One for each picture."""
    strength: float


def resolved_variation(asked: SeedVariation | None, count: int) -> ResolvedSeedVariation | None:
    """The variation of `count` pictures."""
    if asked is None or asked.strength is None:
        return None
    first = secrets.randbelow(2**32) if asked.seed is None else asked.seed
    seeds = tuple((first + index) % (limits.SEED[1] + 1) for index in range(count))
    return ResolvedSeedVariation(seeds=seeds, strength=asked.strength)
