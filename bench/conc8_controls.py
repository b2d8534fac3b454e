"""Eight jobs at once with two LoRAs and a ControlNet each, against diffusers' ControlNet pipeline, one after the other."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

import io
from collections import deque
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
from PIL import Image

from bench.crowd import AT_ONCE, PIXEL_TOLERANCE, Engine, crowd, difference, folder, tiny_model
from bench.lora import write_lora
from bench.measure import interleave, ratio, result, spread
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.loras import ResolvedLora
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import control, given, stripes, write_controlnet
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

ROUNDS = 5
TARGET = 2.5
EDGE_PX = 128
WEIGHT, LORA_WEIGHT = 0.7, 0.5
_theirs: Any = diffusers  # which imports its classes when they are asked for


class Guided(Engine):
    """The engine with the same LoRAs and ControlNet for every job."""

    def __init__(self, model: Model, place: Path) -> None:
        super().__init__(model)
        loaded = self.loop.loaded(model.id)
        self.net = write_controlnet(place / "net", loaded, 8)
        self.loras = [write_lora(place / f"style-{number}.safetensors", loaded.modules["unet"]) for number in (1, 2)]
        self._map = given(self.net, stripes(EDGE_PX, EDGE_PX), place)

    def asked(self, one: ResolvedGeneration) -> ResolvedGeneration:
        """A request with both LoRAs and the ControlNet."""
        loras = tuple(
            ResolvedLora(model_id=lora.id, model_sha256=lora.files[0].sha256, weight=LORA_WEIGHT) for lora in self.loras
        )
        return msgspec.structs.replace(one, controls=(control(self.net, weight=WEIGHT),), loras=loras)

    def make(self, asked: Sequence[ResolvedGeneration], at_once: int = AT_ONCE) -> None:
        """All pictures; the next job begins when one has ended."""
        waiting, running = deque(enumerate(asked)), 0
        while waiting or running:
            while waiting and running < at_once:
                place, one = waiting.popleft()
                self.loop.submit(str(place), Given(self.model, one, controls=(self._map,), loras=tuple(self.loras)))
                running += 1
            self._ended.clear()
            self.loop.tick()
            running -= len(self._ended)


class Diffusers:
    """Its pipeline with the same files, and Pillow's PNG."""

    def __init__(self, model: Model, net: Model, loras: Sequence[Model]) -> None:
        own = reference_pipeline(model).components
        kind = _theirs.StableDiffusionControlNetPipeline
        controlnet = _theirs.ControlNetModel.from_pretrained(net.folder)
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        self._pipe: Any = kind(**{**own, **none}, controlnet=controlnet)
        self._pipe.set_progress_bar_config(disable=True)
        for lora in loras:
            path = Path(lora.folder)
            self._pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=lora.id)
        self._pipe.set_adapters([lora.id for lora in loras], [LORA_WEIGHT] * len(loras))
        self._map = Image.fromarray(stripes(EDGE_PX, EDGE_PX).numpy())
        self.files: list[bytes] = []

    def make(self, asked: Sequence[ResolvedGeneration]) -> None:
        """All pictures, one after the other."""
        self.files = []
        own = self._pipe.scheduler
        for one in asked:
            scheduler, options = CLASSES[one.sampler]
            self._pipe.scheduler = scheduler.from_config(own.config, **options)
            picture = self._pipe(
                one.prompt,
                image=self._map,
                controlnet_conditioning_scale=WEIGHT,
                num_inference_steps=one.steps,
                guidance_scale=one.guidance_scale,
                generator=torch.Generator().manual_seed(one.seeds[0]),
            ).images[0]
            file = io.BytesIO()
            picture.save(file, "PNG")
            self.files.append(file.getvalue())
        self._pipe.scheduler = own


def main() -> int:
    """Print how many times faster ours is."""
    with folder() as place:
        model = tiny_model(Path(place))
        ours = Guided(model, Path(place))
        theirs = Diffusers(model, ours.net, ours.loras)
        asked = [ours.asked(one) for one in crowd(model, width_px=EDGE_PX, height_px=EDGE_PX)]
        ours.make(asked)
        theirs.make(asked)
        worst = max(difference(ours.files[str(place)], other) for place, other in enumerate(theirs.files))
        samples = interleave({"engine": lambda: ours.make(asked), "diffusers": lambda: theirs.make(asked)}, ROUNDS)
    return result(
        "conc8_controls",
        ratio(samples["diffusers"], samples["engine"]),
        target=TARGET,
        peer=f"diffusers {version('diffusers')} in process + Pillow {version('pillow')} PNG, one after the other",
        conditions={"pictures equal": worst <= PIXEL_TOLERANCE},
        details={
            "largest pixel difference": worst,
            "seconds of 8 jobs": spread(samples["engine"]),
            "diffusers seconds": spread(samples["diffusers"]),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
