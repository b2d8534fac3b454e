"""Names that drivers and runtimes write differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.adapter import bare_uuid, pci_address


@pytest.mark.parametrize("written", ["GPU-1A2b-3c", "MIG-1a2b-3c", "1a2b-3c"])
def test_a_uuid_is_the_same_with_and_without_its_prefix(written: str) -> None:
    assert bare_uuid(written) == "1a2b-3c"


@given(st.uuids())
def test_a_bare_uuid_stays_as_it_is(uuid: object) -> None:
    assert bare_uuid(str(uuid)) == bare_uuid(f"GPU-{uuid}") == str(uuid)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 255), st.integers(0, 31))
def test_a_pci_address_is_the_same_however_many_zeros_its_domain_has(domain: int, bus: int, slot: int) -> None:
    told = pci_address(f"{domain:08X}:{bus:02X}:{slot:02X}.0")
    assert told == pci_address(f"{domain:04x}:{bus:02x}:{slot:02x}.0") == f"{domain:04x}:{bus:02x}:{slot:02x}.0"
