"""A tokenizer in CLIP's format: byte-pair encoding over a byte alphabet, `</w>` at the end of a word."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

Pair = tuple[str, str]

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def write_tokenizer(corpus: Iterable[str], out: Path, merges: int = 1500) -> None:
    """Learn it from the captions and write the four files that `CLIPTokenizer` reads."""
    ranks = learn(Counter(word for text in corpus for word in _WORDS.findall(text.lower())), merges)
    vocabulary = vocabulary_of(ranks)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    config |= {"add_prefix_space": False, "errors": "replace", **special}
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = "\n".join(" ".join(pair) for pair in ranks)
    (out / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", "utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    (out / "special_tokens_map.json").write_text(json.dumps(special, indent=2), "utf-8")
    if (size := len(CLIPTokenizer.from_pretrained(out))) != len(vocabulary):
        raise ValueError(f"the tokenizer reads {size} entries, {len(vocabulary)} were written")


def learn(frequencies: Counter[str], merges: int) -> list[Pair]:
    """The pairs to merge, most useful first. Frequent words count by the root of their number."""
    words = {word: ([*word[:-1], word[-1] + "</w>"], count**0.5) for word, count in frequencies.items()}
    ranks: list[Pair] = []
    while len(ranks) < merges:
        weights: Counter[Pair] = Counter()
        for pieces, weight in words.values():
            for pair in pairwise(pieces):
                weights[pair] += weight  # pyright: ignore[reportArgumentType]  # a Counter of fractions works as well
        if not weights:
            break
        best = max(weights, key=lambda pair: (weights[pair], pair))
        ranks.append(best)
        words = {word: (merged(pieces, best), weight) for word, (pieces, weight) in words.items()}
    return ranks


def merged(pieces: Sequence[str], pair: Pair) -> list[str]:
    """The pieces with each occurrence of the pair joined, from the left."""
    joined: list[str] = []
    at = 0
    while at < len(pieces):
        step = 2 if tuple(pieces[at : at + 2]) == pair else 1
        joined.append("".join(pieces[at : at + step]))
        at += step
    return joined


def vocabulary_of(ranks: Sequence[Pair]) -> dict[str, int]:
    """Token → number: bytes, bytes that end a word, merges, the two marks."""
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in ranks), START, END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def byte_alphabet() -> list[str]:
    """A visible letter for each byte, in GPT-2's order: printable ones stand for themselves, the others follow from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(code) for code in [*printable, *range(256, 256 + len(others))]]
