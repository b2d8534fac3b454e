"""Mutated frame streams in both directions: a go-away with a reason, or nothing; no crash, hang or wrong message.

The short version of `bench/attacks/stdio_streams.py`.
"""

import pytest

from bench.attacks.stdio_streams import TO_CALLER, TO_SERVER, called, mutated, served

STREAMS = 200


def test_mutated_streams_to_a_server_end_in_go_away_with_a_reason() -> None:
    broken = 0
    for seed in range(STREAMS):
        seen = served(mutated(TO_SERVER, seed))
        assert not seen.fault, f"seed {seed}"
        broken += seen.broken
    assert broken > STREAMS / 2


@pytest.mark.parametrize("block", range(4))
async def test_mutated_streams_to_a_caller_end_in_go_away_with_a_reason(block: int) -> None:
    broken = 0
    for seed in range(block * STREAMS // 4, (block + 1) * STREAMS // 4):
        seen = await called(mutated(TO_CALLER, seed))
        assert not seen.fault, f"seed {seed}"
        broken += seen.broken
    assert broken > STREAMS / 8
