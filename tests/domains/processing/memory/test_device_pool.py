"""The measurements of workers: the last one stands until the worker ends, and its end is told."""

from domains.memory.measure import MemoryMeasure
from domains.model.loaded_models import LoadedModels
from domains.processing.memory.device_pool import WorkerMemory
from domains.processing.workers.worker import Measured
from tests.domains.processing.scripted_worker import ScriptedWorker, a_device


async def test_nothing_is_told_of_the_memory_of_a_worker_that_has_ended() -> None:
    worker, told = ScriptedWorker(a_device()), list[tuple[str, MemoryMeasure | None]]()
    memory = WorkerMemory(LoadedModels(), lambda _: worker, lambda name, measure: told.append((name, measure)))
    measure = MemoryMeasure(time_s=1.0, total_bytes=10, used_bytes=4)
    worker.say(Measured(measure=measure))
    assert await memory.now("sim-0") == memory.last("sim-0") == measure
    memory.forget("sim-0")
    assert memory.last("sim-0") is None
    assert told == [("sim-0", measure), ("sim-0", None)]
