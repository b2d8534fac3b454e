"""Makes the last report of a job, one function a kind. Each frees the job's tensors before it measures."""

import time
from contextlib import suppress

import torch

from domains.errors import DeviceOpsError
from domains.inference.on_device.load_run import LoadRun
from domains.inference.outcome import RunFailed, RunFinished, RunStopped
from domains.stop import Stop


def finished(job: LoadRun) -> RunFinished:
    """The report after every picture was reported."""
    job.release()
    return RunFinished(receipt=job.meter.receipt())


def failed(job: LoadRun, error: DeviceOpsError) -> RunFailed:
    """The report after an error."""
    # A corrupted context raises even on a wait; the end of its process frees everything.
    with suppress(RuntimeError):
        _free(job)
    return RunFailed(reason=error.reason, message=error.message, facts=dict(error.facts), receipt=job.meter.receipt())


def stopped(job: LoadRun, stop: Stop) -> RunStopped:
    """The report after a request to stop. The latency ends when the device has freed the job's tensors."""
    stage = job.stage
    freed = _free(job)
    latency_s = time.perf_counter() - job.stop_asked_at
    return RunStopped(stop=stop, stage=stage, latency_s=latency_s, freed_bytes=freed, receipt=job.meter.receipt())


def _free(job: LoadRun) -> int:
    """Release a job's tensors: the allocator's difference on CUDA, the sum of their sizes elsewhere."""
    if job.device.type == "cuda":
        before = torch.cuda.memory_allocated(job.device)
        job.release()
        return before - torch.cuda.memory_allocated(job.device)
    held = job.held_bytes()
    job.release()
    return held
