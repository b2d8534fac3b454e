"""Python imports this in each process that a traced test starts: it notes which functions are called, and for which test.

Beside it lie `now`, with the number of the test that runs, and `calls`, to which it adds a line for each function's first
call in a test.
"""

import inspect
import mmap
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType

_HERE = Path(__file__).parent
_PREFIX = f"{_HERE.parent}/"
_FOLDERS = (f"{_PREFIX}domains/", f"{_PREFIX}server/")

with (_HERE / "now").open("rb") as _file:
    _now = mmap.mmap(_file.fileno(), 4, prot=mmap.PROT_READ)
_calls = os.open(_HERE / "calls", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
_known: dict[int, tuple[CodeType, str]] = {}
"""By the id of the code, whose hash takes as long as a call: the code, and its file where it counts."""
_noted: dict[int, bytes] = {}


def _trace(frame: FrameType, event: str, _argument: object) -> None:
    """Called for each call of a function. Returns no tracer of lines, which would be slow."""
    code = frame.f_code
    known = _known.get(id(code))
    if known is None:
        # The body of a module or class runs with every import of it, and says nothing.
        counts = code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(_FOLDERS)
        known = _known[id(code)] = (code, code.co_filename[len(_PREFIX) :] if counts else "")
    if path := known[1]:
        now = _now[:4]
        if _noted.get(id(code)) != now:
            _noted[id(code)] = now
            with suppress(OSError):  # a decoder of pictures may write no file
                os.write(_calls, f"{int.from_bytes(now, 'little')}\t{path}\t{code.co_qualname}\n".encode())


threading.settrace(_trace)
sys.settrace(_trace)
