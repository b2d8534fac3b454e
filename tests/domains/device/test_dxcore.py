"""What the system tells of the adapters that DirectML may compute on, and how it is joined with what a worker tells."""

import ctypes
import struct
import sys
from types import SimpleNamespace

import pytest

from domains.device.device import Backend, DeviceKind
from domains.device.directml.adapter import DirectMLAdapter, adapter_at, directml_device
from domains.device.directml.com import held
from domains.device.directml.dxcore import open_dxcore
from domains.device.directml.dxcore_adapter import Property
from domains.device.directml.inventory import DirectMLInventory
from domains.errors import ErrorReason, InternalError
from tests.domains.device.fake_dxcore import REMOVED, FakeDxCore, gpu, luid

INTEGRATED = gpu(
    "Intel(R) Iris(R) Xe Graphics",
    INSTANCE_LUID=luid(-1, 0x9ABC),
    HARDWARE_ID_PARTS=struct.pack("<5I", 0x8086, 0x46A6, 0, 0, 0),
    DEDICATED_ADAPTER_MEMORY=struct.pack("<Q", 128 << 20),
    IS_INTEGRATED=b"\1",
)
SOFTWARE = gpu("Microsoft Basic Render Driver", speed=9, IS_HARDWARE=b"\0")


def test_hardware_is_listed_with_its_identity_the_fastest_first() -> None:
    library = FakeDxCore(INTEGRATED, SOFTWARE, gpu(speed=5))
    found = DirectMLInventory(library.dxcore()).look_now()
    assert list(found) == ["directml:0", "directml:1"]
    fast, slow = found.values()
    assert (fast.id, fast.aliases, fast.backend, fast.backend_index) == (
        "directml-0",
        ("directml:0",),
        Backend.DIRECTML,
        0,
    )
    assert (fast.display_name, fast.vendor, fast.kind) == ("AMD Radeon RX 7800 XT", "AMD", DeviceKind.DISCRETE_GPU)
    assert (fast.pci_vendor_id, fast.pci_device_id, fast.driver_version) == (0x1002, 0x747E, "31.1.15.6093")
    assert (fast.adapter_luid, fast.total_memory_bytes, fast.probe_time_s) == (0xFEDC, 16 << 30, 0.0)
    assert (slow.vendor, slow.kind) == ("Intel", DeviceKind.INTEGRATED_GPU)
    assert slow.total_memory_bytes == (128 << 20) + (8 << 30)
    # As C# makes a long of it: (long)HighPart << 32 | LowPart.
    assert slow.adapter_luid == (-1 << 32) | 0x9ABC
    assert len(library.held) == 5
    assert not any(library.held.values())


def test_only_the_configured_are_listed_under_directmls_numbers() -> None:
    library = FakeDxCore(gpu(), INTEGRATED)
    assert list(DirectMLInventory(library.dxcore(), ["cpu", "directml:1"]).look_now()) == ["directml:1"]


def test_a_guest_does_not_pass_its_own_luids_off_as_those_of_windows() -> None:
    (adapter,) = FakeDxCore(gpu()).dxcore(guest=True).adapters()
    assert (adapter.luid, adapter.pci_vendor_id) == (None, 0x1002)


def test_what_an_adapter_does_not_tell_is_absent() -> None:
    bare = gpu("Radeon")
    for known in set(Property) - {Property.DRIVER_DESCRIPTION, Property.IS_HARDWARE}:
        del bare.properties[known]
    (adapter,) = FakeDxCore(bare).dxcore().adapters()
    assert adapter == DirectMLAdapter(name="Radeon", graphics=True)
    device = directml_device(0, adapter)
    assert (device.kind, device.total_memory_bytes, device.adapter_luid) == (DeviceKind.UNSPECIFIED, None, None)
    assert (device.vendor, device.driver_version, device.pci_vendor_id) == ("", "", None)


def test_an_older_system_tells_the_hardware_ids_in_their_older_form() -> None:
    older = gpu()
    del older.properties[Property.HARDWARE_ID_PARTS]
    (adapter,) = FakeDxCore(older).dxcore().adapters()
    assert (adapter.pci_vendor_id, adapter.pci_device_id) == (0x1002, 0x747E)


def test_one_that_is_on_no_pci_bus_has_no_pci_ids_and_one_that_only_computes_need_not_be_a_gpu() -> None:
    part = gpu("Qualcomm(R) Hexagon(TM) NPU", HARDWARE_ID_PARTS=struct.pack("<5I", 0x4D4F4351, 0x41304430, 0, 0, 0))
    part.graphics = False
    (adapter,) = FakeDxCore(part).dxcore().adapters()
    device = directml_device(0, adapter)
    assert (device.pci_vendor_id, device.pci_device_id, device.vendor) == (None, None, "Qualcomm")
    assert device.kind is DeviceKind.UNSPECIFIED


