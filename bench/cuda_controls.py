"""On a machine with a CUDA device: SDXL with a ControlNet and two LoRAs at 1024², random weights, against diffusers.

Same files, same prompt, same noise, bfloat16. It prints the time of a picture and of eight jobs at once, the peak of memory,
and what the plan says: the peak of the model alone with what the ControlNet and the LoRAs add. Not part of the CPU set.
"""

import gc
import io
import json
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import numpy as np
import torch
from PIL import Image

from bench.cuda_families import SIZES, write_family
from bench.cuda_load import Loop
from bench.large_model import write_weights
from bench.lora import write_lora
from bench.measure import ratio, result, spread
from domains.inference.generation import ResolvedGeneration, ResolvedLora
from domains.inference.given import Given
from domains.inference.outcome import ImageReady, RunFinished
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import control, control_model, given, stripes
from tests.domains.inference.on_device.requests import request

ROUNDS = 3
JOBS = 8
EDGE_PX, STEPS, GUIDANCE = 1024, 20, 5.0
WEIGHT, LORA_WEIGHT = 0.5, 0.6
PLAN_TOLERANCE = 0.05
_DTYPE = torch.bfloat16
_theirs: Any = diffusers  # which imports its classes when they are asked for


def write_net(folder: Path) -> Model:
    """A ControlNet for SDXL at its published size."""
    unet = dict(SIZES["sdxl"].parts["unet"][1])
    for name in ("up_block_types", "sample_size"):
        unet.pop(name, None)
    config = unet | {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
    with torch.device("meta"):
        net = _theirs.ControlNetModel(**config)
    block = torch.randn(2**24, generator=torch.Generator().manual_seed(3)).mul_(0.02).to(_DTYPE)
    folder.mkdir()
    file = folder / "diffusion_pytorch_model.safetensors"
    write_weights(file, net, block.view(torch.uint8).numpy().tobytes(), _DTYPE)
    (folder / "config.json").write_text(json.dumps({**net.config, "_class_name": "ControlNetModel"}))
    return control_model(folder)


class Ours:
    """This engine with the model, the ControlNet and the LoRAs."""

    def __init__(self, root: Path, model: Model, net: Model, loras: list[Model]) -> None:
        self.loop = Loop()
        self._model, self._net, self._loras = model, net, loras
        self._map = given(net, stripes(EDGE_PX, EDGE_PX), root)
        size: dict[str, Any] = {"width_px": EDGE_PX, "height_px": EDGE_PX, "steps": STEPS, "guidance_scale": GUIDANCE}
        self.plain = request(model, None, **size, **SIZES["sdxl"].sampler)
        applied = tuple(
            ResolvedLora(model_id=one.id, model_sha256=one.files[0].sha256, weight=LORA_WEIGHT) for one in loras
        )
        self.guided = msgspec.structs.replace(self.plain, controls=(control(net, weight=WEIGHT),), loras=applied)

    def submit(self, name: str, asked: ResolvedGeneration) -> None:
        """Begin a job."""
        more: dict[str, Any] = {"controls": (self._map,), "loras": tuple(self._loras)} if asked.controls else {}
        self.loop.loop.submit(name, Given(self._model, asked, **more))

    def took(self, name: str, asked: ResolvedGeneration) -> float:
        """Seconds of one picture."""
        begin = time.perf_counter()
        self.submit(name, asked)
        return self.loop.ended(name)[0] - begin

    def peak(self, name: str, asked: ResolvedGeneration) -> tuple[float, int]:
        """Seconds and peak of one picture."""
        self.loop.loop.peak_bytes = 0
        return self.took(name, asked), self.loop.loop.peak_bytes

    def together(self, asked: ResolvedGeneration) -> float:
        """Seconds of eight jobs at once."""
        begin, names = time.perf_counter(), {f"one of {number}" for number in range(JOBS)}
        for name in names:
            self.submit(name, asked)
        while names - {name for _, name, report in self.loop.reports if isinstance(report, RunFinished)}:
            self.loop.loop.tick()
        return time.perf_counter() - begin

    def picture(self, name: str) -> Any:
        """Pixels of a job's picture."""
        found = next(r.data for _, job, r in self.loop.reports if job == name and isinstance(r, ImageReady))
        return np.asarray(Image.open(io.BytesIO(found)).convert("RGB"), np.int16)

    def measured(self) -> dict[str, Any]:
        """Times, peaks, and the plan."""
        self.took("warm up", self.plain)
        self.took("warm up guided", self.guided)
        plain = self.peak("plain", self.plain)
        peaks = [self.peak(f"guided {number}", self.guided) for number in range(ROUNDS)]
        added = 2 * sum(part.parameter_count for part in self._net.components)
        # The factors of a job's LoRAs lie on the device; of a LoRA in float32, half of its bytes in bfloat16.
        added += sum(model.size_bytes // 2 for model in self._loras)
        found = {
            "picture_s": [took for took, _ in peaks],
            "plain_s": plain[0],
            "jobs_s": self.together(self.guided),
            "peak_gb": max(peak for _, peak in peaks) / 1e9,
            "planned_gb": (plain[1] + added) / 1e9,
            "plain_peak_gb": plain[1] / 1e9,
        }
        left = self.loop.loop.resources.control_bytes()
        found["left of the ControlNet"] = sum(left.values())
        return found

    def close(self) -> None:
        """Free everything."""
        self.loop.loop.unload(self._model.id)
        self.loop.loop.close()


def theirs(folder: Path, net: Model, loras: list[Model]) -> tuple[dict[str, Any], Any]:
    """The same of diffusers' pipeline, eager, with its picture."""
    controlnet = _theirs.ControlNetModel.from_pretrained(net.folder, torch_dtype=_DTYPE)
    kind = _theirs.StableDiffusionXLControlNetPipeline
    pipe: Any = kind.from_pretrained(folder, controlnet=controlnet, torch_dtype=_DTYPE, add_watermarker=False)
    pipe = pipe.to("cuda")
    pipe.set_progress_bar_config(disable=True)
    for lora in loras:
        path = Path(lora.folder)
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=lora.id)
    pipe.set_adapters([lora.id for lora in loras], [LORA_WEIGHT] * len(loras))
    guide = Image.fromarray(stripes(EDGE_PX, EDGE_PX).numpy())
    noise = torch.randn((1, 4, EDGE_PX // 8, EDGE_PX // 8), generator=torch.Generator().manual_seed(7))

    def picture() -> tuple[float, Any]:
        begin = time.perf_counter()
        made = pipe(
            prompt="owl",
            image=guide,
            controlnet_conditioning_scale=WEIGHT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise.to("cuda", _DTYPE),
        ).images[0]
        torch.cuda.synchronize()
        return time.perf_counter() - begin, made

    picture()
    torch.cuda.reset_peak_memory_stats()
    times = [picture() for _ in range(ROUNDS)]
    found = {
        "picture_s": [took for took, _ in times],
        "jobs_s": statistics.median(took for took, _ in times) * JOBS,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }
    return found, np.asarray(times[-1][1], np.int16)


def main() -> int:
    """Print the ratio theirs / ours of a picture's time; higher is better."""
    root = Path(tempfile.mkdtemp(prefix="cuda-controls-"))
    torch.cuda.init()
    try:
        model, net = write_family(root / "sdxl", SIZES["sdxl"]), write_net(root / "edges")
        with torch.device("meta"):
            unet = _theirs.UNet2DConditionModel(**SIZES["sdxl"].parts["unet"][1])
        loras = [write_lora(root / f"style-{number}.safetensors", unet) for number in (1, 2)]
        engine = Ours(root, model, net, loras)
        mine = engine.measured()
        own, plain = engine.picture("guided 0"), engine.picture("plain")
        engine.close()
        del engine
        gc.collect()
        torch.cuda.empty_cache()
        peer, other = theirs(root / "sdxl", net, loras)
    finally:
        shutil.rmtree(root)
    planned = abs(mine["peak_gb"] / mine["planned_gb"] - 1)
    times = ratio(peer["picture_s"], mine["picture_s"])
    for one in (mine, peer):
        one["picture_s"] = spread(one["picture_s"])
    return result(
        "cuda_controls",
        times,
        target=1.0,
        peer=f"diffusers {version('diffusers')} StableDiffusionXLControlNetPipeline, eager, torch {torch.__version__}",
        conditions={
            "the peak is as planned": planned <= PLAN_TOLERANCE,
            "the ControlNet leaves with its last job": not mine["left of the ControlNet"],
        },
        details={
            "device": torch.cuda.get_device_name(),
            "px": EDGE_PX,
            "steps": STEPS,
            f"{JOBS} jobs at once: theirs / ours": peer["jobs_s"] / mine["jobs_s"],
            "peak: theirs / ours": peer["peak_gb"] / mine["peak_gb"],
            "mean pixel difference from theirs": float(np.abs(own - other).mean()),
            "mean pixel difference of the guidance": float(np.abs(own - plain).mean()),
            "ours": mine,
            "theirs": peer,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
