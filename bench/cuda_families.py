"""On a machine with a CUDA device: every computed family at its published size, random weights, against diffusers.

Same files, same prompts, bfloat16: one picture, eight jobs at once against eight calls, and the peak of memory. Not part of
the CPU set; names of families on the command line measure these alone. The configs are those that publishers give with the
weights (SD 1.5, SD 2.1, SDXL 1.0, SD 3 Medium, FLUX.1 dev).
"""

import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bench.cuda_load import Loop
from bench.large_model import write_weights
from bench.measure import Spread, ratio, result, spread
from domains.inference.given import Given
from domains.inference.outcome import RunFinished
from domains.model.model import Model
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.inference.on_device.tiny_families import t5_tokenizer
from tests.domains.inference.on_device.tiny_model import tiny_model

ROUNDS = 3
JOBS = 8
_DTYPE = torch.bfloat16
_diffusers: Any = diffusers  # which imports its classes when they are asked for

_CLIP_L: dict[str, Any] = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"projection_dim": 768, "bos_token_id": 2012, "eos_token_id": 2013, "pad_token_id": 2013},
}
_CLIP_G = _CLIP_L | {
    **{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
    **{"projection_dim": 1280, "hidden_act": "gelu"},
}
_CLIP_H = _CLIP_G | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_T5: dict[str, Any] = {
    **{"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128},
    "feed_forward_proj": "gated-gelu",
}
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
_VAE_16 = _VAE | {
    **{"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    **{"use_quant_conv": False, "use_post_quant_conv": False},
}
_TRAINED: dict[str, Any] = {
    **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1},
    "timestep_spacing": "leading",
}
_EULER = "EulerDiscreteScheduler"
_FLOW = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Sizes:
    """A published model: classes and configs of its components."""

    pipeline: str
    parts: Mapping[str, tuple[str, dict[str, Any]]]
    words: tuple[str, ...]
    """`clip` or `t5` for each tokenizer."""
    edge_px: int
    steps: int
    jobs: int = JOBS
    sampler: dict[str, Any] = field(default_factory=lambda: {"sampler": "euler", "sigma_schedule": "normal"})


SIZES: Mapping[str, Sizes] = {
    "sd1": Sizes(
        "StableDiffusionPipeline",
        {
            "text_encoder": ("CLIPTextModel", _CLIP_L),
            "unet": ("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
            "vae": ("AutoencoderKL", _VAE | {"sample_size": 512}),
            "scheduler": (_EULER, _TRAINED),
        },
        ("clip",),
        512,
        20,
    ),
    "sd2": Sizes(
        "StableDiffusionPipeline",
        {
            "text_encoder": ("CLIPTextModel", _CLIP_H),
            "unet": (
                "UNet2DConditionModel",
                {
                    **{"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)},
                    "use_linear_projection": True,
                },
            ),
            "vae": ("AutoencoderKL", _VAE | {"sample_size": 768}),
            "scheduler": (_EULER, _TRAINED | {"prediction_type": "v_prediction"}),
        },
        ("clip",),
        768,
        20,
    ),
    "sdxl": Sizes(
        "StableDiffusionXLPipeline",
        {
            "text_encoder": ("CLIPTextModel", _CLIP_L),
            "text_encoder_2": ("CLIPTextModelWithProjection", _CLIP_G),
            "unet": (
                "UNet2DConditionModel",
                {
                    "sample_size": 128,
                    "block_out_channels": (320, 640, 1280),
                    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                    "transformer_layers_per_block": (1, 2, 10),
                    "attention_head_dim": (5, 10, 20),
                    "cross_attention_dim": 2048,
                    "use_linear_projection": True,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            "vae": ("AutoencoderKL", _VAE | {"sample_size": 1024, "scaling_factor": 0.13025}),
            "scheduler": (_EULER, _TRAINED),
        },
        ("clip", "clip"),
        1024,
        20,
    ),
    "sd3": Sizes(
        "StableDiffusion3Pipeline",
        {
            "text_encoder": ("CLIPTextModelWithProjection", _CLIP_L),
            "text_encoder_2": ("CLIPTextModelWithProjection", _CLIP_G),
            "text_encoder_3": ("T5EncoderModel", _T5),
            "transformer": (
                "SD3Transformer2DModel",
                {
                    **{"sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 24},
                    **{"attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096},
                    **{"caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
                },
            ),
            "vae": ("AutoencoderKL", _VAE_16 | {"sample_size": 1024}),
            "scheduler": (_FLOW, {"shift": 3.0}),
        },
        ("clip", "clip", "t5"),
        1024,
        20,
        sampler={},
    ),
    "flux1": Sizes(
        "FluxPipeline",
        {
            "text_encoder": ("CLIPTextModel", _CLIP_L),
            "text_encoder_2": ("T5EncoderModel", _T5),
            "transformer": (
                "FluxTransformer2DModel",
                {
                    **{"in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128},
                    **{"num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768},
                    "guidance_embeds": True,
                },
            ),
            "vae": ("AutoencoderKL", _VAE_16 | {"sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
            "scheduler": (_FLOW, {"shift": 3.0, "use_dynamic_shifting": True}),
        },
        ("clip", "t5"),
        1024,
        10,
        jobs=2,
        sampler={},
    ),
}


def write_family(folder: Path, sizes: Sizes) -> Model:
    """Write the model and scan it. Its page cache is warm afterwards."""
    index: dict[str, Any] = {"_class_name": sizes.pipeline, "_diffusers_version": version("diffusers")}
    block = torch.randn(2**24, generator=torch.Generator().manual_seed(1)).mul_(0.02).to(_DTYPE)
    block_bytes = block.view(torch.uint8).numpy().tobytes()
    for part, (class_name, config) in sizes.parts.items():
        library = "diffusers" if hasattr(diffusers, class_name) else "transformers"
        index[part] = [library, class_name]
        (folder / part).mkdir(parents=True)
        if part == "scheduler":
            getattr(_diffusers, class_name)(**config).save_pretrained(folder / part)
            continue
        module = _empty(class_name, config)
        encoder = library == "transformers"
        file = "model.safetensors" if encoder else "diffusion_pytorch_model.safetensors"
        write_weights(folder / part / file, module, block_bytes, _DTYPE)
        text = module.config.to_dict() if encoder else {**module.config, "_class_name": class_name}
        (folder / part / "config.json").write_text(json.dumps(text))
    for number, kind in enumerate(sizes.words, 1):
        part = "tokenizer" if number == 1 else f"tokenizer_{number}"
        index[part] = ["transformers", _words(folder / part, kind)]
    (folder / "model_index.json").write_text(json.dumps(index))
    return tiny_model(folder)


def _empty(class_name: str, config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        if hasattr(diffusers, class_name):
            return getattr(_diffusers, class_name)(**config)
        config_class = transformers.T5Config if class_name.startswith("T5") else transformers.CLIPTextConfig
        return getattr(transformers, class_name)(config_class(**config))


def _words(folder: Path, kind: str) -> str:
    if kind == "clip":
        shutil.copytree(Path(embedded_model().folder) / "tokenizer", folder)
        return "CLIPTokenizer"
    folder.mkdir()
    t5_tokenizer(folder).save_pretrained(folder)
    return "T5Tokenizer"


def ours(model: Model, sizes: Sizes) -> dict[str, Any]:
    """Times and peak of this engine."""
    loop = Loop()
    size: dict[str, Any] = {"width_px": sizes.edge_px, "height_px": sizes.edge_px, "steps": sizes.steps}
    # FLUX.1 reads guidance as a number; diffusers calls both kinds `guidance_scale`.
    flux = model.family == "flux1"
    guidance = {"guidance_scale": 1.0, "distilled_guidance": 5.0} if flux else {"guidance_scale": 5.0}
    wanted = request(model, None, **guidance, **size, **(sizes.sampler or _flow_sampler(model)))
    loop.loop.submit("warm up", Given(model, wanted))
    loop.ended("warm up")
    before = torch.cuda.memory_allocated()
    loop.loop.peak_bytes = 0
    times, steps = list[float](), list[float]()
    for number in range(ROUNDS):
        begin = time.perf_counter()
        loop.loop.submit(f"{number}", Given(model, wanted))
        end, _ = loop.ended(f"{number}")
        times.append(end - begin)
        at = loop.steps_of(f"{number}")
        steps.append((at[-1] - at[1]) / (len(at) - 2))
    peak, loop.loop.peak_bytes = loop.loop.peak_bytes, 0
    begin, names = time.perf_counter(), [f"one of {number}" for number in range(sizes.jobs)]
    for name in names:
        loop.loop.submit(name, Given(model, wanted))
    while len({name for _, name, report in loop.reports if isinstance(report, RunFinished)} & set(names)) < len(names):
        loop.loop.tick()
    together = time.perf_counter() - begin
    found = {
        "picture_s": times,
        "step_s": steps,
        "jobs_s": together,
        "weights_gb": before / 1e9,
        "peak_gb": peak / 1e9,
        "peak_of_jobs_gb": loop.loop.peak_bytes / 1e9,
    }
    loop.loop.unload(model.id)
    loop.loop.close()
    return found


def _flow_sampler(model: Model) -> dict[str, Any]:
    return {"sampler": model.default_sampler, "sigma_schedule": "normal"}


def theirs(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """The same of diffusers' pipeline, eager."""
    pipe: Any = getattr(_diffusers, sizes.pipeline).from_pretrained(folder, torch_dtype=_DTYPE).to("cuda")
    pipe.set_progress_bar_config(disable=True)

    def picture(steps: int) -> float:
        begin = time.perf_counter()
        pipe(
            prompt="owl",
            num_inference_steps=steps,
            guidance_scale=5.0,
            height=sizes.edge_px,
            width=sizes.edge_px,
            generator=torch.Generator().manual_seed(7),
        )
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    picture(sizes.steps)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = [picture(sizes.steps) for _ in range(ROUNDS)]
    short = [picture(2) for _ in range(ROUNDS)]
    steps = [(whole - some) / (sizes.steps - 2) for whole, some in zip(times, short, strict=True)]
    return {
        "picture_s": times,
        "step_s": steps,
        "jobs_s": statistics.median(times) * sizes.jobs,
        "weights_gb": before / 1e9,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def measured(name: str, root: Path) -> dict[str, Any]:
    """One family: ours, then theirs."""
    folder, sizes = root / name, SIZES[name]
    try:
        model = write_family(folder, sizes)
        if model.family != name:
            raise AssertionError(f"{name} was taken for {model.family or 'nothing'}: {model.problem}")
        mine = ours(model, sizes)
        gc.collect()
        torch.cuda.empty_cache()
        peer = theirs(folder, sizes)
    finally:
        shutil.rmtree(folder)
        gc.collect()
        torch.cuda.empty_cache()
    return {
        "px": sizes.edge_px,
        "steps": sizes.steps,
        "GB": model.size_bytes / 1e9,
        "step: theirs / ours": ratio(peer["step_s"], mine["step_s"]),
        "picture: theirs / ours": ratio(peer["picture_s"], mine["picture_s"]),
        f"{sizes.jobs} jobs at once: theirs / ours": peer["jobs_s"] / mine["jobs_s"],
        "ours": _told(mine),
        "theirs": _told(peer),
    }


def _told(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spread(value) if isinstance(value, list) else value for name, value in found.items()}


def main() -> int:
    """Print the ratio theirs / ours of a picture's time, over all families; higher is better."""
    names = [name for name in sys.argv[1:] if name in SIZES] or list(SIZES)
    root = Path(tempfile.mkdtemp(prefix="cuda-families-"))
    torch.cuda.init()
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = measured(name, root)
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(name, found[name], file=sys.stderr, flush=True)
    shutil.rmtree(root)
    ratios = [one["picture: theirs / ours"].median for one in found.values() if "failed" not in one] or [0.0]
    return result(
        "cuda_families",
        Spread(median=statistics.median(ratios), low=min(ratios), high=max(ratios)),
        target=1.0,
        peer=f"diffusers {version('diffusers')} pipelines, eager, torch {torch.__version__}",
        conditions={"every family runs": not any("failed" in one for one in found.values())},
        details={"device": torch.cuda.get_device_name(), **found},
    )


if __name__ == "__main__":
    raise SystemExit(main())
