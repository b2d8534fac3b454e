"""Loading a model onto the CPU, every weight touched: against diffusers' `from_pretrained`, and `load_file` with its copy.

Same files, same process, warm page cache; the weights are compared in the same run. The model has random weights in float32.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

import shutil
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # its lazy export
from safetensors.torch import load_file
from torch import Tensor

from bench.large_model import Sizes, write_large_model
from bench.measure import interleave, ratio, result, spread
from domains.model.model import Model
from domains.model.on_device import load

ROUNDS = 7
SIZES = Sizes(
    unet={
        "sample_size": 64,
        "block_out_channels": (160, 320, 640, 640),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    vae={"block_out_channels": (64, 128, 256, 256)},
    dtype=torch.float32,
)
"""A UNet of half of SD 1.5's width, its text encoder, and a smaller VAE: about 1.4 GB."""


def touched(tensors: list[Tensor]) -> float:
    """Read a value of every page in the order of memory, so that a lazy load is complete, and nothing is copied for it."""
    return sum(float(one.as_strided((one.numel(),), (1,))[::1024].sum()) for one in tensors)


def ours(model: Model) -> dict[str, Tensor]:
    """The UNet's weights, loaded with the whole model by the worker's loader."""
    loaded = load(model, "cpu")
    for module in loaded.modules.values():
        touched(list(module.parameters()))
    return loaded.modules["unet"].state_dict()


def by_diffusers(model: Model) -> dict[str, Tensor]:
    """The same by the library's own way."""
    pipe: Any = StableDiffusionPipeline.from_pretrained(
        model.folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        touched(list(module.parameters()))
    return pipe.unet.state_dict()


def by_copies(model: Model) -> None:
    """The bytes alone: `load_file`, and a copy that does not depend on the file."""
    for path in Path(model.folder).rglob("*.safetensors"):
        touched([value.clone() for value in load_file(path).values()])


def main() -> int:
    """Print the ratio theirs / ours for `from_pretrained`; higher is better."""
    root = Path(tempfile.mkdtemp(prefix="load-cpu-"))
    try:
        model = write_large_model(root / "half", 1, SIZES)
        mine, theirs = ours(model), by_diffusers(model)
        equal = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        del mine, theirs
        samples = interleave(
            {
                "ours": lambda: ours(model),
                "diffusers": lambda: by_diffusers(model),
                "copies": lambda: by_copies(model),
            },
            ROUNDS,
        )
    finally:
        shutil.rmtree(root)
    against_copies = ratio(samples["copies"], samples["ours"])
    return result(
        "load_cpu",
        ratio(samples["diffusers"], samples["ours"]),
        target=2.0,
        peer=f"diffusers {version('diffusers')} from_pretrained, torch {torch.__version__}",
        conditions={"weights equal": equal, "twice as fast as load_file and clone": against_copies.median >= 2},
        details={
            "GB": model.size_bytes / 1e9,
            "against load_file and clone": against_copies,
            "seconds": {name: spread(some) for name, some in samples.items()},
            "GB/s": model.size_bytes / statistics.median(samples["ours"]) / 1e9,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
