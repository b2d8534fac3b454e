"""Claims: whoever waits for memory is told of every byte that becomes free, and of nothing else."""

import pytest

from domains.memory.pools.claims import Claims


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def told(claims: Claims) -> list[str]:
    """Pools in which bytes became free."""
    pools: list[str] = []
    claims.on_freed.append(pools.append)
    return pools


def test_a_dropped_claim_announces_its_bytes_once(claims: Claims, told: list[str]) -> None:
    claim = claims.keep("sim-0", 10)
    claims.drop(claim)
    claims.drop(claim)
    assert (told, claims.outstanding_bytes("sim-0")) == (["sim-0"], 0)


def test_a_smaller_claim_announces_bytes_and_a_larger_one_does_not(claims: Claims, told: list[str]) -> None:
    claim = claims.keep("sim-0", 10)
    claims.resize(claim, 10)
    claims.resize(claim, 11)
    assert (told, claims.outstanding_bytes("sim-0")) == ([], 11)
    claims.resize(claim, 4)
    assert (told, claims.outstanding_bytes("sim-0")) == (["sim-0"], 4)


def test_a_taken_claim_is_not_dropped_as_if_nothing_were_allocated(claims: Claims, told: list[str]) -> None:
    claim = claims.take(claims.keep("sim-0", 10), "job-1")
    claims.drop(claim)
    assert (told, claims.outstanding_bytes("sim-0")) == ([], 10)


def test_a_claim_that_was_left_ends_with_the_next_measurement(claims: Claims) -> None:
    with claims.take_new("sim-0", 10, "job-1") as claim:
        assert claims.closed("sim-0") == []
    assert claims.closed("sim-0") == [claim]
    claims.measured("sim-0", [], [claim])
    assert claims.outstanding_bytes("sim-0") == 0
