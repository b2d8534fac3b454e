"""Step 1: draw the icons, write the captions, learn the tokenizer.

npm install @iconify-json/fluent-emoji-flat@1.2.6
pip install resvg_py
python -m tools.demo_model.prepare --npm node_modules --out data
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tools.demo_model.bpe import write_tokenizer
from tools.demo_model.captions import BACKGROUNDS, all_captions
from tools.demo_model.drawing import write_images
from tools.demo_model.names import items_of, known_prompts, read_package, select


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    wish = _parser().parse_args(arguments)
    prepare(wish.npm, wish.out, wish.variants)


def prepare(npm: Path, out: Path, variants: int) -> None:
    """Write `images.zip`, `captions.json`, `known_prompts.txt` and `tokenizer/` into `out`."""
    package = read_package(npm)
    items = items_of(select(package))
    out.mkdir(parents=True, exist_ok=True)
    write_images(package.icons, (item.icon for item in items), out / "images.zip")
    captions = all_captions(items, variants, random.Random(0))
    words = {"backgrounds": BACKGROUNDS, "items": msgspec.to_builtins(items), "captions": captions}
    (out / "captions.json").write_text(json.dumps(words), "utf-8")
    (out / "known_prompts.txt").write_text("".join(f"{name}\n" for name in known_prompts(items)), "utf-8")
    every = [caption for rows in captions.values() for row in rows for caption in row]
    write_tokenizer(every, out / "tokenizer")
    print(f"{len(items)} icons; {len(every)} captions")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw the icons, write the captions, learn the tokenizer.")
    parser.add_argument("--npm", type=Path, default=Path("node_modules"), help="node_modules, or the unpacked package")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder to write")
    parser.add_argument("--variants", type=int, default=48, help="captions an icon on white; half on other colours")
    return parser


if __name__ == "__main__":
    main()
