"""Loads and unloads again and again: nothing grows, whatever way the model was loaded in.

Tensors and files are counted, not bytes of the process: one that stays after any of the cycles is found.
"""

import gc
from pathlib import Path

import torch

from domains.inference.outcome import RunFinished
from domains.model.execution import AS_USUAL, BY_COMPONENT, BY_LAYER, Execution
from domains.model.model import Model
from tests.domains.inference.on_device.test_in_turns import asked, device, pictures, tick
from tests.domains.inference.on_device.test_simulated import Sim
from tests.domains.inference.on_device.tiny_model import write_tiny_model

WAYS = (AS_USUAL, Execution(offload=BY_COMPONENT), Execution(offload=BY_LAYER))
CYCLES = 30


def held(sim: Sim) -> tuple[int, int, int | None]:
    """Live tensors, open files, and what the device has left."""
    gc.collect()
    tensors = sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
    return tensors, len(list(Path("/proc/self/fd").iterdir())), sim.hardware.room()


def cycle(sim: Sim, model: Model, number: int) -> None:
    sim.loop.load(f"load {number}", model, WAYS[number % len(WAYS)])
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFinished), sim.reports[-1]
    if number < len(WAYS) or number >= CYCLES - len(WAYS):
        pictures(sim, asked(model, steps=1, seeds=(7,)), f"picture {number}")
    sim.loop.unload(model.id)
    sim.loop.resources.forget_prompts()
    sim.reports.clear()


def test_many_loads_leave_every_tensor_and_file_as_before(tmp_path: Path) -> None:
    model, sim = write_tiny_model(tmp_path / "tiny"), device(64 * 2**20)
    for number in range(len(WAYS)):
        cycle(sim, model, number)
    gc.collect()
    gc.freeze()  # Each unload searches for cycles: not among the libraries' objects.
    try:
        before = held(sim)
        for number in range(CYCLES):
            cycle(sim, model, number)
        assert held(sim) == before
    finally:
        gc.unfreeze()
        sim.loop.close()
