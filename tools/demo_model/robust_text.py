"""Step 3: teach the text encoder to ignore words it never met. On a CPU, in minutes; the UNet stays as it is.

    python -m tools.demo_model.robust_text --model emoji-sd --data data --seconds 360

It is distilled from itself. Teacher: the hidden states of a plain caption. Student: the same caption with filler words;
its caption tokens and its padding must come out as the teacher's, its filler tokens as the neutral start mark.
"""

import argparse
import copy
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo_model.filler import Pair, Pairs
from tools.demo_model.names import Item
from tools.demo_model.networks import write_text_weights
from tools.demo_model.trainer import Clock

_RATE = 6e-4
_BATCH = 48


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    wish = _parser().parse_args(arguments)
    torch.manual_seed(3)
    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = CLIPTokenizer.from_pretrained(wish.model / "tokenizer")
    teacher: Any = CLIPTextModel.from_pretrained(wish.model / "text_encoder", dtype=torch.float32).eval()
    words = json.loads((wish.data / "captions.json").read_text("utf-8"))
    rng = random.Random(3)
    pairs = Pairs(tokenizer, msgspec.convert(words["items"], list[Item]), rng)
    student = copy.deepcopy(teacher)
    distil(teacher, student, pairs, rng, Clock(wish.seconds, wish.steps))
    _save(student, wish.model / "text_encoder" / "model.safetensors")


def distil(teacher: Any, student: Any, pairs: Pairs, rng: random.Random, clock: Clock) -> None:
    """For as long as the clock says."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=_RATE, weight_decay=0.0, betas=(0.9, 0.98))
    began = time.time()
    steps = 0
    while (progress := clock.progress(steps)) < 1:
        length = 77 if rng.random() < 0.25 else 40
        loss = _loss(teacher, student, [pairs.draw(length) for _ in range(_BATCH)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        steps += 1
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1, steps / 40) * (1 - progress) + 1e-6
        optimizer.step()
        if steps % 100 == 0:
            print(f"[{time.time() - began:5.0f}] step {steps} relative error {loss.item():.4f}", flush=True)


def _loss(teacher: Any, student: Any, pairs: Sequence[Pair]) -> Tensor:
    """Squared distance to the teacher's states, relative to their variance."""
    source = torch.tensor([pair.source for pair in pairs])
    with torch.no_grad():
        states = teacher(torch.tensor([pair.plain for pair in pairs])).last_hidden_state
        states = states.gather(1, source[..., None].expand(-1, -1, states.shape[-1]))
    told = student(torch.tensor([pair.wordy for pair in pairs])).last_hidden_state
    return (told - states).square().mean() / states.var()


def _save(student: Any, file: Path) -> None:
    """Over the old weights, under the same names. Raises ValueError if they are not the same."""
    state = {name: value for name, value in student.state_dict().items() if "position_ids" not in name}
    before = {name.removeprefix("text_model.") for name in load_file(file)}
    if different := before ^ {name.removeprefix("text_model.") for name in state}:
        raise ValueError(f"the text encoder has other tensors than {file.name}: {sorted(different)}")
    write_text_weights(file, {name: value.half().contiguous() for name, value in state.items()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Teach the text encoder to ignore words it never met.")
    parser.add_argument(
        "--model", type=Path, default=Path("emoji-sd"), help="diffusers folder; its text encoder changes"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="what `prepare` wrote")
    parser.add_argument("--seconds", type=float, default=360.0)
    parser.add_argument("--steps", type=int, help="end after so many steps, for a trial run")
    return parser


if __name__ == "__main__":
    main()
