"""Writes and reads patterns through the free memory, to find stuck bits and aliased addresses."""

import time

import torch
from torch import Tensor

from domains.amounts import bytes_told, compared
from domains.device.health import Verdict
from domains.device.on_device.free_memory import give_back, wait_for
from domains.device.on_device.trial import CheckResult, Trial, rate, seconds, size
from domains.errors import ErrorReason, ResourceExhausted

_WORD_BYTES = 8
_PIECE_BYTES = 256 * 2**20
_SHARE = 0.9
"""Share of the free memory; the rest is for the comparison and for other processes."""
_HOST_LIMIT_BYTES = 256 * 2**20
"""Limit for a device in host memory, which the operating system manages."""
_PATTERNS = {"0x00": 0x00, "0xFF": 0xFF, "0x55": 0x55, "0xAA": 0xAA}
ADDRESS = "address"
"""Each word holds its own number, which finds two addresses for one word."""


def memory_patterns(trial: Trial, limit_bytes: int | None = None) -> CheckResult:
    """Write each pattern to all memory, then read it back. `limit_bytes`: test at most so much.

    Raises DEVICE_OUT_OF_MEMORY if not even one piece can be allocated.
    """
    give_back(trial.device)
    free = trial.free_bytes()
    begin = time.perf_counter()
    pieces: list[Tensor] = []
    try:
        pieces = _take(trial, _wanted(trial.device, free, limit_bytes))
        tried = sum(piece.numel() for piece in pieces) * _WORD_BYTES
        wrong = next(filter(None, (_try(trial, pieces, name) for name in (*_PATTERNS, ADDRESS))), "")
    finally:
        pieces.clear()
        give_back(trial.device)
    took = time.perf_counter() - begin
    moved = tried * 2 * (len(_PATTERNS) + 1)
    measurements = (size("tested_bytes", tried), size("free_bytes", free), seconds("patterns", took))
    if wrong:
        return CheckResult(verdict=Verdict.UNHEALTHY, message=wrong, measurements=measurements)
    held = f"{bytes_told(tried)} of {bytes_told(free)} that were free"
    message = f"{held} held each of {len(_PATTERNS) + 1} patterns, as expected"
    return CheckResult(
        verdict=Verdict.HEALTHY, message=message, measurements=(*measurements, rate("pattern_traffic", moved, took))
    )


def _wanted(device: torch.device, free: int, limit_bytes: int | None) -> int:
    limits = [int(free * _SHARE)]
    if device.type != "cuda":
        limits.append(_HOST_LIMIT_BYTES)
    if limit_bytes is not None:
        limits.append(limit_bytes)
    return max(min(limits), _WORD_BYTES)


def _take(trial: Trial, wanted_bytes: int) -> list[Tensor]:
    """Allocate pieces and hold them all. If other processes take memory meanwhile, there are fewer pieces."""
    pieces: list[Tensor] = []
    for offset in range(0, wanted_bytes, _PIECE_BYTES):
        trial.raise_if_stopped()
        words = min(_PIECE_BYTES, wanted_bytes - offset) // _WORD_BYTES
        try:
            pieces.append(torch.empty(words, dtype=torch.int64, device=trial.device))
        except torch.cuda.OutOfMemoryError as error:
            if not pieces:
                message = "needed {}; {} are available".format(*compared(words * _WORD_BYTES, trial.free_bytes()))
                raise ResourceExhausted(message, ErrorReason.DEVICE_OUT_OF_MEMORY) from error
            # Leaves room for the comparison.
            pieces.pop()
            break
    return pieces


def _try(trial: Trial, pieces: list[Tensor], name: str) -> str:
    """What is wrong (empty: nothing). All pieces are written before any is read."""
    first = 0
    for piece in pieces:
        trial.raise_if_stopped()
        _write(piece, name, first)
        first += piece.numel()
    wait_for(trial.device)
    first = 0
    for piece in pieces:
        trial.raise_if_stopped()
        if wrong := _read(trial.corrupt(piece), name, first):
            return wrong
        first += piece.numel()
    return ""


def _write(piece: Tensor, name: str, first: int) -> None:
    if name == ADDRESS:
        torch.arange(first, first + piece.numel(), out=piece)
    else:
        piece.fill_(_word(name))


def _read(piece: Tensor, name: str, first: int) -> str:
    differs = piece != (_address(piece, first) if name == ADDRESS else _word(name))
    if not bool(differs.any()):
        return ""
    place = int(differs.to(torch.uint8).argmax())
    expected = first + place if name == ADDRESS else _word(name)
    found = int(piece[place])
    return (
        f"pattern {name}: {int(differs.sum())} words differ, the first at byte {(first + place) * _WORD_BYTES}: "
        f"found 0x{found & (2**64 - 1):016x}, expected 0x{expected & (2**64 - 1):016x}"
    )


def _address(piece: Tensor, first: int) -> Tensor:
    return torch.arange(first, first + piece.numel(), dtype=torch.int64, device=piece.device)


def _word(name: str) -> int:
    """The byte eight times, as a signed number."""
    return int.from_bytes(bytes([_PATTERNS[name]]) * _WORD_BYTES, "little", signed=True)
