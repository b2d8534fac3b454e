"""The engine: advances a set of generations, step by step, on one device. Runs in a worker, with torch.

For the worker process:

    loop = StepLoop("cpu", report)                    # report(job_id: str, event: domains.inference.outcome.Report)
    loop.submit(job_id, Given(model, resolved))       # AlreadyExists if the id runs; returns at once
    loop.load(job_id, model)                          # the same for a run that only loads its model
    loop.stop(job_id, stop)                           # False if it is not running (any more)
    while loop.tick(): …                              # one unit of work; True while work remains
    loop.unload(model_id)                             # bytes given back; ILLEGAL_STATE while a job uses it
    loop.close()                                      # each job still running ends as RunStopped

Everything is called from one thread, the one that ticks; `report` is called in it too, during `tick` and `close`.
A tick is one tensor of a load, one denoising step of one or many jobs, one decoded picture, or a wait: of at most 20 ms
if only encoders are at work, else until the device has finished one more unit.

Jobs of one model and shape share their steps, whatever their samplers, steps, guidance and prompts: `groups.py` says which
and in what order, `pace.py` how many rows at once, by measuring. Jobs join and leave between steps. A job that asks for
exact pictures has forwards of its own.

A job whose unit of work is out of memory gives up what its request permits and does the unit again: `ladder.py`, with the
order in `domains.inference.fallback`. `offloading.py` loads a model again with more of it in host memory, beneath all jobs
that compute with it.

Loading is the first stage of each run whose model is not on the device; jobs of one model share its load, which is
cancelled when the last of them leaves. `load_run.py` has that stage, `resident_models.py` the models.

`StepLoop(…, hardware=…)` replaces the engine's calls to its device: see `hardware` and `simulated`.
`StepLoop(…, stop_of=…)` is asked within a step, where the device computes in the calling thread, whether a job is to
stop; such a step is abandoned.

For each submitted job, `report` gets stages, progress, its loaded model, previews and pictures, then exactly one of
`RunFinished`, `RunFailed`, `RunStopped`, and nothing after it.

The loop: `step_loop` (units of work, in turns), `groups` (who shares a forward), `shared_step` (a step of a group), `pace`,
`keep_on` (abandons a step), `ending` (ends jobs), `resources` (what all runs share), `hardware`, `fence` with `in_flight`
(work that the device has not finished).

One generation: `load_run`, `prepared_run`, `enlarged_run`, `run` (its stages), `model_load` with `resident_models` and
`in_turns`, `attending` and `compiling` (the models), `conditioning` with `prompt_cache`, `blend`, `clip_text` and `words`
(prompts), `prompt_reader` (prompts without encoders), `input_picture`, `enlarging` and `upscaling` (for a second pass),
`trajectory` with `noise`, `solver_state` and `solver_step` (its latents), `detailed_run` with `details` (detail passes),
`detecting` and `face_boxes` (what a detector sees and finds), `checkpoint`, `pictures` and `preview_writer` (files),
`kept_bytes` (reads them), `meter`, `numeric_failures`, `adapters` (LoRAs), `controls` (ControlNets), `image_prompts`
(IP-Adapters), `regions` (prompts of parts of a picture) with `areas` (how much something counts at each place).
`network_pool` with `network_load` has the networks that jobs use beside their models; `guides` gathers what guides one job.

`families` has what is computed of each family, `networks` the networks in our order of operations. What families share:
`batches` with `rows` (one forward for many jobs), `group_reads` with `cross_reads` (what some rows of it read beside the
prompt).

To add a family: one file in `families`, one line in its `table.py`, its modules in `domains.model.on_device.components`.
"""

from domains.inference.on_device.prompt_reader import PromptReader
from domains.inference.on_device.step_loop import StepLoop
from domains.model.on_device import OnDeviceModel

__all__ = ["OnDeviceModel", "PromptReader", "StepLoop"]
