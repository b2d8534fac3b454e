"""A LoRA on the CPU that is in memory, until a model computes with it: against diffusers' load_lora_weights and fuse_lora.

Both have the file's tensors in memory: ours in the pool, as for every job after the first, the peer's as a dictionary. What
the UNet computes with it is compared in the same run. The details have the first use too, which reads the file. The model
has random weights in float32.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # its lazy export
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.large_model import write_large_model
from bench.load_cpu import SIZES
from bench.measure import interleave, ratio, result
from domains.inference.loras import ResolvedLora
from domains.inference.on_device.adapters import AdapterPool, Adapters, Asked, Share, beside
from domains.inference.on_device.networks.unet import UNet
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.weights_model import read_file

ROUNDS = 5
RANK = 16
WEIGHT = 0.8
_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


def write_lora(path: Path, unet: nn.Module) -> Model:
    """A LoRA in kohya's format for the linear layers that trainers change."""
    torch.manual_seed(2)
    tensors: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if name.endswith(_LAYERS):
            weight: Any = layer.weight
            stem = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{stem}.lora_down.weight"] = torch.randn(RANK, *weight.shape[1:]) * 0.05
            tensors[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], RANK, *[1] * (weight.dim() - 2)) * 0.05
            tensors[f"{stem}.alpha"] = torch.tensor(RANK / 2)
    save_file(tensors, path)
    found = read_file(path, path.stem, path.stem)
    stamps = Fingerprints().stamps(path.parent, {path.name: path})
    return msgspec.structs.replace(found, files=stamps)


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> int:
    """Print the ratio theirs / ours; higher is better."""
    root = Path(tempfile.mkdtemp(prefix="lora-"))
    try:
        model = write_large_model(root / "half", 1, SIZES)
        loaded = load(model, "cpu")
        pipe: Any = StableDiffusionPipeline.from_pretrained(
            model.folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
        )
        path = root / "it.safetensors"
        lora = write_lora(path, loaded.modules["unet"])
        tensors = load_file(path)
        asked = ResolvedLora(model_id=lora.id, model_sha256=lora.files[0].sha256, weight=WEIGHT)

        def ours(pool: AdapterPool | None = None) -> Adapters:
            return (pool or AdapterPool()).adapters(Asked([(asked, lora)]), loaded)

        def fuse() -> None:
            pipe.load_lora_weights(tensors, adapter_name="it")
            pipe.fuse_lora(lora_scale=WEIGHT)

        def restore() -> None:
            pipe.unfuse_lora()
            pipe.unload_lora_weights()

        found = _compared(loaded.modules["unet"], pipe.unet, ours(), fuse, restore)
        theirs: list[float] = []

        def theirs_once() -> None:
            begin = time.perf_counter()
            fuse()
            theirs.append(time.perf_counter() - begin)
            restore()

        warm = AdapterPool()
        contestants = {"ours": lambda: ours(warm), "theirs and back": theirs_once, "first use": ours}
        samples = interleave(contestants, ROUNDS)
        # Taking it off again is no part of the claim, and costs us nothing.
        return result(
            "lora",
            ratio(theirs[-ROUNDS:], samples["ours"]),
            target=10,
            peer=f"diffusers {version('diffusers')} with peft {version('peft')}: load_lora_weights and fuse_lora",
            conditions={"outputs within 1e-4 of diffusers'": found[0] < 1e-4, "the LoRA counts": found[1] > 1e-3},
            details={
                "LoRA bytes": path.stat().st_size,
                "layers": len(ours(warm).layers),
                "UNet parameters": sum(one.numel() for one in loaded.modules["unet"].parameters()),
                "ours s": statistics.median(samples["ours"]),
                "ours s, first use": statistics.median(samples["first use"]),
                "theirs s": statistics.median(theirs[-ROUNDS:]),
                "largest difference of outputs": found[0],
            },
        )
    finally:
        shutil.rmtree(root)


def _compared(mine: Any, theirs: Any, adapters: Adapters, fuse: Any, restore: Any) -> tuple[float, float]:
    """The difference of what both UNets compute, and what the LoRA changes."""
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 768)
    unet, time_step = UNet(mine), torch.tensor(500.0)
    with torch.inference_mode():

        def computed(shares: list[Share]) -> Tensor:
            with beside(shares):
                x = latents.to(memory_format=torch.channels_last)
                return unet(x, time_step, unet.text_keys(states))

        with_lora, plain = computed([Share(adapters)]), computed([])
    fuse()
    with torch.inference_mode():
        fused = theirs(latents, time_step, states).sample
    restore()
    return _gap(with_lora, fused), _gap(plain, fused)


if __name__ == "__main__":
    raise SystemExit(main())
