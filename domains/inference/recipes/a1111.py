"""The recipe of A1111's `parameters` text: prompt, negative prompt, one line of settings.

Source: the text that AUTOMATIC1111/stable-diffusion-webui shows below each picture ("PNG info").
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping

from domains.inference.generation import Generation, Sampling
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.recipes.a1111_hires import READ, STRENGTH, has_hires, hires_of, upscaler_of
from domains.inference.recipes.names import of_a1111
from domains.inference.recipes.numbers import number, size_of
from domains.inference.recipes.recipe import Cause, NamedLora, NamedModel, Recipe, stem, unusable

_NEGATIVE = "Negative prompt:"
_LORA = re.compile(r"<lora:([^:<>]{1,255}):([+-]?\d{1,4}(?:\.\d{0,9})?)>")
_PAIR = re.compile(r'([A-Za-z][\w /()-]{0,63}):\s*("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')
_DISTILLED = "Distilled CFG Scale"
"""Of WebUI Forge."""
_READ = {
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "Clip skip", "Version"),
    *("Lora hashes", "Hashes", "Eta DDIM", "RNG", _DISTILLED),
}
_LINE = 64 * 1024
"""Most characters of the settings that are read."""
_SETTINGS = 64
"""Most settings that are told as not read."""


def of_parameters(text: str) -> Recipe:
    """Read the text. Raises BAD_IMAGE if it does not say enough."""
    words, _, line = text.replace("\r\n", "\n").rstrip().rpartition("\n")
    settings = dict(_settings(line))
    if not {"Steps", "Sampler", "Seed"} <= settings.keys():
        raise unusable("has a text of A1111 without its steps, sampler or seed")
    if STRENGTH in settings and not has_hires(settings):
        raise unusable("was made from another picture, which its text does not hold")
    prompt, _, negative = words.partition(f"\n{_NEGATIVE}") if _NEGATIVE in words else (words, "", "")
    if words.startswith(_NEGATIVE):
        prompt, negative = "", words.removeprefix(_NEGATIVE)
    sampler, schedule = of_a1111(settings["Sampler"], settings.get("Schedule type", ""))
    width_px, height_px = size_of(settings.get("Size", "")) or (None, None)
    return Recipe(
        source="a1111",
        generation=Generation(
            prompt=_LORA.sub("", prompt).strip(),
            negative_prompt=negative.strip(),
            prompt_syntax=Syntax.A1111,
            long_prompt=LongPrompt.CHUNK,
            width_px=width_px,
            height_px=height_px,
            sampling=Sampling(
                sampler=sampler,
                sigma_schedule=schedule or ("normal" if sampler else ""),
                steps=number(settings["Steps"], int, "Steps"),
                guidance_scale=number(settings.get("CFG scale", "7"), float, "CFG scale"),
                distilled_guidance=number(settings[_DISTILLED], float, _DISTILLED) if _DISTILLED in settings else None,
                seeds=(number(settings["Seed"], int, "Seed"),),
                eta=number(settings["Eta DDIM"], float, "Eta DDIM") if "Eta DDIM" in settings else None,
            ),
            hires_pass=hires_of(settings),
            clip_skip=max(0, number(settings.get("Clip skip", "1"), int, "Clip skip") - 1) or None,
        ),
        model=NamedModel(name=stem(settings.get("Model", ""))),
        loras=tuple(NamedLora(name=found[1], weight=float(found[2])) for found in _LORA.finditer(prompt)),
        upscaler=upscaler_of(settings),
        unread=tuple(_unread(settings, sampler)),
    )


def _settings(line: str) -> Iterator[tuple[str, str]]:
    for found in _PAIR.finditer(line[:_LINE]):
        value = found[2].strip()
        if value.startswith('"'):
            with contextlib.suppress(ValueError):
                value = str(json.loads(value))
        yield found[1].strip(), value


def _unread(settings: Mapping[str, str], sampler: str) -> Iterator[Cause]:
    if not sampler:
        yield Cause(name="sampler", original=settings["Sampler"][:255])
    read = {*_READ, *(READ if has_hires(settings) else ())}
    for name, value in [*settings.items()][:_SETTINGS]:
        if name not in read:
            yield Cause(name=name[:64], original=value[:255])
