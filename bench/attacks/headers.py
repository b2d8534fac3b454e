"""Mutated safetensors headers and configs of models, read as a scan reads them, on a thread; the event loop's lag meanwhile.

python -m bench.attacks.headers [HEADERS] [CONFIGS]      100,000 and 10,000 where nothing is given

Limits: 1 s and 64 MiB a file, a lag of 50 ms. What both we and the library of safetensors open must have the same
tensors.
"""

import asyncio
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bench.attacks.harness import tell
from bench.attacks.pictures import Lag
from domains.errors import DataLoss
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.roots import Roots
from domains.model.safetensors_header import read_header
from tests.domains.model.folders import write_model
from tests.domains.model.headers import write_published

HEADERS, CONFIGS = 100_000, 10_000
_SEED = 17
_PUBLISHED = ("sd1_t2i_adapter", "clip_l_text_encoder", "sd1_controlnet")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes: of a bit, of a number, by cutting, by repeating."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.randint(1, 60))
        match chance.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at:end] = chance.choice((b"0", b"-1", b"9" * 20, b"1e999", b'"', b"[", b"{", b"null"))
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = bytes(changed[at:end]) * chance.randint(1, 50)
            case _:
                changed[at:end] = chance.randbytes(end - at)
    return bytes(changed)


class Slowest:
    """The slowest file, and what was made of all."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.verdicts: Counter[str] = Counter()
        self.differ: list[int] = []
        """Numbers of files that the reference reads otherwise."""

    def took(self, begin: float, verdict: str) -> None:
        """Count one file."""
        self.seconds = max(self.seconds, time.perf_counter() - begin)
        self.verdicts[verdict] += 1

    def figures(self) -> dict[str, object]:
        """For the report."""
        return {"slowest s": self.seconds, "verdicts": self.verdicts, "read otherwise": self.differ[:10]}


def headers(folder: Path, count: int) -> Slowest:
    """Read mutated headers, each with as many bytes of weights as the original has, as a hole."""
    found, path = Slowest(), folder / "mutated.safetensors"
    originals = [write_published(folder / f"{name}.safetensors", name) for name in _PUBLISHED]
    for number in range(count):
        chance = random.Random(f"{_SEED} {number}")
        original = chance.choices(originals, (20, 4, 1))[0]
        with original.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = mutated(file.read(size), chance)
        data_bytes = original.stat().st_size - 8 - size
        with path.open("wb") as file:
            file.write((len(text) if chance.random() < 0.9 else chance.getrandbits(64)).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + data_bytes)
        begin = time.perf_counter()
        try:
            header = read_header(path)
        except DataLoss as error:
            header = None
            found.took(begin, error.reason)
        else:
            found.took(begin, "read")
        names = _reference(path)
        if names is not None and header is None:
            # For instance a key that comes twice, or a name of more than 512 characters.
            found.verdicts["refused, and opened by the library"] += 1
        elif names is not None and header is not None and names != {tensor.name for tensor in header.tensors}:
            found.differ.append(number)
    return found


def _reference(path: Path) -> set[str] | None:
    """The names of the tensors, as the library reads them. None: it does not open the file."""
    try:
        opened: Any = safe_open(path, "np")
        with opened as reference:
            return set(reference.keys())
    except (SafetensorError, OSError, UnicodeError, OverflowError):
        return None


def configs(folder: Path, count: int) -> Slowest:
    """Read a model of which one config after the other is mutated."""
    found, model = Slowest(), write_model(folder / "model").resolve()
    files = {path: path.read_bytes() for path in sorted(model.rglob("*.json"))}
    inside, fingerprints = Roots([folder.resolve()]).inside, Fingerprints()
    for number in range(count):
        chance = random.Random(f"{_SEED} {number}")
        path = chance.choice(list(files))
        path.write_bytes(mutated(files[path], chance))
        begin = time.perf_counter()
        found.took(begin, read_folder(model, "it", inside, fingerprints).state.value)
        found.seconds = max(found.seconds, time.perf_counter() - begin)
        path.write_bytes(files[path])
    return found


async def attack(folder: Path, header_count: int, config_count: int) -> dict[str, object]:
    """Read all on a thread, as a scan does."""
    lag, before = Lag(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watching = asyncio.create_task(lag.watch())
    figures = {
        "headers": (await asyncio.to_thread(headers, folder, header_count)).figures(),
        "configs": (await asyncio.to_thread(configs, folder, config_count)).figures(),
    }
    watching.cancel()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {**figures, "memory grew by MiB": grown, "loop lag s": lag.worst_s}


def main() -> int:
    """Print the figures."""
    counts = [int(text) for text in sys.argv[1:]] or [HEADERS, CONFIGS]
    with tempfile.TemporaryDirectory() as folder:
        return tell("headers", **asyncio.run(attack(Path(folder), *counts)))


if __name__ == "__main__":
    raise SystemExit(main())
