"""The recipe of ComfyUI's `prompt`: the graph that ran, as JSON. Graphs with one sampler and plain texts are read."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from domains.errors import excerpt
from domains.inference.generation import Generation, Sampling
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.recipes.names import of_others
from domains.inference.recipes.recipe import Cause, NamedLora, NamedModel, Recipe, stem, unusable
from domains.inference.step_range import StepRange

_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_ALL = 10_000
"""What ComfyUI writes for a walk to its end."""
_FAR = 64
"""Most nodes between a sampler and its model."""
_READ = {
    *(*_SAMPLERS, "CLIPTextEncode", "CheckpointLoaderSimple", "LoraLoader", "LoraLoaderModelOnly"),
    *("EmptyLatentImage", "CLIPSetLastLayer", "VAEDecode", "SaveImage", "PreviewImage"),
}


class _Node(msgspec.Struct, frozen=True):
    class_type: str
    inputs: dict[str, Any] = {}


_Graph = dict[str, _Node]


def of_graph(text: str) -> Recipe:
    """Read a graph. Raises BAD_IMAGE if it does not say enough."""
    try:
        graph = msgspec.json.decode(text, type=_Graph)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise unusable(f"has a ComfyUI graph that cannot be read: {excerpt(error)}") from None
    samplers = [node for node in graph.values() if node.class_type in _SAMPLERS]
    if len(samplers) != 1:
        raise unusable(f"was made by a ComfyUI graph with {len(samplers)} samplers; one is read")
    (sampling,) = samplers
    inputs = sampling.inputs
    latents = _at(graph, inputs.get("latent_image"))
    if latents is None or latents.class_type != "EmptyLatentImage" or _number(inputs.get("denoise", 1.0)) != 1.0:
        raise unusable("was made from another picture, or of latents that its graph does not describe")
    if inputs.get("add_noise") == "disable":
        raise unusable("was made by a ComfyUI graph whose sampler adds no noise to empty latents")
    sampler, schedule = of_others(str(inputs.get("sampler_name", "")), str(inputs.get("scheduler", "")))
    checkpoint, loras = _model(graph, inputs.get("model"))
    return Recipe(
        source="comfyui",
        generation=Generation(
            prompt=_text(graph, inputs.get("positive")),
            negative_prompt=_text(graph, inputs.get("negative")),
            prompt_syntax=Syntax.COMFYUI,
            long_prompt=LongPrompt.CHUNK,
            width_px=int(_number(latents.inputs.get("width"))),
            height_px=int(_number(latents.inputs.get("height"))),
            sampling=Sampling(
                sampler=sampler,
                sigma_schedule=schedule,
                steps=int(_number(inputs.get("steps"))),
                guidance_scale=float(_number(inputs.get("cfg"))),
                seeds=(_whole(inputs.get("seed", inputs.get("noise_seed"))),),
                part=_part(inputs),
            ),
        ),
        model=NamedModel(name=stem(checkpoint)),
        loras=loras,
        unread=(
            *(() if sampler else (Cause(name="sampler", original=str(inputs.get("sampler_name"))[:255]),)),
            *_forced_end(inputs),
            *(() if schedule else (Cause(name="sigma_schedule", original=str(inputs.get("scheduler"))[:255]),)),
            *(
                Cause(name="node", original=kind[:255])
                for kind in sorted({node.class_type for node in graph.values()} - _READ)[:_FAR]
            ),
        ),
    )


def _part(inputs: Mapping[str, Any]) -> StepRange:
    """The steps that KSamplerAdvanced computes. A step beyond the last one means all."""
    first, last = int(_number(inputs.get("start_at_step", 0))), _last(inputs)
    return StepRange(first_step=first or None, last_step=None if _ends_clean(inputs) else last)


def _last(inputs: Mapping[str, Any]) -> int | None:
    last = int(_number(inputs.get("end_at_step", _ALL)))
    return last if last < _number(inputs.get("steps")) else None


def _ends_clean(inputs: Mapping[str, Any]) -> bool:
    return inputs.get("return_with_leftover_noise") != "enable"


def _forced_end(inputs: Mapping[str, Any]) -> Iterator[Cause]:
    """A walk that stops early and then removes all noise at once, which has no counterpart here."""
    if _ends_clean(inputs) and (last := _last(inputs)) is not None:
        yield Cause(name="last_step", original=str(last))


def _at(graph: _Graph, link: Any) -> _Node | None:
    """The node that an input is linked with."""
    if not isinstance(link, list) or not link:
        return None
    return graph.get(str(cast(list[Any], link)[0])[:64])


def _text(graph: _Graph, link: Any) -> str:
    node = _at(graph, link)
    text = node.inputs.get("text") if node is not None and node.class_type == "CLIPTextEncode" else None
    if not isinstance(text, str):
        raise unusable("was made by a ComfyUI graph whose prompt is no plain text")
    return text


def _model(graph: _Graph, link: Any) -> tuple[str, tuple[NamedLora, ...]]:
    loras: list[NamedLora] = []
    for _ in range(_FAR):
        node = _at(graph, link)
        if node is None:
            break
        if "ckpt_name" in node.inputs:
            return str(node.inputs["ckpt_name"]), tuple(loras)
        if "lora_name" in node.inputs:
            weight = float(_number(node.inputs.get("strength_model", 1.0)))
            loras.append(NamedLora(name=str(node.inputs["lora_name"]), weight=weight))
        link = node.inputs.get("model")
    raise unusable("was made by a ComfyUI graph that names no checkpoint")


def _number(value: Any) -> float:
    """A number of the graph. Raises BAD_IMAGE for a link, for anything else, and for more than a field can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 2**63:
        raise unusable(f"was made by a ComfyUI graph with {excerpt(value)!r} where a number below 2^63 belongs")
    return value


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and _number(value) >= 0 else int(_number(value))
