"""Writes the files of a converted model that hold no weights: configs, tokenizers, the index, the licence."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domains.model.component_config import read_config
from domains.model.conversion import ConversionOrder
from domains.model.diffusers_folder import INDEX, KNOWN_PROMPTS
from domains.model.families import FAMILIES
from domains.model.json_file import class_name, read_json
from domains.model.kind import ModelKind
from domains.model.model import Component, Model, ModelLayout
from domains.model.on_device.conversion_plan import WEIGHTS
from domains.model.regular_file import read_regular
from domains.model.weight_file import open_judged

_CONFIGS = ("config.json", "scheduler_config.json")
_SHARDS = (".safetensors.index", ".index.json")
"""Lists of shards, which become one file."""
_DTYPE_KEYS = ("torch_dtype", "dtype")
_BESIDE = (KNOWN_PROMPTS, "LICENSE", "LICENSE.md", "LICENSE.txt")
_MAX_BESIDE = 1024 * 1024

PIPELINES: Mapping[tuple[str, str], str] = {
    ("sd1", ""): "StableDiffusionPipeline",
    ("sd1", "inpainting"): "StableDiffusionInpaintPipeline",
    ("sd1", "editing"): "StableDiffusionInstructPix2PixPipeline",
    ("sd2", ""): "StableDiffusionPipeline",
    ("sd2", "inpainting"): "StableDiffusionInpaintPipeline",
    ("sd2", "depth"): "StableDiffusionDepth2ImgPipeline",
    ("sdxl", ""): "StableDiffusionXLPipeline",
    ("sdxl", "inpainting"): "StableDiffusionXLInpaintPipeline",
    ("sdxl", "editing"): "StableDiffusionXLInstructPix2PixPipeline",
    ("sd3", ""): "StableDiffusion3Pipeline",
    ("flux1", ""): "FluxPipeline",
    ("chroma", ""): "ChromaPipeline",
    ("auraflow", ""): "AuraFlowPipeline",
    ("z_image", ""): "ZImagePipeline",
}
"""Class of diffusers that computes a family's models and those of its variants."""


def write_others(order: ConversionOrder, folder: Path) -> int:
    """Write them into the new folder; the index last, because it makes the folder a model. Returns the bytes."""
    model = order.model
    for stamp in model.files:
        name = stamp.path.rpartition("/")[2]
        if stamp.path.endswith(WEIGHTS) or any(end in name for end in _SHARDS):
            continue
        place = folder / stamp.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if name in _CONFIGS and "/" in stamp.path:
            _write_json(place, _with_precision(order, stamp.path))
        else:
            with open_judged(model, stamp.path) as source, place.open("xb") as new:
                shutil.copyfileobj(source, new)
    if order.layout is ModelLayout.DIFFUSERS:
        _copy_beside(model, folder)
        _write_json(folder / INDEX, _index(model))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != WEIGHTS)


def _with_precision(order: ConversionOrder, path: str) -> Mapping[str, Any]:
    """A config as the loader reads it, with the new precision where it names the old one."""
    component, _, name = path.rpartition("/")
    config = read_config(order.model, component, name)
    changed = order.precision and component not in order.keep
    return config | {key: order.precision for key in _DTYPE_KEYS if changed and isinstance(config.get(key), str)}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _copy_beside(model: Model, folder: Path) -> None:
    """What lies beside the index: the licence, the words that the model knows."""
    for name in _BESIDE if model.layout is ModelLayout.DIFFUSERS else ():
        try:
            content = read_regular(Path(model.folder).resolve() / name, _MAX_BESIDE)
        except OSError:
            continue  # it is not there, or no file of the model's own
        (folder / name).write_bytes(content)


def _index(model: Model) -> Mapping[str, Any]:
    """model_index.json. Components that the source lists but that could not be read are listed as absent."""
    there = {part.id for part in model.components}
    if model.layout is ModelLayout.DIFFUSERS:
        old = read_json(Path(model.folder).resolve() / INDEX)
        return {name: value if _stays(name, value, there) else [None, None] for name, value in old.items()}
    family = FAMILIES[model.family]
    variant = family.variant(model.variant)
    named = PIPELINES.get((family.id, model.variant)) or (variant.pipelines[0] if variant and variant.pipelines else "")
    absent = {part.id: [None, None] for part in family.parts if part.id not in there}
    parts = {part.id: _class_of(model, part) for part in model.components}
    return {"_class_name": named or PIPELINES[family.id, ""], **parts, **absent, **_SAFETY.get(family.id, {})}


_NO_CHECKER: Mapping[str, Any] = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}
_SAFETY: Mapping[str, Mapping[str, Any]] = {"sd1": _NO_CHECKER, "sd2": _NO_CHECKER}
"""Parts that diffusers' pipelines of a family ask for."""


def _stays(name: str, value: object, there: set[str]) -> bool:
    return name.startswith("_") or not isinstance(value, list) or name in there


def _class_of(model: Model, part: Component) -> list[str]:
    """Library and class of a component."""
    fact = FAMILIES[model.family].part(part.id)
    kind = fact.kind if fact else part.kind
    if kind is ModelKind.TOKENIZER:
        named = read_config(model, part.id, "tokenizer_config.json").get("tokenizer_class")
        return ["transformers", str(named or (fact.classes[0] if fact and fact.classes else "CLIPTokenizer"))]
    if kind is ModelKind.SCHEDULER:
        return ["diffusers", class_name(read_config(model, part.id, "scheduler_config.json"))]
    config = read_config(model, part.id, "config.json")
    if "_class_name" in config:
        return ["diffusers", class_name(config)]
    named = config.get("architectures")
    return ["transformers", str(named[0]) if isinstance(named, list) and named else fact.classes[0] if fact else ""]
