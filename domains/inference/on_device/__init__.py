"""The engine: advances a set of generations, step by step, on one device. Runs in a worker, with torch.

For the worker process:

    loop = StepLoop("cpu", report)                    # report(job_id: str, event: domains.inference.outcome.Report)
    loaded = loop.load(model, precision="", progress=lambda done, total: …, cancelled=lambda: False)
    loop.submit(job_id, loaded, resolved)             # AlreadyExists if the id runs; returns at once
    loop.stop(job_id, stop)                           # False if it is not running (any more)
    while loop.tick(): …                              # one unit of work for one job; True while work remains
    loop.unload(model_id)                             # bytes given back; ILLEGAL_STATE while a job uses it
    loop.close()                                      # each job still running ends as RunStopped

Everything is called from one thread, the one that ticks; `report` is called in it too, during `tick` and `close`.
`load` blocks, calls `progress` and `cancelled` between tensors, raises `LoadCancelled` or a DeviceOpsError, and returns
the model at once if it is already there. A tick is one denoising step, one decoded picture, or a wait: of at most 20 ms
if only encoders are at work, else until the device has finished one more unit.

`StepLoop(…, hardware=…)` puts something between the engine and its device: see `hardware` and `simulated`.
`StepLoop(…, stop_of=…)` is asked within a step, where the device computes in the calling thread, whether a job is to
stop; such a step is abandoned.

For each submitted job, `report` gets stages, progress, previews and pictures, then exactly one of `RunFinished`,
`RunFailed`, `RunStopped`, and nothing after it.

To add a family: one file beside `sd1.py`, one line in `families.py`, its modules in `domains.model.on_device.components`.
"""

from domains.inference.on_device.step_loop import StepLoop
from domains.model.on_device import LoadCancelled, OnDeviceModel

__all__ = ["LoadCancelled", "OnDeviceModel", "StepLoop"]
