"""Which domain stands on which."""

from graphlib import TopologicalSorter

from deviceops.common.v1 import domain_pb2
from server.processing.status import DEPENDS


def test_domains_stand_on_each_other_without_a_cycle_the_devices_below_all() -> None:
    # A cycle raises; a domain without a row of its own would be missing among the keys.
    order = list(TopologicalSorter(DEPENDS).static_order())
    assert order[0] == domain_pb2.DOMAIN_DEVICE
    assert set(order) == set(DEPENDS) == set(domain_pb2.Domain.values()) - {domain_pb2.DOMAIN_UNSPECIFIED}
    started: set[int] = set()
    for domain, needed in DEPENDS.items():
        assert started.issuperset(needed), "the table is in the order of the start"
        started.add(domain)
