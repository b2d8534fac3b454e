"""Step 5: train what goes with the model: a LoRA of another style, and a ControlNet for edges.

    npm install @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/fluent-emoji-high-contrast@1.2.6
    pip install resvg_py peft
    python -m tools.demo_model.companions --npm node_modules --model emoji-sd --out companions --lora 120 --control 180

Stages last so many seconds on one GPU (bf16 compute, float32 master weights).
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from transformers import CLIPTokenizer

from tools.demo_model import names
from tools.demo_model.captions import BACKGROUNDS, all_captions
from tools.demo_model.control_stage import examples, report_control, save_control, train_control
from tools.demo_model.dataset import Dataset
from tools.demo_model.drawing import write_images
from tools.demo_model.lora_stage import report_lora, save_lora, train_lora
from tools.demo_model.networks import LATENT_SCALE, read_networks
from tools.demo_model.trainer import Clock, log
from tools.demo_model.vae_stage import latents_of

STYLES = ("@iconify-json/fluent-emoji-flat", "@iconify-json/fluent-emoji-high-contrast")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    wish = _parser().parse_args(arguments)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    prepare(wish.npm, wish.data, wish.limit)
    log("drawn")
    tokenizer = CLIPTokenizer.from_pretrained(wish.model / "tokenizer")
    flat, style = (Dataset(wish.data / str(number), tokenizer, device, wish.limit) for number in range(2))
    networks = read_networks(wish.model).on(device)
    log(len(flat), "icons in both styles")
    if wish.lora:
        drawn = latents_of(networks.vae, style) * LATENT_SCALE
        unet = train_lora(networks, drawn, style, Clock(wish.lora, wish.steps), wish.batch, dtype)
        save_lora(unet, wish.out / "lora")
        report_lora(unet, networks, drawn, latents_of(networks.vae, flat) * LATENT_SCALE, style)
    if wish.control:
        some = examples(networks, flat, wish.pool, 0.8)
        log(len(some.latents), "examples")
        control = train_control(networks, flat, some, Clock(wish.control, wish.steps), wish.batch, dtype)
        save_control(control, wish.out / "canny")
        report_control(control, networks, flat, min(256, wish.pool))
    log("saved", wish.out)


def prepare(npm: Path, out: Path, limit: int) -> None:
    """Draw the icons that both styles have, and write their captions, which are the same."""
    packages = [names.read_package(npm / style) for style in STYLES]
    both = [icon for icon in names.select(packages[0]) if icon in packages[1].icons][:limit]
    items = names.items_of(both)
    words = {"backgrounds": BACKGROUNDS, "items": msgspec.to_builtins(items)}
    words["captions"] = all_captions(items, 48, random.Random(0))
    for number, package in enumerate(packages):
        folder = out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_images(package.icons, both, folder / "images.zip")
        (folder / "captions.json").write_text(json.dumps(words), "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a LoRA and a ControlNet for the demo model.")
    parser.add_argument("--npm", type=Path, default=Path("node_modules"), help="node_modules")
    parser.add_argument("--data", type=Path, default=Path("data-companions"), help="folder for the drawn icons")
    parser.add_argument("--model", type=Path, default=Path("emoji-sd"), help="diffusers folder")
    parser.add_argument("--out", type=Path, default=Path("companions"), help="folder to write")
    parser.add_argument("--lora", type=float, default=0.0, help="seconds for the LoRA")
    parser.add_argument("--control", type=float, default=0.0, help="seconds for the ControlNet")
    parser.add_argument("--batch", type=int, default=128, help="latents a step")
    parser.add_argument("--pool", type=int, default=16384, help="examples that the ControlNet's stage draws from")
    parser.add_argument("--limit", type=int, default=10**6, help="only the first so many icons")
    parser.add_argument("--steps", type=int, help="end each stage after so many steps, for a trial run")
    return parser


if __name__ == "__main__":
    main()
