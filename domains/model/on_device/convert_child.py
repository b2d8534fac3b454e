"""The process that converts a model: `python -m domains.model.on_device.convert_child`.

It reads its order as one line of JSON from standard input, and ends when that is closed. It writes lines of JSON: `Told`
while it works, and an `Ended` at last.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import torch

from domains.errors import DeviceOpsError
from domains.failure import Failure
from domains.model.conversion import ConversionOrder, Ended, Told, Written
from domains.model.model import ModelLayout
from domains.model.on_device.conversion_files import write_others
from domains.model.on_device.conversion_plan import planned
from domains.model.on_device.rewrite import NewFile, Stored, Tally, header_bytes, write_file
from domains.storage import check_space, storage_error, storage_failed
from domains.system_errors import system_error

_TELL_S = 0.1
Tell = Callable[[int, int], None]


def convert(order: ConversionOrder, tell: Tell) -> Written:
    """Write the model. `tell` takes the bytes that are written and those that will be.

    Raises COMPONENT_MISSING, MODEL_CORRUPT, MODEL_INCOMPATIBLE, ILLEGAL_STATE, STORAGE_FULL, STORAGE_FAILED.
    """
    place = Path(order.part)
    with ExitStack() as opened:
        files = planned(order, opened)
        total = sum(_bytes(file) for file in files)
        check_space(place.parent, total)
        tally = Tally(tell=lambda written: tell(written, total))
        if order.layout is not ModelLayout.FILE:
            place.mkdir()
        for file in files:
            path = place / file.path if file.path else place
            path.parent.mkdir(exist_ok=True)
            write_file(path, file.tensors, file.metadata, tally)
        for source in {
            tensor.source.file for file in files for tensor in file.tensors if isinstance(tensor.source, Stored)
        }:
            source.check_unchanged()
        others = write_others(order, place) if order.layout is not ModelLayout.FILE else 0
    return Written(
        converted=tally.converted,
        copied=tally.copied,
        max_absolute_error=tally.max_error if tally.converted else None,
        clamped=tally.clamped,
        written_bytes=tally.written + others,
    )


def _bytes(file: NewFile) -> int:
    return header_bytes(file.tensors, file.metadata) + sum(tensor.size_bytes for tensor in file.tensors)


def main() -> None:
    """Carry out the order."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=ConversionOrder)
    told_s = 0.0

    def tell(written: int, total: int) -> None:
        nonlocal told_s
        if written == total or time.monotonic() - told_s > _TELL_S:
            told_s = time.monotonic()
            _say(Told(written=written, total=total))

    _say(_ended(order, tell))


def _ended(order: ConversionOrder, tell: Tell) -> Ended:
    try:
        threading.Thread(target=_end_with_the_server, daemon=True).start()
        # Leave the other cores to the devices' workers.
        torch.set_num_threads(1)
        return Ended(written=convert(order, tell))
    except DeviceOpsError as error:
        return Ended(failure=Failure.of(error))
    except OSError as error:
        folder = Path(order.part).parent
        return Ended(failure=Failure.of(storage_error(error, folder) or storage_failed(folder, error)))
    except (MemoryError, RuntimeError) as error:
        # The system gave no memory or no thread.
        if (known := system_error(error)) is None:
            raise
        return Ended(failure=Failure.of(known))


def _say(what: Told | Ended) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_server() -> None:
    """A server that died leaves a closed pipe."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
