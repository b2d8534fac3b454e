"""Converts a pickle of tensors (.ckpt, .pt, .pth, .bin) to safetensors, in a process that is thrown away.

The server never opens a pickle. This runs where a person asks for it: the process has an empty environment, no network where
the system allows that, and limits of memory, CPU time and file size; it reads with `weights_only`, which runs no code of the
file.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec

from domains.errors import (
    DataLoss,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotSupported,
    ResourceExhausted,
    Violation,
)
from domains.model.component_folder import is_pickle
from domains.model.publish import discard, part_of, publish, taken
from domains.model.weights_model import SUFFIX

SCRIPT = Path(__file__).with_name("on_device") / "unpickle.py"
"""What the process runs."""
_LOOK_S = 0.1
"""Seconds between reports of progress."""


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion made."""

    path: Path
    tensors: int
    left_out: int
    """Entries that are no tensors: the state of an optimizer, numbers of steps."""
    written_bytes: int


def convert_pickle(
    source: Path,
    destination: Path | None = None,
    *,
    tell: Callable[[int, int], None] = lambda written, total: None,
) -> Converted:
    """Write the tensors of `source` as safetensors, beside it unless a destination is given. Overwrites nothing.

    `tell` takes the bytes written and about how many there will be; what it raises cancels the conversion. Raises
    INVALID_FIELD (no pickle), PATH_NOT_FOUND, ID_TAKEN, MODEL_INCOMPATIBLE (it holds other things than tensors, which could
    run code), MODEL_CORRUPT, STORAGE_FULL, FEATURE_NOT_INSTALLED (this torch reads no pickle safely). Nothing is left of a
    conversion that does not succeed.
    """
    target = destination or source.with_suffix(SUFFIX)
    _check(source, target)
    part = part_of(target, uuid4().hex[:8])
    try:
        answer = _run(source, part, tell)
        if "error" in answer:
            raise _refusal(source, answer)
        size = part.stat().st_size
        publish(part, target)
    finally:
        discard(part)
    return Converted(
        path=target, tensors=int(str(answer["tensors"])), left_out=int(str(answer["left_out"])), written_bytes=size
    )


def _check(source: Path, target: Path) -> None:
    if not is_pickle(source.name):
        text = f"{source.name} is no .ckpt, .pt, .pth or .bin file"
        raise InvalidRequest([Violation(field="source", message=text)])
    if target.suffix != SUFFIX:
        raise InvalidRequest([Violation(field="destination", message=f"{target.name} does not end in {SUFFIX}")])
    if not source.is_file():
        raise NotFound(f"there is no file {source}", ErrorReason.PATH_NOT_FOUND, path=str(source))
    if os.path.lexists(target):
        raise taken(target)


def _run(source: Path, part: Path, tell: Callable[[int, int], None]) -> Mapping[str, object]:
    """The answer of the process."""
    command = [sys.executable, "-I", str(SCRIPT), str(source.absolute()), str(part.absolute())]
    with subprocess.Popen(
        command, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while True:
                tell(part.stat().st_size if part.exists() else 0, source.stat().st_size)
                with suppress(subprocess.TimeoutExpired):
                    out, _ = process.communicate(timeout=_LOOK_S)
                    break
        finally:
            process.kill()
    try:
        return json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        # A limit ended the process. An undamaged file of this size stays below the limits.
        return {"error": "damaged", "message": f"reading it ended with status {process.returncode}"}


def _environment() -> dict[str, str]:
    """An empty environment, except on Windows, which loads no library without SYSTEMROOT."""
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}


def _refusal(source: Path, answer: Mapping[str, object]) -> DeviceOpsError:
    message, file = str(answer["message"]), source.name
    match answer["error"]:
        case "old":
            text = f"pickles are read by torch 2.6 or later alone, and this environment has {message}; use the main one"
            return NotSupported(text, ErrorReason.FEATURE_NOT_INSTALLED, installed=message)
        case "unsafe":
            text = f"{source.name} holds other things than tensors, which could run code; fetch it as safetensors: {message}"
            return FailedPrecondition(text, ErrorReason.MODEL_INCOMPATIBLE, file=file)
        case "empty":
            return FailedPrecondition(f"{source.name}: {message}", ErrorReason.MODEL_INCOMPATIBLE, file=file)
        case "disk":
            text = f"{source.name} cannot be written as safetensors; free disk space: {message}"
            return ResourceExhausted(text, ErrorReason.STORAGE_FULL, file=file)
        case _:
            return DataLoss(
                f"{source.name} cannot be read; replace it: {message}", ErrorReason.MODEL_CORRUPT, file=file
            )
