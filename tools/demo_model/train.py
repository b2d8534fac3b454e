"""Step 2: train the three networks and save them as a diffusers folder.

    python -m tools.demo_model.train --out emoji-sd --vae 185 --unet 295 --vae-batch 24 --compile
    python -m tools.demo_model.train --out emoji-sd --resume emoji-sd --vae 235 --unet 272 --final --compile
    python -m tools.demo_model.train --out emoji-sd --resume emoji-sd --polish 110

Stages last so many seconds of wall time on one GPU (bf16 compute, float32 master weights).
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from tools.demo_model.dataset import Dataset
from tools.demo_model.decoder_stage import polish_decoder
from tools.demo_model.networks import LATENT_SCALE, Networks, new_networks, read_networks, save_networks
from tools.demo_model.sampling import score
from tools.demo_model.trainer import Clock, log
from tools.demo_model.unet_stage import UnetRecipe, train_unet
from tools.demo_model.vae_stage import latents_of, normalise, report_vae, train_vae


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    wish = _parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _set_up(torch_seed=1 if wish.resume else 0)
    tokenizer = CLIPTokenizer.from_pretrained(wish.data / "tokenizer")
    data = Dataset(wish.data, tokenizer, device, wish.limit)
    log(len(data), "icons loaded")
    networks = _networks(tokenizer, wish.resume).on(device)
    log(networks.parameter_counts())
    _train(wish, networks, data, tokenizer, torch.bfloat16 if device.type == "cuda" else torch.float32)


def _set_up(torch_seed: int) -> None:
    # Where a graph does not compile, run it as it is.
    importlib.import_module("torch._dynamo.config").__dict__["suppress_errors"] = True
    torch.manual_seed(torch_seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def _networks(tokenizer: CLIPTokenizer, resume: Path | None) -> Networks:
    fresh = new_networks(tokenizer)  # also where they are thrown away: a resumed sitting draws the same random numbers
    return read_networks(resume) if resume else fresh


def _train(
    wish: argparse.Namespace, networks: Networks, data: Dataset, tokenizer: CLIPTokenizer, dtype: torch.dtype
) -> None:
    vae, words = networks.vae, wish.data / "tokenizer"
    if wish.vae:
        clock = Clock(wish.vae, wish.steps)
        train_vae(vae, data, clock, batch=wish.vae_batch, dtype=dtype, compiled=wish.compile)
        normalise(vae, data)
    report_vae(vae, data)
    if wish.vae:
        save_networks(wish.out, networks, tokenizer, words)
    latents = latents_of(vae, data) * LATENT_SCALE
    log("latents", tuple(latents.shape), f"mean {latents.mean():.3f} std {latents.std():.3f}")
    if wish.unet:
        clock = Clock(wish.unet, wish.steps)
        recipe = UnetRecipe(rate=wish.lr, batch=wish.batch, final=wish.final, compiled=wish.compile)
        train_unet(networks, latents, data, clock, recipe, dtype)
    networks.unet.eval()
    networks.text.eval()
    if wish.polish:
        clock = Clock(wish.polish, wish.steps)
        polish_decoder(networks, latents, data, clock, batch=wish.vae_batch, pool=wish.pool, dtype=dtype)
        report_vae(vae, data)
    save_networks(wish.out, networks, tokenizer, words)
    log("saved", wish.out)
    if wish.unet:
        score(networks.unet, networks.text, latents, data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the three networks and save them as a diffusers folder.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="what `prepare` wrote")
    parser.add_argument("--out", type=Path, default=Path("emoji-sd"), help="folder to write")
    parser.add_argument("--resume", type=Path, help="go on from this folder")
    parser.add_argument("--vae", type=float, default=0.0, help="seconds for the VAE")
    parser.add_argument("--unet", type=float, default=0.0, help="seconds for the UNet and the text encoder")
    parser.add_argument("--polish", type=float, default=0.0, help="seconds for the decoder alone")
    parser.add_argument("--lr", type=float, default=1e-3, help="rate of the UNet's stage")
    parser.add_argument("--batch", type=int, default=256, help="latents a step")
    parser.add_argument("--vae-batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--limit", type=int, default=10**6, help="only the first so many icons")
    parser.add_argument("--pool", type=int, default=6144, help="encodings that the decoder's stage draws from")
    parser.add_argument("--steps", type=int, help="end each stage after so many steps, for a trial run")
    parser.add_argument("--final", action="store_true", help="let the learning rate fall to zero")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    return parser


if __name__ == "__main__":
    main()
