"""The power limits that held before ours, in the state folder: what a killed server left behind, the next one puts back."""

import threading
from pathlib import Path

import msgspec
import structlog

from domains.storage import storage_errors

_log = structlog.get_logger()


class LimitBook:
    """By device id, in milliwatts, as NVML counts. For any thread."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: None keeps them in memory alone."""
        self._file = None if folder is None else folder / "power-limits.json"
        self._before_mw = _read(self._file) if self._file else {}
        self._lock = threading.Lock()

    def before(self, device_id: str) -> int | None:
        """What held before our first change; None: we have changed nothing."""
        return self._before_mw.get(device_id)

    def note(self, device_id: str, milliwatts: int) -> bool:
        """The limit is about to be changed; answers whether for the first time. Raises STORAGE_FULL."""
        with self._lock:
            first = device_id not in self._before_mw
            if first:
                self._write(self._before_mw | {device_id: milliwatts})
            return first

    def forget(self, device_id: str) -> None:
        """It holds again. Raises STORAGE_FULL."""
        with self._lock:
            self._write({one: limit for one, limit in self._before_mw.items() if one != device_id})

    def _write(self, limits: dict[str, int]) -> None:
        if self._file is not None:
            beside = self._file.with_suffix(".new")
            with storage_errors(self._file.parent):
                beside.write_bytes(msgspec.json.encode(limits))
                beside.replace(self._file)
        self._before_mw = limits


def _read(file: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("what power limits held before is not known any more", file=file.name, problem=str(error))
        return {}
