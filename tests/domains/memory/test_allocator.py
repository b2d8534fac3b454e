"""What an allocator holds: on the CPU, and the sums that hold everywhere."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.on_device.allocator import Runtime, attributed, compact, empty_caches, measure, start

CPU = torch.device("cpu")
owners = st.lists(
    st.builds(
        MemoryOwner,
        kind=st.sampled_from([OwnerKind.LOADED_MODEL, OwnerKind.JOB, OwnerKind.BLOB, OwnerKind.CACHE]),
        live_bytes=st.integers(0, 100),
        id=st.text(max_size=2),
    ),
    max_size=5,
)


@given(owners, st.integers(0, 300), st.none() | st.integers(1, 50), st.integers(0, 40))
def test_owners_add_up_to_what_is_allocated(
    claimed: list[MemoryOwner], allocated: int, context: int | None, workspace: int
) -> None:
    shares = attributed(claimed, allocated, context, workspace)
    assert sum(owner.live_bytes for owner in shares) == allocated + (context or 0)
    assert all(owner.live_bytes >= 0 for owner in shares)
    assert [owner.id for owner in shares[: len(claimed)]] == [owner.id for owner in claimed]


def test_the_rest_belongs_to_nobody_known() -> None:
    model = MemoryOwner(kind=OwnerKind.LOADED_MODEL, live_bytes=60, id="m")
    for workspace, runtime, nobody in ((0, 10, 40), (30, 40, 10), (40, 50, None), (70, 50, None)):
        rest = attributed([model], 100, 10, workspace)[1:]
        expected = [(OwnerKind.RUNTIME, runtime), (OwnerKind.UNATTRIBUTED, nobody)]
        assert [(owner.kind, owner.live_bytes) for owner in rest] == [pair for pair in expected if pair[1]]


def test_shared_memory_counts_for_the_first() -> None:
    claims = [MemoryOwner(kind=OwnerKind.LOADED_MODEL, live_bytes=60, id=name) for name in "ab"]
    assert [owner.live_bytes for owner in attributed(claims, 100, None)] == [60, 40]


def test_a_cpu_knows_its_owners_and_claims_no_more() -> None:
    model = MemoryOwner(kind=OwnerKind.LOADED_MODEL, live_bytes=60, id="m")
    measured = measure(CPU, [model])
    assert (measured.live_bytes, measured.owners) == (60, (model,))
    assert (measured.held_bytes, measured.cached_bytes, measured.fragmentation_ratio) == (None, None, None)
    assert start("cpu") == Runtime()


def test_what_the_heap_gives_back_is_measured() -> None:
    for free in (empty_caches, compact):
        freed = free(CPU)
        assert freed is None or freed >= 0
