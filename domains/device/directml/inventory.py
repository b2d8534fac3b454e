"""Lists the adapters that DirectML may compute on, without a worker or torch."""

from collections.abc import Mapping, Sequence

from domains.device.device import Backend, Device
from domains.device.directml.adapter import directml_device
from domains.device.directml.dxcore import DxCore
from domains.device.threaded_inventory import ThreadedInventory


class DirectMLInventory(ThreadedInventory):
    """DXCore's list, in DirectML's order; the worker reports whether an adapter computes."""

    backend = Backend.DIRECTML

    def __init__(self, dxcore: DxCore, names: Sequence[str] | None = None) -> None:
        """`names`: only these, `directml:0`; None: all."""
        super().__init__("DXCore", names)
        self._dxcore = dxcore

    def _list(self) -> Mapping[str, Device]:
        return {
            f"directml:{index}": directml_device(index, adapter)
            for index, adapter in enumerate(self._dxcore.adapters())
        }
