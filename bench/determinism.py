"""Exact requests alone and in a crowd: identical files, all of them. The others' largest difference is told beside it."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

from bench.crowd import AT_ONCE, PIXEL_TOLERANCE, Engine, crowd, difference, folder, tiny_model
from bench.measure import Spread, result
from domains.inference.generation import Determinism
from tests.domains.inference.on_device.requests import request

PICTURES = 32


def main() -> int:
    """Print the share of exact pictures whose bytes do not depend on the company."""
    with folder() as place:
        engine = Engine(tiny_model(Path(place)))
        fast = crowd(engine.model, PICTURES)
        exact = Determinism.EXACT
        asked = [one if n % 2 else request(engine.model, one, determinism=exact) for n, one in enumerate(fast)]
        engine.make(asked, 1)
        alone = dict(engine.files)
        engine.make(asked, AT_ONCE)
        together = engine.files
        engine.loop.close()
    same = [alone[str(n)] == together[str(n)] for n in range(0, PICTURES, 2)]
    worst = max(difference(alone[str(n)], together[str(n)]) for n in range(1, PICTURES, 2))
    share = sum(same) / len(same)
    return result(
        "determinism",
        Spread(median=share, low=share, high=share),
        target=1.0,
        peer="the same requests alone",
        conditions={"other pictures within the tolerance": worst <= PIXEL_TOLERANCE},
        details={"exact pictures": len(same), "largest pixel difference of the others": worst},
    )


if __name__ == "__main__":
    raise SystemExit(main())
