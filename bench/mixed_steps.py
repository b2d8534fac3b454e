"""Requests of 10 to 30 steps: jobs that come and go between steps, against batches of 8 as long as their longest."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

from importlib.metadata import version
from pathlib import Path

from bench.crowd import AT_ONCE, PIXEL_TOLERANCE, Diffusers, Engine, crowd, difference, folder, tiny_model
from bench.measure import interleave, ratio, result, spread

ROUNDS = 5
PICTURES = 16
TARGET = 1.25


def main() -> int:
    """Print how many times faster ours is."""
    with folder() as place:
        model = tiny_model(Path(place))
        ours, theirs = Engine(model), Diffusers(model)
        asked = crowd(model, PICTURES)
        theirs.make(asked)
        ours.make(asked)
        worst = max(difference(ours.files[str(n)], file) for n, file in enumerate(theirs.files))
        samples = interleave(
            {"engine": lambda: ours.make(asked), "diffusers": lambda: theirs.make(asked, AT_ONCE)}, ROUNDS
        )
        ours.loop.close()
    return result(
        "mixed_steps",
        ratio(samples["diffusers"], samples["engine"]),
        target=TARGET,
        peer=f"diffusers {version('diffusers')} pipeline, batches of {AT_ONCE} as long as their longest request",
        conditions={"pictures equal those made one by one": worst <= PIXEL_TOLERANCE},
        details={
            "pictures": PICTURES,
            "largest pixel difference": worst,
            "engine seconds": spread(samples["engine"]),
            "diffusers seconds": spread(samples["diffusers"]),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
