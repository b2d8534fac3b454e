"""A benchmark of a model on a device: what is asked for, and what was measured."""

import msgspec

from domains.failure import Failure
from domains.measurement import LatencySummary
from domains.model.execution import AS_USUAL, Execution

NATIVE = (0, 0)
"""A size that stands for the model's native one."""


class ModelBenchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    model_id: str
    execution: Execution = AS_USUAL
    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height. Empty: the model's native size."""
    batch_sizes: tuple[int, ...] = ()
    """Pictures at once. Empty: 1."""
    steps: int | None = None
    """Denoising steps of a run. None: the sampler's own number."""
    sampler: str = ""
    """Empty: the model's own."""
    warmup_runs: int = 1
    """Runs that are not counted."""
    runs: int = 5
    load_runs: int = 0
    """How often to load the model anew."""


class BenchmarkCase(msgspec.Struct, frozen=True, kw_only=True):
    """One size with one number of pictures."""

    width_px: int
    height_px: int
    images: int
    steps: int
    run: LatencySummary | None = None
    """From prompt to pictures. None: the case failed."""
    step: LatencySummary | None = None
    """From the end of a denoising step to the end of the next one. None: the case failed."""
    peak_device_bytes: int | None = None
    """Highest allocation on the device. None: it cannot be measured."""
    failure: Failure | None = None

    @property
    def images_per_s(self) -> float | None:
        """Pictures a second, from the mean run. None: the case failed."""
        return self.images / self.run.mean_s if self.run is not None and self.run.mean_s else None


class ModelBenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    model_id: str
    model_sha256: str
    device_id: str
    sampler: str
    precisions: tuple[tuple[str, str], ...]
    """(component, precision of its computation, in torch's words)."""
    cases: tuple[BenchmarkCase, ...]
    load: LatencySummary | None
    """None: loading was not measured."""
    warnings: tuple[str, ...]
    """Reasons why the figures are less reliable."""
    device_name: str
    driver_version: str
    libraries: tuple[str, ...]
    start_time_s: float
    """Unix time."""
    duration_s: float
    """Warm-up and loads included."""
    quantization: str = ""
    """How the denoiser's weights were stored in fewer bits (see `Execution`). Empty: they were not."""