@pytest.mark.parametrize(
    ("told", "ids"),
    [
        ((1, 0), (1, 0)),
        ((0xFFFF, 0xFFFF), (0xFFFF, 0xFFFF)),
        ((0, 5), (None, None)),
        ((0x10000, 5), (None, None)),
        ((5, 0x10000), (None, None)),
    ],
)
def test_ids_of_pci_have_16_bits_and_a_vendor(told: tuple[int, int], ids: tuple[int | None, int | None]) -> None:
    (adapter,) = FakeDxCore(gpu(HARDWARE_ID_PARTS=struct.pack("<5I", *told, 0, 0, 0))).dxcore().adapters()
    assert (adapter.pci_vendor_id, adapter.pci_device_id) == ids


@pytest.mark.parametrize("call", ["CreateAdapterList", "Sort", "GetAdapter", "GetProperty(INSTANCE_LUID)"])
def test_a_call_that_fails_is_named_with_its_code_and_everything_is_given_back(call: str) -> None:
    adapter = gpu()
    library = FakeDxCore(adapter)
    library.failing[call] = REMOVED
    adapter.failing[Property.INSTANCE_LUID] = REMOVED
    with pytest.raises(InternalError) as caught:
        DirectMLInventory(library.dxcore()).look_now()
    assert caught.value.reason is ErrorReason.DRIVER_ERROR
    assert caught.value.facts["hresult"] == "0x887A0005"
    assert caught.value.facts["call"].endswith(f"::{call}")
    assert call in caught.value.message
    assert not any(library.held.values())


def test_a_call_that_succeeds_without_an_object_is_named() -> None:
    with pytest.raises(
        InternalError, match="IDXCoreAdapterList::GetAdapter succeeded and handed out nothing"
    ) as caught:
        held("IDXCoreAdapterList::GetAdapter", ctypes.c_void_p())
    assert caught.value.reason is ErrorReason.DRIVER_ERROR


A, B, TWIN = DirectMLAdapter(name="A", luid=1), DirectMLAdapter(name="B", luid=2), DirectMLAdapter(name="A", luid=3)


@pytest.mark.parametrize(
    ("names", "adapters", "index", "luid"),
    [
        (["A"], [A], 0, 1),
        (["B", "A"], [A, B], 0, 2),
        (["B"], [A, B], 0, 2),
        (["A", "B", "A"], [A, B, TWIN], 2, 3),
        (["A", "A"], [A, TWIN], 1, 3),
        (["A", "A", "B"], [A, B, TWIN], 1, None),
        (["A"], [A, TWIN], 0, None),
        (["A", "A"], [A], 0, None),
        (["A", "A", "B"], [A, B, TWIN], 2, 2),
        (["C"], [A, B], 0, None),
        (["A"], [], 0, None),
    ],
)
def test_a_worker_and_the_system_mean_the_same_adapter_where_that_is_sure(
    names: list[str], adapters: list[DirectMLAdapter], index: int, luid: int | None
) -> None:
    found = adapter_at(index, names, adapters)
    assert (found.name, found.luid) == (names[index], luid)
    assert luid is not None or not found.graphics, "nothing but its name is said of it"


def test_the_numbers_of_properties_are_those_of_the_windows_sdk() -> None:
    """DXCoreAdapterProperty of dxcore_interface.h."""
    assert {one.name: one.value for one in Property} == {
        "INSTANCE_LUID": 0,
        "DRIVER_VERSION": 1,
        "DRIVER_DESCRIPTION": 2,
        "HARDWARE_ID": 3,
        "DEDICATED_ADAPTER_MEMORY": 7,
        "SHARED_SYSTEM_MEMORY": 9,
        "IS_HARDWARE": 11,
        "IS_INTEGRATED": 12,
        "HARDWARE_ID_PARTS": 14,
    }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its library in its own folder")
def test_on_linux_the_library_is_that_of_wsl_and_its_luids_are_a_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    library, asked = FakeDxCore(gpu()), list[str]()

    def load(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(DXCoreCreateAdapterFactory=library.create)

    monkeypatch.setattr(ctypes, "CDLL", load)
    opened = open_dxcore()
    assert opened is not None
    assert [(one.name, one.luid) for one in opened.adapters()] == [("AMD Radeon RX 7800 XT", None)]
    assert asked == ["/usr/lib/wsl/lib/libdxcore.so"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has it")
def test_a_system_without_the_library_has_no_adapters_of_directml(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise OSError(path)

    def older(path: str) -> SimpleNamespace:
        return SimpleNamespace()

    for library in (missing, older):
        monkeypatch.setattr(ctypes, "CDLL", library)
        assert open_dxcore() is None
