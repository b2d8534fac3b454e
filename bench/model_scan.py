"""Scan: 2,000 models in the roots, found, recognised and stored; then once more, with nothing changed.

The files have the headers that the tests write: adapters (most of them, as in real folders), components and checkpoints,
with holes for their weights. The peer is the clock: 3 s for the first scan of a process, 0.3 s for the next. The ratio is
the worse of both.
"""

import asyncio
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Spread, result
from domains.model.catalogue import Catalogue
from domains.model.families.sign import Tensors
from domains.model.kind import ModelKind
from domains.model.roots import Roots
from domains.storage import open_database
from tests.domains.model import published
from tests.domains.model.detect import adapters
from tests.domains.model.headers import write_header

FILES = 2000
COLD_S, WARM_S = 3.0, 0.3
RUNS = 3
_SETTLE_S = 2.5
"""A younger file is read again by the next scan: its time cannot tell a change yet."""


def headers() -> list[tuple[int, Tensors]]:
    """One in so many files, and its header."""
    return [
        (50, published.header("sd1_single")),
        (20, published.header("sd1_controlnet")),
        (10, published.header("sd_vae")),
        (4, {"emb_params": (8, 768)}),
        (1, adapters.adapter("sdxl_unet", adapters.kohya, keep=r"down_blocks.*attn2.to_[kv]")),
    ]


def write(root: Path) -> int:
    """Write the files; the number of their tensors."""
    kinds, tensors = headers(), 0
    for number in range(FILES):
        shapes = next(shapes for every, shapes in kinds if number % every == 0)
        write_header(root / f"folder-{number % 40}" / f"model-{number}.safetensors", shapes)
        tensors += len(shapes)
    return tensors


@contextmanager
def _catalogue(root: Path) -> Generator[Catalogue]:
    """As a server that starts with an empty state folder."""
    with tempfile.TemporaryDirectory() as state:
        database = open_database(Path(state))
        try:
            yield Catalogue(database, Roots([root]), "emoji-sd")
        finally:
            database.close()


def scan_s(catalogue: Catalogue) -> float:
    """Seconds of one scan."""
    begin = time.perf_counter()
    report = asyncio.run(catalogue.rescan(lambda progress: None, lambda: False))
    took = time.perf_counter() - begin
    assert len(report.added) + report.unchanged == FILES
    assert all(model.kind is not ModelKind.UNKNOWN for model in catalogue.list())
    return took


def main() -> int:
    """Print the median scans against the limits."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        tensors = write(root)
        time.sleep(_SETTLE_S)
        pairs: list[tuple[float, float]] = []
        for _ in range(RUNS):
            with _catalogue(root) as catalogue:
                pairs.append((scan_s(catalogue), scan_s(catalogue)))
    ratios = sorted(max(cold / COLD_S, warm / WARM_S) for cold, warm in pairs)
    return result(
        "model_scan",
        Spread(median=ratios[len(ratios) // 2], low=ratios[0], high=ratios[-1]),
        target=1.0,
        better="lower",
        peer=f"{COLD_S} s cold, {WARM_S} s warm",
        details={
            "models": FILES,
            "tensors a model": tensors / FILES,
            "cold s": sorted(cold for cold, _ in pairs)[RUNS // 2],
            "warm s": sorted(warm for _, warm in pairs)[RUNS // 2],
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
