"""NVML calls: each returns a value, or None if this GPU, driver or user has none.

A call that this GPU or driver does not support is not repeated until the driver is opened again: it would fail again.
"""

import threading
from types import ModuleType
from typing import Any

import pynvml
import structlog

from domains.errors import ErrorReason, InternalError

_log = structlog.get_logger()


class Nvml:
    """The NVML library, opened at the first call. Thread-safe."""

    def __init__(self, driver: ModuleType = pynvml) -> None:
        """`driver`: a module with pynvml's functions and constants."""
        self.names: Any = driver
        self.error: type[Exception] = driver.NVMLError
        self._lock = threading.Lock()
        self._open = False
        self._handles: dict[str, Any] = {}
        self._unknown: set[tuple[str, str]] = set()
        self._lost = self._codes("GPU_IS_LOST")
        self._gone = self._codes("GPU_IS_LOST", "NOT_FOUND", "GPU_NOT_FOUND")
        self._never = self._codes("NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "ARGUMENT_VERSION_MISMATCH", "DEPRECATED")
        self._absent = self._codes("LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED")
        self.refused = self._codes("NO_PERMISSION")

    def _codes(self, *names: str) -> frozenset[int]:
        found = (getattr(self.names, f"NVML_ERROR_{name}", None) for name in names)
        return frozenset(code for code in found if code is not None)

    def open(self) -> bool:
        """Open the library; returns whether there is a driver. Raises DRIVER_ERROR if the driver fails."""
        with self._lock:
            if self._open:
                return True
            try:
                self.names.nvmlInit()
            except self.error as error:
                if code(error) in self._absent:
                    return False
                raise InternalError(
                    f"NVIDIA's driver cannot be asked: {error}; is its library of the same version as the kernel module?",
                    ErrorReason.DRIVER_ERROR,
                ) from error
            self._open = True
            return True

    def close(self) -> None:
        """Close the library; the next call opens it again and sees devices that appeared or vanished."""
        with self._lock:
            # New objects: a call in flight must not store its old result among new ones.
            self._handles, self._unknown = {}, set()
            if self._open:
                self._open = False
                try:
                    self.names.nvmlShutdown()
                except self.error as error:
                    _log.info("the NVIDIA driver did not close cleanly", error=str(error))

    def handle(self, uuid: str, pci_bus_id: str) -> Any:
        """The GPU's handle by UUID, else by PCI bus id. Raises NVML's own error."""
        key, handles = uuid or pci_bus_id, self._handles
        if key not in handles:
            handles[key] = self._find(uuid, pci_bus_id)
        return handles[key]

    def _find(self, uuid: str, pci_bus_id: str) -> Any:
        tries = [(self.names.nvmlDeviceGetHandleByUUID, uuid)] if uuid else []
        if pci_bus_id:
            tries.append((self.names.nvmlDeviceGetHandleByPciBusId, pci_bus_id))
        problem: Exception = self.error(self.names.NVML_ERROR_INVALID_ARGUMENT)
        for find, name in tries:
            try:
                # Older bindings pass the name to C unchanged.
                return find(name.encode())
            except self.error as error:
                problem = error
        raise problem

    def ask(self, key: str, name: str, *arguments: Any) -> Any:
        """The result of `nvml<name>`, None if there is none. Raises NVML's error only if the GPU is gone.

        `key` names the GPU, so that an unsupported call is not repeated for it.
        """
        call = getattr(self.names, f"nvml{name}", None)
        if call is None or (key, f"{name}{arguments[1:]}") in self._unknown:
            return None
        try:
            return call(*arguments)
        except self.error as error:
            # Here NOT_FOUND means the figure, not the GPU.
            if code(error) in self._lost:
                raise
            if code(error) in self._never:
                self._unknown.add((key, f"{name}{arguments[1:]}"))
            return None

    def is_gone(self, error: Exception) -> bool:
        """Whether the error says that the GPU is gone."""
        return code(error) in self._gone

    def constant(self, name: str) -> int | None:
        """The value of `NVML_<name>`; None: this version of the binding has none."""
        return getattr(self.names, f"NVML_{name}", None)


def code(error: Any) -> int:
    """NVML's number of one of its errors."""
    return error.value


def text(answer: Any) -> str:
    """A string from the driver; empty: none. Older bindings return bytes."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer or "")
